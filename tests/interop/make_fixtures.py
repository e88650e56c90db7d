"""Writes tests/interop/fixtures: small files of torch.save, in both of its formats. Needs torch; run once, by hand.

COMMAND: python tests/interop/make_fixtures.py
"""
import collections
import pathlib

import torch

FOLDER = pathlib.Path(__file__).parent / 'fixtures'


def main():
  base = torch.arange(24, dtype=torch.float32)
  weights = collections.OrderedDict(
    plain=base.reshape(2, 3, 4),
    shared=base[20:],  # the same storage
    transposed=base.reshape(4, 6).T,
    channels_last=torch.arange(16.0).reshape(1, 4, 2, 2).contiguous(memory_format=torch.channels_last),
    parameter=torch.nn.Parameter(torch.tensor([0.5, -1.5])),
    double=torch.tensor([1 / 3], dtype=torch.float64),
    half=torch.tensor([0.25, -2.0], dtype=torch.float16),
    bfloat16=torch.tensor([1.5, -3.0], dtype=torch.bfloat16),
    boolean=torch.tensor([True, False]),
    empty=torch.zeros(0, 3),
    num_batches_tracked=torch.tensor(7),
  )
  weights._metadata = collections.OrderedDict({'': {'version': 1}})
  checkpoint = {'epoch': 3, 'best': 0.5, 'name': 'tiny', 'state_dict': weights, 'ema': {'plain': -base}}
  FOLDER.mkdir(exist_ok=True)
  for name, value in {'weights': weights, 'checkpoint': checkpoint}.items():
    torch.save(value, FOLDER / f'{name}_zip.pt')
    torch.save(value, FOLDER / f'{name}_legacy.pth', _use_new_zipfile_serialization=False)


if __name__ == '__main__':
  main()
