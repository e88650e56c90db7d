"""Any pure `apply` as a `program.Network`: the equations of a recording, gathered into operations.

What depends on variables alone is computed already. An affine operation on the outputs of a layer (BatchNorm, a bias,
a layer's scale) goes into its kernel and bias, a following max or min into its clips, as long as nothing else reads
what is in between. Functions of a single tensor, whatever their number of equations (a hard swish), become one 'map'.
Means over pixels, sums and products of two tensors, data movement and maxima are operations of their own. What is not
known, and reductions over channels (a LayerNorm), stays a 'float' operation.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lightjax.core import trees
from lightjax.core.typing import Variables
from lightjax.graph import jaxprs, parts
from lightjax.graph.coupling import ELEMENTWISE
from lightjax.graph.parts import Part
from lightjax.quantize.program import BINARY, Kind, Layer, Network, Node, Program, Step, Window
from lightjax.quantize.recording import Equation, Recording, Reference, record

__all__ = ['lower']

_MOVEMENT = frozenset({
  'broadcast_in_dim', 'gather', 'pad', 'reshape', 'rev', 'slice', 'split', 'squeeze', 'transpose'})
_IDENTITY = frozenset({'copy', 'copy_p', 'stop_gradient', 'optimization_barrier'})


def lower(apply: Callable[..., Any], variables: Variables, *inputs: Any) -> Network:
  """A network as a program of integer-ready operations.

  Args:
    apply: `apply(variables, *inputs)`, pure, in evaluation mode, float32.
    variables: arrays; for a program whose parameters come from a file zeros do.
    *inputs: arrays or `jax.ShapeDtypeStruct`, batch first; the batch size does not matter.
  Returns:
    Program and parameters: `program.run` computes what `apply` does, up to rounding.
  Example:
    >>> variables = {'up': jnp.ones((3, 8)), 'down': jnp.ones((8, 2))}
    >>> print(lower(lambda variables, x: jnp.maximum(x @ variables['up'], 0) @ variables['down'], variables,
    ...             jnp.ones((1, 3))))
    cast   cast     3
    layer  layer    8
    layer  layer#2  2
  """
  roots = frozenset(path.split('/')[0] for path in trees.flatten(variables))
  return _Builder(record(apply, variables, *inputs), roots).build()


class _Mapped(NamedTuple):
  """A function of one tensor that is not computed yet."""
  source: str
  steps: tuple[Step, ...]
  result: str


class _Draft:
  """An operation whose result may still take an affine operation or a clip."""

  def __init__(self, node: Node, layer: Layer | None = None):
    self.node, self.layer = node, layer
    self.is_clipped = False

  def absorb(self, equation: Equation, known: Part, is_first: bool) -> bool:
    """Take an elementwise equation with a constant; False if it can't be done."""
    name, array = equation.name, _channelwise(known)
    if name in ('max', 'min') and array is not None and (self.layer is not None or array.size == 1):
      self.is_clipped = True
      if self.layer is None:
        low, high = self.node.low, self.node.high
        self.node = (self.node._replace(low=max(low, array.item())) if name == 'max' else
                     self.node._replace(high=min(high, array.item())))
      else:
        bound = np.broadcast_to(array, np.shape(self.layer.bias)).astype(np.float32)
        self.layer = (self.layer._replace(low=np.maximum(self.layer.low, bound)) if name == 'max' else
                      self.layer._replace(high=np.minimum(self.layer.high, bound)))
      return True
    if self.is_clipped or (not is_first and name in ('sub', 'div')):
      return False
    if self.layer is None:
      # Not a factor that is a variable: what becomes of a program must not depend on its values.
      is_factor = name == 'div' or (name == 'mul' and known.shape == ())
      if self.node.kind != 'sum' or not is_factor or not bool((np.asarray(known.array) > 0).all()):
        return False
      divisor = np.asarray(known.array, np.float32)
      self.node = self.node._replace(scale=self.node.scale / divisor if name == 'div' else self.node.scale * divisor)
      return True
    if array is None or name not in ('add', 'sub', 'mul', 'div'):
      return False
    kernel, bias = self.layer.kernel, self.layer.bias
    if name in ('mul', 'div'):
      factor = array if name == 'mul' else 1 / array
      self.layer = self.layer._replace(kernel=kernel * factor, bias=bias * factor)
    else:
      self.layer = self.layer._replace(bias=bias + (array if name == 'add' else -array))
    return True


def _channelwise(known: Part) -> np.ndarray | None:
  """A constant as float64 [channels] or [1]; None if it differs from pixel to pixel."""
  array = np.asarray(known.array, np.float64)
  if any(size != 1 for size in array.shape[:-1]):
    return None
  return array.reshape(-1)


class _Builder:
  """Gathers equations into operations."""

  def __init__(self, recording: Recording, roots: frozenset[str]):
    self.recording, self.roots = recording, roots
    self.values: dict[int, Any] = {}  # _Draft, _Mapped, or the name of a tensor
    self.nodes: list[Node] = []
    self.layers: dict[str, Layer] = {}
    self.shapes: dict[str, tuple[int, ...]] = {}
    self.grids: dict[str, str] = {}
    self.casts: dict[str, str] = {}
    self.inputs: list[str] = []
    self.taken: Counter[str] = Counter()
    self.readers: Counter[int] = Counter()

  def build(self) -> Network:
    found = self.recording
    for equation in found.equations:
      self.readers.update({each.number for each in equation.references})
    self.readers.update(each.number for each in found.outputs if isinstance(each, Reference))
    self.inputs = [self.tensor(reference, self.name('', f'input{i}' if i else 'input'))
                   for i, reference in enumerate(found.inputs)]
    for equation in found.equations:
      self.add(equation)
    outputs = [self.output(each) for each in found.outputs]
    program = Program(tuple(self.nodes), tuple(self.inputs), tuple(outputs), found.structure, self.shapes, self.grids)
    return Network(program, self.layers)

  def output(self, value: Any) -> str:
    """The name of an output, in float: the accumulators of a last layer are not rounded again."""
    if isinstance(value, Part):
      raise ValueError('lower: an output of the network does not depend on its inputs.')
    name = self.read(value)
    if self.grids.get(name) == name and self.readers[value.number] == 1 and not any(
        name in node.inputs for node in self.nodes):
      del self.grids[name]
    return name

  def name(self, stack: str, what: str) -> str:
    module = jaxprs.module_name(stack, self.roots)
    name = '/'.join(part for part in (module, what) if part) or 'layer'
    self.taken[name] += 1
    return name if self.taken[name] == 1 else f'{name}#{self.taken[name]}'

  def tensor(self, reference: Reference, name: str, grid: str | None = None) -> str:
    """Note a value as computed."""
    self.values[reference.number] = name
    self.shapes[name] = self.recording.shape(reference)
    if grid is not None:
      self.grids[name] = grid
    return name

  def add(self, equation: Equation) -> None:
    name = equation.name
    moving = equation.references
    if name in _IDENTITY or (name == 'convert_element_type' and self.same_dtype(equation)):
      self.values[equation.results[0].number] = self.values[moving[0].number]
    elif name in ELEMENTWISE:
      self.elementwise(equation, moving)
    elif not self.handled(equation, moving):
      self.unknown(equation)

  def same_dtype(self, equation: Equation) -> bool:
    return (isinstance(equation.operands[0], Reference)
            and self.recording.dtype(equation.operands[0]) == self.recording.dtype(equation.results[0]))

  def handled(self, equation: Equation, moving: Sequence[Reference]) -> bool:
    """Everything but elementwise equations; False for what is not known."""
    name, first = equation.name, equation.operands[0]
    if not all(jnp.issubdtype(self.recording.dtype(each), jnp.floating) for each in moving):
      return False
    if name == 'concatenate':
      if len(moving) != len(equation.operands):
        return False
      self.node('concatenate', equation, [self.codes(each) for each in moving])
      return True
    if len(moving) != 1 or moving[0] is not first:
      return False
    if name == 'conv_general_dilated':
      return self.convolution(equation)
    if name == 'dot_general':
      return self.dense(equation)
    rank = len(self.recording.shape(first))
    if name in ('reduce_sum', 'reduce_window_sum'):
      axes = equation.params['axes'] if name == 'reduce_sum' else [
        axis for axis, size in enumerate(equation.params['window_dimensions']) if size > 1]
      if rank - 1 in axes or 0 in axes:
        return False
      node = Node('sum', self.name(equation.stack, 'sum'), (self.codes(first),), ())
      self.draft(equation, node)
      return True
    # Floats that an unknown operation made are moved as floats; an input is cast first, and its codes move.
    if self.read(first) not in self.grids and self.read(first) not in self.inputs:
      return False
    if name in ('reduce_max', 'reduce_window_max'):
      self.node('pool', equation, [self.codes(first)])
      return True
    if name not in _MOVEMENT or (name == 'pad' and not self.pads_zeros(equation)):
      return False
    self.node('move', equation, [self.codes(first)])
    return True

  def pads_zeros(self, equation: Equation) -> bool:
    return isinstance(equation.operands[1], Part) and float(equation.operands[1].array) == 0

  def elementwise(self, equation: Equation, moving: Sequence[Reference]) -> None:
    result = equation.results[0]
    known = [each for each in equation.operands if isinstance(each, Part)]
    value = self.values[moving[0].number]
    if (len(moving) == 1 == len(known) and isinstance(value, _Draft) and self.readers[moving[0].number] == 1
        and self.recording.shape(result) == self.recording.shape(moving[0])
        and value.absorb(equation, known[0], equation.operands[0] is moving[0])):
      self.values[result.number] = value
      return
    values = [self.mapped(each) for each in moving]
    sources = {each.source for each in values}
    is_exact = all(source in self.grids for source in sources)
    shape = self.recording.shape(result)
    if is_exact and len(sources) == 1 and all(_channelwise(each) is not None for each in known) and all(
        self.recording.shape(each) == shape for each in moving):
      steps = {step.results: step for each in values for step in each.steps}
      inner = {reference: each.result for reference, each in zip(moving, values, strict=True)}
      operands = tuple(inner[each] if isinstance(each, Reference) else each.array for each in equation.operands)
      step = Step(equation.primitive, equation.params, operands, (f'%{result.number}',))
      self.values[result.number] = _Mapped(values[0].source, (*steps.values(), step), step.results[0])
    elif is_exact and equation.name in BINARY and len(moving) == 2 and len(
        {len(self.recording.shape(each)) for each in moving}) == 1:
      names = tuple(self.codes(each) for each in moving)
      kind: Any = equation.name
      self.draft(equation, Node(kind, self.name(equation.stack, equation.name), names, ()), steps=False)
    else:
      self.unknown(equation)

  def convolution(self, equation: Equation) -> bool:
    params, numbers = equation.params, equation.params['dimension_numbers']
    plain = (0, 3, 1, 2)
    if (numbers.lhs_spec != plain or numbers.out_spec != plain or params['batch_group_count'] != 1
        or any(each != 1 for each in params['lhs_dilation'])):
      return False
    kernel = np.transpose(self.constant(equation.operands[1]), [numbers.rhs_spec[axis] for axis in (2, 3, 1, 0)])
    padding: Any = tuple(tuple(pair) for pair in params['padding'])
    window = Window(tuple(params['window_strides']), padding, tuple(params['rhs_dilation']),
                    params['feature_group_count'])
    self.layer(equation, kernel, window)
    return True

  def dense(self, equation: Equation) -> bool:
    (left, right), batched = equation.params['dimension_numbers']
    rank = len(self.recording.shape(equation.operands[0]))
    kernel = self.constant(equation.operands[1])
    if batched != ((), ()) or tuple(left) != (rank - 1,) or kernel.ndim != 2:
      return False
    self.layer(equation, kernel if tuple(right) == (0,) else kernel.T, None)
    return True

  def constant(self, part: Part) -> np.ndarray:
    return np.asarray(parts.full(part, 'kernel').array, np.float64)

  def layer(self, equation: Equation, kernel: np.ndarray, window: Window | None) -> None:
    outputs = kernel.shape[-1]
    infinite = np.full(outputs, np.inf, np.float32)
    node = Node('layer', self.name(equation.stack, ''), (self.codes(equation.operands[0]),), (), window=window)
    self.draft(equation, node, Layer(kernel, np.zeros(outputs), -infinite, infinite), steps=False)

  def draft(self, equation: Equation, node: Node, layer: Layer | None = None, steps: bool = True) -> None:
    node = node._replace(outputs=(node.name,))
    if steps:
      node = node._replace(steps=(Step(equation.primitive, equation.params, (*node.inputs,), node.outputs),))
    self.shapes[node.name] = self.recording.shape(equation.results[0])
    self.values[equation.results[0].number] = _Draft(node, layer)

  def node(self, kind: Kind, equation: Equation, inputs: Sequence[str]) -> None:
    """An operation that is one equation; its results stand on the grid of its operand, a concatenation's on its own."""
    rest = [each for each in equation.operands if isinstance(each, Part)]
    name = self.name(equation.stack, equation.name)
    outputs = (name,) if len(equation.results) == 1 else tuple(f'{name}.{i}' for i in range(len(equation.results)))
    for reference, output in zip(equation.results, outputs, strict=True):
      self.tensor(reference, output, output if kind == 'concatenate' else self.grids[inputs[0]])
    operands = (*inputs, *(parts.full(each, name).array for each in rest))
    self.nodes.append(Node(kind, name, tuple(inputs), outputs, (
      Step(equation.primitive, equation.params, operands, outputs),)))

  def unknown(self, equation: Equation) -> None:
    """An equation that is computed in float."""
    inner = {each: self.read(each) for each in equation.references}
    name = self.name(equation.stack, equation.name)
    outputs = (name,) if len(equation.results) == 1 else tuple(f'{name}.{i}' for i in range(len(equation.results)))
    for reference, output in zip(equation.results, outputs, strict=True):
      self.tensor(reference, output)
    is_elementwise = equation.name in ELEMENTWISE
    operands = tuple(
      inner[each] if isinstance(each, Reference) else each.array if is_elementwise else parts.full(each, name).array
      for each in equation.operands)
    self.nodes.append(Node('float', name, tuple(dict.fromkeys(inner.values())), outputs, (
      Step(equation.primitive, equation.params, operands, outputs),)))

  def mapped(self, reference: Reference) -> _Mapped:
    """A value as a function of a tensor."""
    value = self.values[reference.number]
    if isinstance(value, _Mapped):
      return value
    name = self.read(reference)
    return _Mapped(name, (), name)

  def read(self, reference: Reference) -> str:
    """The tensor of a value; computed now if it was not yet."""
    value = self.values[reference.number]
    if isinstance(value, str):
      return value
    if isinstance(value, _Draft):
      self.finish(value)
      self.values[reference.number] = value.node.name
      return value.node.name
    name = self.name('', f'{value.source}/map')
    last = value.steps[-1]._replace(results=(name,))
    self.nodes.append(Node('map', name, (value.source,), (name,), (*value.steps[:-1], last)))
    return self.tensor(reference, name, name)

  def finish(self, draft: _Draft) -> None:
    node = draft.node
    if node.name in self.grids:  # another reference to the same value
      return
    self.nodes.append(node)
    self.grids[node.name] = node.name
    if draft.layer is not None:
      self.layers[node.name] = Layer(*(jnp.asarray(each, jnp.float32) for each in draft.layer))

  def codes(self, reference: Reference) -> str:
    """The tensor of a value, with a grid."""
    name = self.read(reference)
    if name in self.grids:
      return name
    if name not in self.casts:
      cast = self.name('', 'cast' if name == 'input' else f'{name}/cast')
      self.nodes.append(Node('cast', cast, (name,), (cast,)))
      self.shapes[cast] = self.shapes[name]
      self.grids[cast] = cast
      self.casts[name] = cast
    return self.casts[name]
