"""Equations of a jaxpr as ONNX operators: what functions of a tensor, movements and reductions need.

The layout of images is the caller's: elementwise equations take any, the others the one that they were traced in.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lightjax.quantize.program import Step

Emit = Callable[..., str]
Constant = Callable[[Any], str]

UNARY = {
  'abs': 'Abs', 'ceil': 'Ceil', 'cos': 'Cos', 'erf': 'Erf', 'exp': 'Exp', 'floor': 'Floor', 'log': 'Log',
  'logistic': 'Sigmoid', 'neg': 'Neg', 'sign': 'Sign', 'sin': 'Sin', 'sqrt': 'Sqrt', 'tanh': 'Tanh', 'not': 'Not',
  'copy': 'Identity', 'copy_p': 'Identity', 'stop_gradient': 'Identity'}
BINARY = {
  'add': 'Add', 'add_any': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'max': 'Max', 'min': 'Min', 'pow': 'Pow',
  'gt': 'Greater', 'ge': 'GreaterOrEqual', 'lt': 'Less', 'le': 'LessOrEqual', 'eq': 'Equal', 'and': 'And', 'or': 'Or'}
REDUCTIONS = {'reduce_max': 'ReduceMax', 'reduce_min': 'ReduceMin'}
TYPES = {'float32': 1, 'int32': 6, 'bool': 9, 'int8': 3, 'uint8': 2}


def lower(
  emit: Emit, constant: Constant, step: Step, operands: Sequence[str], filling: int | None,
) -> list[str] | None:
  """The results of an equation.

  Args:
    emit: (operator, inputs, outputs, **attributes) -> name of the result.
    constant: array -> name.
    step: the equation.
    operands: names of its operands.
    filling: the code that stands for the zeros of a pad; None for floats.
  Returns:
    Names of the results; None if ONNX has no such operator, or this module does not know it.
  """
  name, params = step.primitive.name, step.params
  if name in UNARY:
    return [emit(UNARY[name], operands)]
  if name in BINARY:
    return [emit(BINARY[name], operands)]
  if name == 'rsqrt':
    return [emit('Reciprocal', [emit('Sqrt', operands)])]
  if name == 'square':
    return [emit('Mul', [operands[0], operands[0]])]
  if name == 'integer_pow':
    return [emit('Pow', [operands[0], constant(np.float32(params['y']))])]
  if name == 'log1p':
    return [emit('Log', [emit('Add', [operands[0], constant(np.float32(1))])])]
  if name == 'expm1':
    return [emit('Sub', [emit('Exp', operands), constant(np.float32(1))])]
  if name == 'erfc':
    return [emit('Sub', [constant(np.float32(1)), emit('Erf', operands)])]
  if name == 'ne':
    return [emit('Not', [emit('Equal', operands)])]
  if name == 'round' and int(params['rounding_method']) == 1:  # to even, as ONNX rounds
    return [emit('Round', operands)]
  if name == 'clamp':
    low, x, high = operands
    return [emit('Min', [emit('Max', [x, low]), high])]
  if name == 'select_n' and len(operands) == 3:
    which, false, true = operands
    return [emit('Where', [which, true, false])]
  if name == 'convert_element_type' and np.dtype(params['new_dtype']).name in TYPES:
    return [emit('Cast', operands, to=TYPES[np.dtype(params['new_dtype']).name])]
  return _moved(emit, constant, step, operands, filling)


def _moved(
  emit: Emit, constant: Constant, step: Step, operands: Sequence[str], filling: int | None,
) -> list[str] | None:
  """Movements and reductions."""
  name, params = step.primitive.name, step.params

  def integers(values: Any) -> str:
    return constant(np.asarray(values, np.int64))

  if name == 'reshape':
    return [emit('Reshape', [operands[0], integers(params['new_sizes'])])]
  if name == 'squeeze':
    return [emit('Squeeze', [operands[0], integers(params['dimensions'])])]
  if name == 'transpose':
    return [emit('Transpose', operands[:1], perm=[int(axis) for axis in params['permutation']])]
  if name == 'broadcast_in_dim':
    shape, axes = params['shape'], params['broadcast_dimensions']
    added = [axis for axis in range(len(shape)) if axis not in axes]
    value = emit('Unsqueeze', [operands[0], integers(added)]) if added else operands[0]
    return [emit('Expand', [value, integers(shape)])]
  if name == 'slice':
    strides = params['strides'] or (1,) * len(params['start_indices'])
    return [emit('Slice', [operands[0], integers(params['start_indices']), integers(params['limit_indices']),
                           integers(range(len(strides))), integers(strides)])]
  if name == 'rev':
    axes = params['dimensions']
    ends = [np.iinfo(np.int64).min] * len(axes)
    return [emit('Slice', [operands[0], integers([-1] * len(axes)), integers(ends), integers(axes),
                           integers([-1] * len(axes))])]
  if name == 'split':
    results = list(step.results)
    emit('Split', [operands[0], integers(params['sizes'])], outputs=results, axis=int(params['axis']))
    return results
  if name == 'pad' and all(low >= 0 and high >= 0 and inner == 0 for low, high, inner in params['padding_config']):
    lows, highs, _ = zip(*params['padding_config'], strict=True)
    value = operands[1] if filling is None else constant(np.uint8(filling))
    return [emit('Pad', [operands[0], integers([*lows, *highs]), value])]
  if name in REDUCTIONS:
    return [emit(REDUCTIONS[name], operands, axes=[int(axis) for axis in params['axes']], keepdims=0)]
  if name == 'reduce_sum':
    return [emit('ReduceSum', [operands[0], integers(params['axes'])], keepdims=0)]
  return None
