"""Converts StableHLO text to a LiteRT file: a program of its own, since the converter brings an MLIR of its own.

    python litert_converter.py FOLDER PATH       reads module.mlir, writes PATH

The converter takes text; on the bytecode of another release of MLIR it dies.
"""
from __future__ import annotations

import pathlib
import sys


def convert(text: str, path: str) -> None:
  """Write a LiteRT file.

  Args:
    text: a StableHLO module with a public function 'main'.
    path: of the file.
  """
  from litert_converter.mlir import ir, passmanager
  from litert_converter.mlir._mlir_libs import converter_api_ext

  context = ir.Context()
  converter_api_ext.prepare_mlir_context(context)
  with context:
    module = ir.Module.parse(text)
    converter_api_ext.set_signature(module.operation, 'serving_default', ['input'], ['output'])
    config = converter_api_ext.ConvertToTFLConfig()
    config.qdq_conversion_mode = 'STATIC'
    converter_api_ext.run_convert_to_tfl_passes(module, passmanager.PassManager(), config)
    converter_api_ext.export_flatbuffer_to_file(module.operation, path)


if __name__ == '__main__':
  convert((pathlib.Path(sys.argv[1]) / 'module.mlir').read_text(), sys.argv[2])
