"""Converts a function to ONNX by jax2onnx: a program of its own, since jax2onnx patches JAX and Flax while it works.

    python onnx_converter.py FOLDER PATH       reads job, writes PATH
"""
from __future__ import annotations

import pathlib
import sys


def main(folder: str, path: str) -> None:
  """Run the program."""
  import cloudpickle
  import jax2onnx
  import onnx

  from lightjax.core import modes

  apply, variables, shape = cloudpickle.loads((pathlib.Path(folder) / 'job').read_bytes())
  with modes.convolution_mode('lax'):
    model = jax2onnx.to_onnx(lambda x: apply(variables, x), [shape], model_name='network')
  onnx.save(model, path)


if __name__ == '__main__':
  main(*sys.argv[1:])
