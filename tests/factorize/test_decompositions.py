"""Decompositions against NumPy: the best truncated SVD, Tucker-2 by unfoldings and alternation, and what each costs."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightjax.factorize import decompositions
from lightjax.factorize.layers import Layer
from lightjax.graph.factored import Use

CONV = Use('conv', (0, 1), (2,), (3,), (((8, 8), (8, 8)),))


def kernel(shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape)


def truncated(matrix, rank):
  left, values, right = np.linalg.svd(matrix, full_matrices=False)
  return left[:, :rank] * values[:rank] @ right[:rank]


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 5)] * 4), st.integers(1, 6), st.integers(0, 99))
def test_channel_and_spatial_are_the_best_of_their_rank(shape, rank, seed):
  whole = kernel(shape, seed)
  h, w, i, o = shape
  channel, spatial = decompositions.channel(), decompositions.spatial()
  made = channel.product(channel.split(whole, (rank,)))
  np.testing.assert_allclose(made.reshape(-1, o), truncated(whole.reshape(-1, o), rank), atol=1e-10)
  made = spatial.product(spatial.split(whole, (rank,)))
  rows = whole.transpose(0, 2, 1, 3).reshape(h * i, w * o)
  np.testing.assert_allclose(made.transpose(0, 2, 1, 3).reshape(h * i, w * o), truncated(rows, rank), atol=1e-10)


def test_a_dense_layer_is_split_by_its_singular_values():
  whole = kernel((7, 5))
  first, second = decompositions.channel().split(whole, (2,))
  np.testing.assert_allclose(first @ second, truncated(whole, 2), atol=1e-12)
  np.testing.assert_allclose(np.linalg.norm(first), np.linalg.norm(second))


def hooi(whole, p, q, sweeps):
  """Tucker-2 in turns: unfold along a side, multiply with the other side's basis, take singular vectors."""
  inputs = np.linalg.svd(np.moveaxis(whole, 2, 0).reshape(whole.shape[2], -1))[0][:, :p]
  outputs = np.linalg.svd(np.moveaxis(whole, 3, 0).reshape(whole.shape[3], -1))[0][:, :q]
  for _ in range(sweeps):
    narrow = np.tensordot(whole, outputs, (3, 0))
    inputs = np.linalg.svd(np.moveaxis(narrow, 2, 0).reshape(whole.shape[2], -1))[0][:, :p]
    narrow = np.einsum('hwio,ip->hwpo', whole, inputs)
    outputs = np.linalg.svd(np.moveaxis(narrow, 3, 0).reshape(whole.shape[3], -1))[0][:, :q]
  core = np.einsum('hwio,ip,oq->hwpq', whole, inputs, outputs)
  return np.einsum('hwpq,ip,oq->hwio', core, inputs, outputs)


@pytest.mark.parametrize('ranks', [(1, 1), (2, 4), (5, 3), (6, 7)])
def test_tucker2_is_higher_order_orthogonal_iteration(ranks):
  whole = kernel((3, 2, 6, 7))
  method = decompositions.tucker2()
  factors = method.split(whole, ranks)
  np.testing.assert_allclose(method.product(factors), hooi(whole, *ranks, decompositions.SWEEPS), atol=1e-9)
  start, end = (np.linalg.norm(whole - hooi(whole, *ranks, sweeps)) for sweeps in (0, decompositions.SWEEPS))
  assert np.linalg.norm(whole - method.product(factors)) <= end + 1e-9 <= start + 2e-9
  norms = [np.linalg.norm(each) for each in factors]
  np.testing.assert_allclose(norms, norms[0])


@pytest.mark.parametrize('name', ['channel', 'spatial', 'tucker2'])
def test_the_energy_cut_off_is_the_error_or_bounds_it(name):
  whole = kernel((3, 3, 4, 5)).astype(np.float32)
  layer = Layer(name, whole.shape, CONV)
  total = np.sum(whole.astype(float)**2)
  for option in layer.options(whole):
    factors = layer.split(whole, option.ranks)
    assert {key: each.shape for key, each in factors.items()} == layer.shapes(option.ranks)
    assert option.params == sum(each.size for each in factors.values())
    error = np.sum((whole - layer.product(factors)).astype(float)**2) / total
    if name == 'tucker2':  # the truncated unfoldings bound it: De Lathauwer et al. 2000, property 10
      assert error <= option.damage + 1e-6
    else:
      np.testing.assert_allclose(error, option.damage, atol=1e-6)
  assert layer.options(whole)[-1].damage == 0


@pytest.mark.parametrize('name', ['channel', 'spatial', 'tucker2'])
def test_full_ranks_give_the_kernel_and_the_product_differentiates(name):
  whole = kernel((3, 3, 4, 5)).astype(np.float32)
  layer = Layer(name, whole.shape, CONV)
  factors = jax.tree.map(jnp.asarray, layer.split(whole, layer.options(whole)[-1].ranks))
  np.testing.assert_allclose(layer.product(factors), whole, atol=1e-5)
  gradients = jax.grad(lambda factors: jnp.sum(layer.product(factors)**2))(factors)
  assert all(np.isfinite(each).all() and each.any() for each in gradients.values())


def test_axes_as_stored_are_found_again():
  """OIHW, and a dense layer of heads, [heads, dim, inputs]."""
  stored = kernel((5, 4, 3, 2)).astype(np.float32)
  layer = Layer('spatial', stored.shape, Use('conv', (2, 3), (1,), (0,), ()))
  plain = Layer('spatial', (3, 2, 4, 5), Use('conv', (0, 1), (2,), (3,), ()))
  expected = plain.product(plain.split(stored.transpose(2, 3, 1, 0), (2,))).transpose(3, 2, 0, 1)
  np.testing.assert_allclose(layer.product(layer.split(stored, (2,))), expected, atol=1e-6)
  heads = kernel((2, 3, 7)).astype(np.float32)
  layer = Layer('channel', heads.shape, Use('dense', (), (2,), (0, 1), ()))
  assert layer.shapes((4,)) == {'first': (7, 4), 'second': (4, 2, 3)}
  np.testing.assert_allclose(
    layer.product(layer.split(heads, (4,))), truncated(heads.reshape(6, 7), 4).reshape(2, 3, 7), atol=1e-5)
