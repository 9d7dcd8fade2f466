"""The density of a Hessian's eigenvalues by stochastic Lanczos quadrature."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.dynamics.curvature import Loss, hessian_operator
from gnomon.dynamics.lanczos import (
    Operator,
    Tree,
    lanczos,
    random_like,
    ravel,
    ravel_operator,
    ritz,
)


class Spectrum(NamedTuple):
    """A discrete estimate of a density of eigenvalues.

    The distribution is taken as point masses: for an operator on n numbers,
    `n * sum(weights * f(nodes))` estimates `tr f(A)`, which is the trace for
    `f(x) = x` and the squared Frobenius norm for `f(x) = x²`.

    Attributes:
      nodes: [samples, m], Ritz values, in falling order within a row.
      weights: [samples, m], the share of all eigenvalues at each node; they sum to 1.
    """

    nodes: Array
    weights: Array


def lanczos_quadrature(
    matvec: Operator,
    like: Tree,
    *,
    iterations: int = 64,
    samples: int = 4,
    key: Array | None = None,
    raveled: bool = True,
) -> Spectrum:
    r"""Estimates the eigenvalue distribution of a symmetric operator.

    For a random unit vector v, `E[vᵀ f(A) v] = tr f(A) / n`. Lanczos from v gives the
    Gauss quadrature of the left side: nodes are the Ritz values θ, weights the squared
    first entries of T's eigenvectors, exact for polynomials of degree below 2 m. The
    distributions of several v are averaged.

    Args:
      matvec: the operator.
      like: tree whose structure and shapes the operator's vectors have.
      iterations: m, products with the operator a sample. Default 64; capped by the
        number of entries of `like`.
      samples: random vectors, run one after another. Default 4.
      key: seed of the vectors, random signs. Default `jax.random.key(0)`.
      raveled: as in :func:`gnomon.dynamics.curvature.top_eigenvalues`.

    Returns:
      The `Spectrum`, NaN where the operator is not finite.

    Raises:
      ValueError: if `iterations` or `samples` is less than one.

    Example:
      >>> import jax.numpy as jnp
      >>> scale = jnp.array([1.0, 1.0, 1.0, 9.0])
      >>> s = lanczos_quadrature(lambda v: scale * v, scale, iterations=2, samples=1)
      >>> [[f"{x:.2f}" for x in row] for row in (s.nodes[0], s.weights[0])]
      [['9.00', '1.00'], ['0.25', '0.75']]

    References:
      Ubaru et al., Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature, 2017.
      Ghorbani et al., An Investigation into Neural Net Optimization via Hessian
      Eigenvalue Density, 2019 (https://arxiv.org/abs/1901.10159).
    """
    if samples < 1:
        raise ValueError(f"samples: {samples}; at least 1 is needed")
    keys = jax.random.split(jax.random.key(0) if key is None else key, samples)
    operator = ravel_operator(matvec, like) if raveled else matvec

    def quadrature(key: Array) -> tuple[Array, Array]:
        start_key, restart_key = jax.random.split(key)
        # Random signs: on a diagonal operator they weigh every eigenvalue exactly.
        start = random_like(start_key, like, jax.random.rademacher)
        if raveled:
            start = ravel(start)
        pairs = ritz(lanczos(operator, start, iterations, key=restart_key))
        return pairs.values, pairs.coordinates[0] ** 2 / samples

    return Spectrum(*jax.lax.map(quadrature, keys))


def hessian_spectrum(
    loss_fn: Loss,
    params: Any,
    *,
    iterations: int = 64,
    samples: int = 4,
    key: Array | None = None,
    denominator: Any = None,
    raveled: bool = True,
) -> Spectrum:
    """The density of the eigenvalues of a Hessian.

    Costs `samples * iterations` Hessian-vector products and memory for `iterations`
    float32 copies of the parameters. The Hessian of a minibatch spreads wider than that
    of the full data set: pass a loss over many batches to see the latter.

    Args:
      loss_fn: from parameters to a scalar.
      params: where to take the Hessian.
      iterations: Lanczos steps a sample. Default 64.
      samples: random vectors. Default 4.
      key: seed. Default `jax.random.key(0)`.
      denominator: a positive diagonal preconditioner, see
        :func:`gnomon.dynamics.curvature.hessian_operator`. Default none.
      raveled: as in :func:`gnomon.dynamics.curvature.top_eigenvalues`.

    Returns:
      The `Spectrum`; `nodes.max()` is the sharpness once Lanczos has converged.

    Raises:
      ValueError: if `iterations` or `samples` is less than one.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda w: 0.5 * jnp.sum(jnp.array([1.0, 1.0, 4.0]) * w**2)
      >>> s = hessian_spectrum(loss, jnp.ones(3), iterations=2, samples=2)
      >>> round((3 * (s.weights * s.nodes).sum()).item(), 4)  # the trace
      6.0

    References:
      Granziol et al., Learning Rates as a Function of Batch Size: A Random Matrix
      Theory Approach to Neural Network Training, 2022
      (https://arxiv.org/abs/2006.09092).
    """
    operator = hessian_operator(loss_fn, params, denominator=denominator)
    return lanczos_quadrature(
        operator,
        params,
        iterations=iterations,
        samples=samples,
        key=key,
        raveled=raveled,
    )


def density(spectrum: Spectrum, grid: Array, width: float | Array) -> Array:
    """A spectrum smoothed by a Gaussian, for drawing.

    Args:
      spectrum: point masses.
      grid: [g], where to evaluate the density, in units of the eigenvalues.
      width: standard deviation of the Gaussian, in the same units; about a hundredth of
        the spectrum's range draws well.

    Returns:
      [g] densities, in eigenvalues' share per unit.

    Example:
      >>> import jax.numpy as jnp
      >>> point = Spectrum(jnp.array([[2.0]]), jnp.array([[1.0]]))
      >>> print(density(point, jnp.array([2.0, 3.0]), 1.0).round(4))
      [0.3989 0.242 ]
    """
    nodes, weights = spectrum.nodes.reshape(-1), spectrum.weights.reshape(-1)
    width = jnp.asarray(width).astype(nodes.dtype)
    offsets = (grid[:, None].astype(nodes.dtype) - nodes[None, :]) / width
    # Summed by hand: a matrix product would round to bfloat16 on some devices.
    mass = jnp.sum(jnp.exp(-0.5 * offsets**2) * weights[None, :], axis=1)
    return mass / (width * jnp.sqrt(2 * jnp.asarray(jnp.pi, nodes.dtype)))


def wasserstein_distance(
    nodes: Array, weights: Array, other_nodes: Array, other_weights: Array
) -> Array:
    """Wasserstein-1 distance of two distributions of point masses on a line.

    The area between the two cumulative distributions, `∫ |F(x) − G(x)| dx`. (SciPy has
    this function; it is ten lines and traces here.)

    Args:
      nodes: positions, any shape.
      weights: masses at `nodes`, summing to 1.
      other_nodes: positions of the second distribution, any shape.
      other_weights: masses at `other_nodes`, summing to 1.

    Returns:
      The distance, in units of the positions.

    Example:
      >>> import jax.numpy as jnp
      >>> half = jnp.full(2, 0.5)
      >>> wasserstein_distance(
      ...     jnp.array([0.0, 1.0]), half, jnp.array([0.5, 3.5]), half).item()
      1.5
    """
    positions = jnp.concatenate([nodes.reshape(-1), other_nodes.reshape(-1)])
    masses = jnp.concatenate([weights.reshape(-1), -other_weights.reshape(-1)])
    order = jnp.argsort(positions)
    difference = jnp.cumsum(masses[order])[:-1]
    return jnp.sum(jnp.abs(difference) * jnp.diff(positions[order]))
