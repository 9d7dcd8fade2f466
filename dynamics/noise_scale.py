r"""The gradient noise scale: how much one example's gradient differs from the mean.

With :math:`G` the true gradient and :math:`\Sigma` the covariance of one example's
gradient, the simple noise scale is

.. math:: B = \operatorname{tr} \Sigma \, / \, |G|^2.

Batches much smaller than :math:`B` train at the same cost in examples; batches much
larger gain no steps. Both published estimators, from two batch sizes and from single
examples, are one: the batch is cut into groups, and the groups' gradients are compared
with their mean.

References:
  McCandlish et al., An Empirical Model of Large-Batch Training, 2018.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.dynamics.motion import divide
from gnomon.parameters.stacks import Stacks
from gnomon.parameters.trees import compute_dtype


class GroupGradients(NamedTuple):
    """How the gradients of m groups lie about their mean; sums that add over leaves.

    Attributes:
      mean_squared: [...], squared norm of the mean gradient.
      deviation: [..., m], squared norm of each group's deviation from the mean.
      along: [..., m], inner product of each deviation with the mean.
    """

    mean_squared: jax.Array
    deviation: jax.Array
    along: jax.Array


class NoiseScale(NamedTuple):
    r"""The estimate; every field has the shape of ``mean_squared``.

    Attributes:
      noise: :math:`\operatorname{tr}\Sigma`, unbiased: the variance of one example's
        gradient, summed over the layer. NaN with one group.
      signal: :math:`|G|^2`, unbiased, so it can be negative where noise drowns it.
      scale: ``noise / signal`` in examples; NaN where the signal is not above zero.
      error: standard error of the scale by the jackknife over groups; NaN with fewer
        than three groups, or where the scale without some group is NaN. It is of use
        while well below the scale.
    """

    noise: jax.Array
    signal: jax.Array
    scale: jax.Array
    error: jax.Array


def group_gradients(
    loss_fn: Callable[[Any, Any], jax.Array],
    params: Any,
    batch: Any,
    groups: int,
    *,
    stacked: str | None = None,
) -> tuple[GroupGradients, Any]:
    """Takes the gradients of the groups of a batch, one group after another.

    Args:
      loss_fn: ``(params, batch) -> loss``, the mean over the batch's examples.
      params: where the gradients are taken.
      batch: a tree of arrays [examples, ...].
      groups: how many groups the examples are cut into, in order: two for the two-batch
        estimator, as many as examples for the per-example one. The gradients of all
        groups are held at once, ``groups`` times the memory of ``params``.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      The comparison, leaf by leaf ([leaves], [leaves, groups]), and the mean gradient.
      Stacked layers count as a list of layers (`gnomon.parameters.stacks.unstack`).

    Raises:
      ValueError: if the examples cannot be cut into so many equal groups.
    """
    examples = jax.tree.leaves(batch)[0].shape[0]
    if groups < 1 or examples % groups:
        raise ValueError(
            f"groups={groups} must divide the batch's {examples} examples evenly"
        )
    cut = jax.tree.map(
        lambda x: x.reshape(groups, examples // groups, *x.shape[1:]), batch
    )
    grads = jax.lax.map(lambda group: jax.grad(loss_fn)(params, group), cut)
    return compare_groups(grads, stacked=stacked)


def compare_groups(
    grads: Any, *, stacked: str | None = None
) -> tuple[GroupGradients, Any]:
    """Compares the gradients of equal groups that a loop has at hand.

    Args:
      grads: a tree of arrays [groups, ...], such as one gradient a device.
      stacked: regex of further leaves that stack layers, along axis 1 here.

    Returns:
      As :func:`group_gradients`.
    """

    def leaf(g: jax.Array) -> tuple[GroupGradients, jax.Array]:
        x = g.astype(compute_dtype(g.dtype))
        mean = jnp.mean(x, axis=0, keepdims=True)
        # Differences first: the sums of squares may agree to all of float32's digits.
        apart, inside = x - mean, tuple(range(1, x.ndim))
        found = GroupGradients(
            jnp.sum(jnp.square(mean)),
            jnp.sum(jnp.square(apart), axis=inside),
            jnp.sum(apart * mean, axis=inside),
        )
        return found, mean[0].astype(g.dtype)

    leaves: list[jax.Array]
    structure: Any
    one = jax.eval_shape(lambda tree: jax.tree.map(lambda g: g[0], tree), grads)
    layers = Stacks(one, stacked)
    leaves, structure = jax.tree.flatten(jax.vmap(layers.unstack)(grads))
    found, means = zip(*map(leaf, leaves), strict=True)
    dtype = jnp.result_type(*(f.mean_squared.dtype for f in found))
    rows = jax.tree.map(lambda *xs: jnp.stack([x.astype(dtype) for x in xs]), *found)
    return rows, layers.restack(jax.tree.unflatten(structure, means))


def noise_scale(groups: GroupGradients, size: jax.typing.ArrayLike) -> NoiseScale:
    r"""Estimates the noise scale from m groups of equal size.

    .. math::
        \widehat{\operatorname{tr}\Sigma} = \frac{b}{m-1} \sum_i |g_i - \bar g|^2,
        \qquad \widehat{|G|^2} = |\bar g|^2 - \frac{\operatorname{tr}\Sigma}{m b}

    Both are unbiased; their ratio is not. Over several batches, average the noise and
    the signal and divide the averages.

    Args:
      groups: of leaves, layers or the whole model.
      size: examples in a group, b.

    Returns:
      The estimate.

    Example:
      >>> seen, _ = compare_groups({"w": jnp.array([[1.0, 0.0], [3.0, 2.0]])})
      >>> print(noise_scale(seen, size=8))
      NoiseScale(noise=Array([32.], dtype=float32),
                 signal=Array([3.], dtype=float32),
                 scale=Array([10.666667], dtype=float32),
                 error=Array([nan], dtype=float32))
    """
    count = groups.deviation.shape[-1]
    dtype = groups.mean_squared.dtype
    b = jnp.asarray(size, dtype)
    total = jnp.sum(groups.deviation, axis=-1)

    def estimate(
        deviations: jax.Array, mean_squared: jax.Array, m: int
    ) -> tuple[jax.Array, jax.Array]:
        if m < 2:
            return jnp.full_like(deviations, jnp.nan), mean_squared
        noise = b * deviations / (m - 1)
        return noise, mean_squared - noise / (m * b)

    noise, signal = estimate(total, groups.mean_squared, count)
    scale = divide(noise, signal)
    # Each group left out in turn moves the mean by its own deviation over m - 1.
    rest = max(count - 1, 1)
    without = estimate(
        total[..., None] - groups.deviation * (count / rest),
        groups.mean_squared[..., None]
        - 2 * groups.along / rest
        + groups.deviation / rest**2,
        count - 1,
    )
    scales = divide(*without)
    variance = jnp.var(scales, axis=-1) * rest
    return NoiseScale(noise, signal, scale, jnp.sqrt(variance))


def two_batch_noise_scale(
    small_squared: jax.Array,
    large_squared: jax.Array,
    small: jax.typing.ArrayLike,
    large: jax.typing.ArrayLike,
) -> NoiseScale:
    r"""Estimates the noise scale from squared gradient norms at two batch sizes.

    .. math::
        \widehat{|G|^2} = \frac{B |g_B|^2 - b |g_b|^2}{B - b}, \qquad
        \widehat{\operatorname{tr}\Sigma} = \frac{|g_b|^2 - |g_B|^2}{1/b - 1/B}

    For loops that have only the norms, such as a gradient's before and after it is
    averaged over devices.

    Args:
      small_squared: squared norm of a small batch's gradient, or the mean of several.
      large_squared: squared norm of a large batch's gradient.
      small: examples in a small batch, b.
      large: examples in a large batch, B > b.

    Returns:
      The estimate, without an error.

    Example:
      >>> found = two_batch_noise_scale(jnp.array(7.0), jnp.array(5.0), 8, 16)
      >>> print(found.noise, found.signal)
      32.0 3.0
    """
    b, big = (jnp.asarray(x, small_squared.dtype) for x in (small, large))
    signal = divide(big * large_squared - b * small_squared, big - b)
    noise = divide(small_squared - large_squared, 1 / b - 1 / big)
    scale = divide(noise, signal)
    return NoiseScale(noise, signal, scale, jnp.full_like(scale, jnp.nan))


class BatchCost(NamedTuple):
    """What training to a fixed loss costs at a batch size.

    Attributes:
      steps: optimizer steps, relative to an infinite batch.
      examples: examples, relative to a batch of one.
      learning_rate: the best learning rate, relative to an infinite batch's.
    """

    steps: jax.Array
    examples: jax.Array
    learning_rate: jax.Array


def batch_cost(batch: jax.typing.ArrayLike, scale: jax.typing.ArrayLike) -> BatchCost:
    r"""The critical-batch model: the trade of steps against examples.

    .. math:: \frac{S}{S_{\min}} = 1 + \frac{B_{noise}}{B}, \qquad
        \frac{E}{E_{\min}} = 1 + \frac{B}{B_{noise}}, \qquad
        \frac{\eta}{\eta_{\max}} = \frac{1}{1 + B_{noise} / B}

    so :math:`(S/S_{\min} - 1)(E/E_{\min} - 1) = 1`, and at a batch of the noise scale,
    the critical batch, both cost twice their minimum.

    Args:
      batch: examples in a batch.
      scale: the noise scale in examples.

    Returns:
      The three ratios; NaN where batch or scale is not above zero.

    Example:
      >>> cost = batch_cost(100.0, 300.0)
      >>> print(f"{cost.steps:.2f} {cost.examples:.2f} {cost.learning_rate:.2f}")
      4.00 1.33 0.25
    """
    batch, scale = jnp.asarray(batch), jnp.asarray(scale)
    batch = jnp.where(batch > 0, batch, jnp.nan)
    noise_to_batch = divide(scale, batch)
    steps = 1 + noise_to_batch
    return BatchCost(steps, 1 + divide(batch, scale), 1 / steps)
