"""The convolution mode: which form a convolution, and what belongs to it, takes while a function is traced.

'fast' lets `lightjax.nn` choose the quickest form for the backend. 'lax' keeps every convolution one
`conv_general_dilated` operation, and every pooling one window reduction, which is what graphs, exporters and
first-order forward-mode differentiation need.
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

import jax

ConvolutionMode = Literal['fast', 'lax']

# A user context of JAX and not a plain context variable: it is part of the key of the jit caches, so that a function
# that was first traced in one mode is traced again in the other.
_mode = jax.make_user_context('fast')


def current_convolution_mode() -> ConvolutionMode:
  """The mode in force where this is called: 'fast' unless inside `convolution_mode('lax')`."""
  return _mode.value


def takes_own_forms() -> bool:
  """Whether `lightjax.nn` takes forms of its own where this is called: in 'fast' mode on the CPU.

  Nothing but `lax`'s forms was measured on GPU and TPU. The backend is what an enclosing jit compiles for unless told
  otherwise; who compiles for another one on a CPU host does so in 'lax' mode.
  """
  return current_convolution_mode() == 'fast' and jax.default_backend() == 'cpu'


@contextlib.contextmanager
def convolution_mode(mode: str) -> Iterator[None]:
  """Everything traced inside has its convolutions in this form; contexts nest, and each thread has its own.

  Args:
    mode: 'fast' or 'lax', see the module's docstring.
  Raises:
    ValueError: any other mode.
  Example:
    >>> with convolution_mode('lax'):
    ...   current_convolution_mode()
    'lax'
  """
  if mode not in get_args(ConvolutionMode):
    raise ValueError(f'convolution_mode({mode!r}): the modes are {get_args(ConvolutionMode)}.')
  with _mode(mode):
    yield
