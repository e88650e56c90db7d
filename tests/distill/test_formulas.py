"""Each loss against a restatement of its paper's formula, in float64 by loops and NumPy."""
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lightjax.distill import losses as real

BATCH, CLASSES = 4, 5
LABELS = np.array([1, 0, 4, 1])


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=(BATCH, *shape)).astype(np.float32)


STUDENT, TEACHER = 3 * normal(0, CLASSES), 3 * normal(1, CLASSES)
MAPS = (normal(2, 4, 4, 3), normal(3, 4, 4, 6))


class Given:
  """The losses, given NumPy arrays."""

  def __getattr__(self, name):
    return lambda *arrays, **hyper: getattr(real, name)(*jax.tree.map(jnp.asarray, arrays), **hyper)


losses = Given()


def close(seen, wanted, **more):
  np.testing.assert_allclose(seen, wanted, **({'rtol': 2e-4, 'atol': 1e-6} | more))


def softmax(z):
  e = np.exp(np.asarray(z, np.float64))
  return e / e.sum(-1, keepdims=True)


def divergence(p, q):
  return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))


def unit(v):
  v = np.asarray(v, np.float64)
  return v / np.linalg.norm(v)


def test_decoupled():
  wanted = []
  for z, t, label in zip(STUDENT, TEACHER, LABELS, strict=True):
    p, q = softmax(t / 4), softmax(z / 4)
    rest = np.arange(CLASSES) != label
    target = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
    others = divergence(p[rest] / (1 - p[label]), q[rest] / (1 - q[label]))
    wanted.append(16 * (2 * target + 8 * others))
  close(losses.decoupled(STUDENT, TEACHER, labels=jnp.array(LABELS), temperature=4.0, target=2.0, others=8.0), wanted)


def test_decoupled_is_hintons_loss_with_the_teachers_own_weights():
  p = softmax(TEACHER / 4)
  labels = jnp.array(LABELS)
  parts = [np.asarray(losses.decoupled(STUDENT, TEACHER, labels=labels, temperature=4.0, target=a, others=b))
           for a, b in ((1.0, 0.0), (0.0, 1.0))]
  close(losses.temperature(STUDENT, TEACHER, temperature=4.0),
        parts[0] + (1 - p[np.arange(BATCH), LABELS]) * parts[1])


def test_dist():
  p, q = softmax(TEACHER / 2), softmax(STUDENT / 2)
  across = np.mean([np.corrcoef(p[:, j], q[:, j])[0, 1] for j in range(CLASSES)])
  wanted = [4 * (2 * (1 - np.corrcoef(p[i], q[i])[0, 1]) + 3 * (1 - across)) for i in range(BATCH)]
  close(losses.dist(STUDENT, TEACHER, temperature=2.0, inter=2.0, intra=3.0), wanted)


def test_standardized():
  def z(logits):
    return (logits - logits.mean()) / logits.std()
  wanted = [4 * divergence(softmax(z(t) / 2), softmax(z(s) / 2)) for s, t in zip(STUDENT, TEACHER, strict=True)]
  close(losses.standardized(STUDENT, TEACHER, temperature=2.0), wanted)
  close(losses.standardized(2 * TEACHER + 7, TEACHER), 0, atol=1e-5)


def test_virtual_teacher():
  made = np.full((BATCH, CLASSES), 0.1 / 4)
  made[np.arange(BATCH), LABELS] = 0.9
  wanted = [divergence(softmax(p / 20), softmax(z / 20)) for p, z in zip(made, STUDENT, strict=True)]
  close(losses.virtual_teacher(
    STUDENT, TEACHER, labels=jnp.array(LABELS), temperature=20.0, confidence=0.9), wanted)


def test_mutual_and_both_targets():
  def cross_entropy(logits):
    return -np.log(softmax(logits)[np.arange(BATCH), LABELS])

  def soft(teacher, student, t):
    return t**2 * np.array([divergence(softmax(a / t), softmax(b / t)) for a, b in zip(teacher, student, strict=True)])
  labels = jnp.array(LABELS)
  close(losses.soft_and_hard(STUDENT, TEACHER, labels=labels, temperature=3.0, soft=0.3),
        0.7 * cross_entropy(STUDENT) + 0.3 * soft(TEACHER, STUDENT, 3))
  close(losses.mutual(STUDENT, TEACHER, labels=labels),
        cross_entropy(TEACHER) + soft(TEACHER, STUDENT, 1) + soft(STUDENT, TEACHER, 1))


def test_hints():
  one, other = normal(4, 3, 3, 2), normal(5, 3, 3, 2)
  close(losses.hints(one, other), ((one - other) ** 2).mean((1, 2, 3)))


@pytest.mark.parametrize('power', [1, 2])
def test_attention(power):
  def attend(features):
    return unit((np.abs(features) ** power).sum(-1).ravel())
  wanted = [((attend(s) - attend(t)) ** 2).mean() for s, t in zip(*MAPS, strict=True)]
  close(losses.attention(*MAPS, power=power), wanted)


def test_nst():
  def kernel(one, other):
    return np.mean([(unit(one[..., i].ravel()) @ unit(other[..., j].ravel())) ** 2
                    for i in range(one.shape[-1]) for j in range(other.shape[-1])])
  wanted = [kernel(t, t) + kernel(s, s) - 2 * kernel(s, t) for s, t in zip(*MAPS, strict=True)]
  close(losses.nst(*MAPS), wanted)


def test_fsp():
  student, teacher = (normal(6, 4, 4, 2), normal(7, 2, 2, 3)), (normal(8, 4, 4, 2), normal(9, 2, 2, 3))

  def flow(first, second):
    pooled = np.array([[first[2 * i:2 * i + 2, 2 * j:2 * j + 2].max((0, 1)) for j in range(2)] for i in range(2)])
    return sum(np.outer(pooled[i, j], second[i, j]) for i in range(2) for j in range(2)) / 4
  wanted = [((flow(student[0][i], student[1][i]) - flow(teacher[0][i], teacher[1][i])) ** 2).mean()
            for i in range(BATCH)]
  close(losses.fsp(student, teacher), wanted)


def test_variational():
  one, other, raw = normal(4, 3, 3, 2), normal(5, 3, 3, 2), np.array([-1.0, 2.0], np.float32)
  squared = np.log1p(np.exp(raw.astype(np.float64))) + 1e-5
  wanted = (np.log(squared) / 2 + (other - one) ** 2 / (2 * squared)).mean((1, 2, 3))
  close(losses.variational(one, other, variance=jnp.array(raw)), wanted)


def test_review():
  one, other = normal(4, 8, 8, 2), normal(5, 8, 8, 2)

  def pooled(features, size):
    step = 8 // size
    return np.array([[features[i * step:(i + 1) * step, j * step:(j + 1) * step].mean((0, 1))
                      for j in range(size)] for i in range(size)])

  def level(s, t):
    return sum(weight * ((pooled(s, size) - pooled(t, size)) ** 2).mean()
               for weight, size in ((1, 8), (1 / 2, 4), (1 / 4, 2), (1 / 8, 1))) / (1 + 1 / 2 + 1 / 4 + 1 / 8)
  wanted = np.array([level(s, t) for s, t in zip(one, other, strict=True)])
  close(losses.review((one,), (other,)), wanted)
  close(losses.review((one, one), (other, other)), 2 * wanted)


def test_similarity():
  def gram(features):
    flat = features.reshape(BATCH, -1).astype(np.float64)
    return np.array([unit(row) for row in flat @ flat.T])
  wanted = ((gram(MAPS[0]) - gram(MAPS[1])) ** 2).sum() / BATCH**2
  close(losses.similarity(*MAPS).mean(), wanted)


def huber(x):
  return 0.5 * x**2 if abs(x) <= 1 else abs(x) - 0.5


def test_distance():
  def distances(f):
    d = np.array([[np.linalg.norm(f[i] - f[j]) for j in range(BATCH)] for i in range(BATCH)])
    return d / d[d > 0].mean()
  one, other = distances(STUDENT), distances(TEACHER)
  close(losses.distance(STUDENT, TEACHER).mean(), np.mean([huber(x) for x in (one - other).ravel()]))


def test_angle():
  def cosine(f, i, j, k):
    one, other = (np.asarray(f[n] - f[j], np.float64) for n in (i, k))
    sizes = np.linalg.norm(one) * np.linalg.norm(other)
    return one @ other / sizes if sizes else 0.0
  wanted = np.mean([huber(cosine(STUDENT, i, j, k) - cosine(TEACHER, i, j, k))
                    for i in range(BATCH) for j in range(BATCH) for k in range(BATCH)])
  close(losses.angle(STUDENT, TEACHER).mean(), wanted)


def test_pkt():
  def conditional(f):
    kernel = np.array([[(unit(f[i]) @ unit(f[j]) + 1) / 2 for j in range(BATCH)] for i in range(BATCH)])
    return kernel / kernel.sum(1, keepdims=True)
  wanted = [divergence(t, s) for s, t in zip(conditional(STUDENT), conditional(TEACHER), strict=True)]
  close(losses.pkt(STUDENT, TEACHER), wanted)


def test_correlation_approximates_the_gaussian_kernel_and_equals_its_cut_series():
  def kernel(f, exact):
    d = np.array([[unit(f[i]) @ unit(f[j]) for j in range(BATCH)] for i in range(BATCH)])
    if exact:
      return np.exp(-0.4 * (2 - 2 * d))
    return np.exp(-0.8) * (1 + 0.8 * d + 0.32 * d**2)

  def wanted(exact):
    return ((kernel(STUDENT, exact) - kernel(TEACHER, exact)) ** 2).sum() / BATCH**2
  close(losses.correlation(STUDENT, TEACHER).mean(), wanted(exact=False))
  close(losses.correlation(STUDENT, TEACHER, order=12).mean(), wanted(exact=True))


def test_contrastive():
  one, other = (np.array([unit(row) for row in each]) for each in (STUDENT, TEACHER))
  banks = [np.stack([np.roll(each, i, 0)[:3] for i in range(BATCH)]) for each in (one, other)]

  def h(x, y):
    return np.exp(x @ y / 0.5) / (np.exp(x @ y / 0.5) + 3 / 40)
  wanted = []
  for i in range(BATCH):
    parts = ((one[i], other[i], banks[1][i]), (other[i], one[i], banks[0][i]))
    wanted.append(sum(-np.log(h(x, y)) - sum(np.log(1 - h(x, n)) for n in negatives) for x, y, negatives in parts))
  arrays = [jnp.asarray(each, jnp.float32) for each in (one, other, *banks)]
  close(losses.contrastive(
    arrays[0], arrays[1], student_negatives=arrays[2], teacher_negatives=arrays[3], size=40.0, temperature=0.5), wanted)


@pytest.mark.parametrize('name,student,teacher,message', [
  ('hints', (4, 2, 2, 3), (4, 2, 2, 5), r'hints: student features \(4, 2, 2, 3\).*\(4, 2, 2, 5\)'),
  ('attention', (4, 2, 2, 3), (4, 4, 4, 3), r'attention: student features \(4, 2, 2, 3\).*\(4, 4, 4, 3\)'),
  ('nst', (4, 3), (4, 3), 'nst: .*maps'),
])
def test_shapes_that_do_not_fit_are_an_error_with_both_sides(name, student, teacher, message):
  unchecked = inspect.unwrap(getattr(real, name))  # the checked annotations would refuse some first
  with pytest.raises(ValueError, match=message):
    unchecked(jnp.ones(student), jnp.ones(teacher))


def test_a_batch_of_equal_examples_and_dead_features_gives_finite_gradients():
  for name in ('similarity', 'distance', 'angle', 'pkt', 'correlation', 'dist', 'standardized'):
    function = getattr(losses, name)
    for student in (jnp.ones((BATCH, CLASSES)), jnp.zeros((BATCH, CLASSES))):
      gradient = jax.grad(lambda student, function=function: function(student, jnp.asarray(TEACHER)).sum())(student)
      assert np.isfinite(gradient).all(), name
