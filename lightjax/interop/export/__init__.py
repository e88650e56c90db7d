"""Networks as files that other runtimes load: StableHLO, ONNX and LiteRT, in float or in our own integers.

    report = export.save('network.onnx', model.apply, variables, images, format='onnx')
    report = export.save_integers('network.tflite', quantized, images, format='litert')

Each file is reloaded and compared before it has its name. ONNX and LiteRT need `pip install 'lightjax[export]'`, whose
packages are not imported here: converters and runtimes run in processes of their own.
"""
from lightjax.interop.export.errors import ExportError
from lightjax.interop.export.processes import missing
from lightjax.interop.export.saving import FORMATS, Report, save, save_integers

__all__ = ['FORMATS', 'ExportError', 'Report', 'missing', 'save', 'save_integers']
