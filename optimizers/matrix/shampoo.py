"""Shampoo: gradients whitened by a side of the matrix, or by both."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.matrix.beside_adam import beside_adam
from gnomon.optimizers.matrix.grams import (
    INPUTS,
    Sides,
    gram,
    grams_at_first,
    sides_of,
)
from gnomon.optimizers.mechanisms.constrain import when
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.moments import adam_direction
from gnomon.parameters.checks import ScalarOrSchedule, require_choice, require_within
from gnomon.parameters.matrices import matrices_in, of_matrices, unsharded
from gnomon.parameters.select import Where
from gnomon.parameters.trees import safe_divide
from gnomon.parameters.units import Axes, Rules, unit_norm

__all__ = ["ShampooState", "shampoo"]

Graft: TypeAlias = Literal["adam", "none"]
RECOMMENDED = {
    "shampoo": dict(
        learning_rate=3e-3, b1=0.9, b2=0.95, weight_decay=0.01, every=5, sides="smaller"
    )
}


class ShampooState(NamedTuple):
    """State of the direction of :func:`shampoo`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, in mu_dtype or the dtype of the parameters
    nu: optax.Updates  # second moment, for the length of a step; in float32 or wider
    input_gram: Any  # [layers, inputs, inputs], average of G G^T; a zero without
    output_gram: Any  # [layers, outputs, outputs], average of G^T G; a zero without
    input_root: Any  # [layers, inputs, inputs], its inverse root
    output_root: Any  # [layers, outputs, outputs], its inverse root


def shampoo(
    learning_rate: ScalarOrSchedule,
    *,
    b1: ScalarOrSchedule = 0.9,
    b2: jax.typing.ArrayLike = 0.95,
    eps: jax.typing.ArrayLike = 1e-8,
    damping: jax.typing.ArrayLike = 1e-6,
    every: jax.typing.ArrayLike = 10,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    sides: Sides = "smaller",
    max_size: int = 10_000,
    graft: Graft = "adam",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Shampoo, one-sided by default, with the length of Adam's step.

    On a hidden matrix with gradient :math:`G`, of n inputs and m outputs,

    .. math::
      L &\leftarrow \beta_2 L + (1 - \beta_2)\, G G^\top, \qquad
      R \leftarrow \beta_2 R + (1 - \beta_2)\, G^\top G \\
      D &= \hat L^{-1/2} \hat M, \quad \hat M \hat R^{-1/2}, \quad \text{or} \quad
        \hat L^{-1/4} \hat M\, \hat R^{-1/4}

    by the sides that are used, with averages :math:`\hat L, \hat M, \hat R` that are
    corrected for their start, :math:`M` that of gradients. The step is
    :math:`\eta D |A| / |D|`, as long as :math:`A`, that of Adam with the same decays,
    or :math:`\eta D`. Without averages, :math:`\beta_1 = \beta_2 = 0`, the direction is
    :math:`U V^\top` by any sides, that of Muon. Leaves that are no hidden matrices have
    the steps of Adam.

    Roots are those of eigenvalues, in float32 or wider whatever the dtype of the
    weights, raised by ``damping`` times the largest of them; those that rounding has
    made of nothing count for zero, so that a gradient of any size, zero among them, and
    of any rank is safe.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      b1: :math:`\beta_1`, a scalar or a schedule, default 0.9.
      b2: :math:`\beta_2`, default 0.95.
      eps: Adam's epsilon, default 1e-8.
      damping: what eigenvalues are raised by, in units of the largest, default 1e-6;
        with 0 the inverse is a pseudo-inverse.
      every: updates between two roots, default 10; the first one has them.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      sides: which sides whiten: ``"smaller"``, the default, the shorter one (the
        inputs, of a square matrix); ``"both"``; ``"inputs"``; ``"outputs"``.
      max_size: a longer side does not, default 10,000.
      graft: whose length a step has, ``"adam"``'s, the default, or its own, ``"none"``.
      matrices: the leaves that are hidden matrices: a regex found in the path, or a
        mask (a tree of bools, a prefix, or a function of the parameters); default by
        their roles, see `gnomon.parameters.roles`.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has roots
        of its own.
      mu_dtype: dtype of the first moment, default that of the parameters.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``sides`` or ``graft`` is unknown, or ``matrices`` matches no leaf.

    Example:
      >>> optimizer = shampoo(0.1, graft="none", damping=0.0)
      >>> w = {"kernel": jnp.array([[1.0, 0.0], [0.0, -5.0]])}
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
      >>> print(updates["kernel"].round(3) + 0)
      [[-0.1  0. ]
       [ 0.   0.1]]

    References:
      Gupta et al., `Shampoo: Preconditioned Stochastic Tensor Optimization
      <https://arxiv.org/abs/1802.09568>`_, 2018

      Jordan et al., `modded-nanogpt, optimization track
      <https://github.com/KellerJordan/modded-nanogpt>`_, 2026: one-sided, with a
      pseudo-inverse root and the length of Adam's step

    Differences:
      The paper sums where this averages, has fourth roots on both sides, and no
      momentum. Its text was not read; the rule is that of notes on it. The records of
      the optimization track were read as described, not run.
    """
    require_choice("sides", sides, Sides)
    require_choice("graft", graft, Graft)
    require_within("[1, inf)", every=every, whole=True)
    require_within("[1, inf)", max_size=max_size, whole=True)

    def rule(
        h: Any, g: jax.Array, _: jax.Array, mu: jax.Array, *kept: jax.Array
    ) -> tuple[jax.Array, ...]:
        axes: Axes = h.axes.axes

        def step(
            n: dict[str, jax.Array], t: jax.Array, *arrays: jax.Array
        ) -> tuple[jax.Array, ...]:
            g, mu, nu, *kept = arrays
            grad, moment = matrices_in(g, axes), matrices_in(mu, axes)
            grams, roots = list(kept[:2]), list(kept[2:])
            used = sides_of(sides, grad.shape, max_size)
            moment = n["b1"] * moment + (1 - n["b1"]) * grad
            whole = 1 - n["b2"] ** t
            again = jnp.mod(t - 1, n["every"]) == 0
            found = safe_divide(moment, 1 - n["b1"] ** t)
            for i in used:
                grams[i] = n["b2"] * grams[i] + (1 - n["b2"]) * gram(grad, i)
                anew = functools.partial(
                    inverse_root,
                    safe_divide(grams[i], whole),
                    power=-1 / (2 * len(used)),
                    damping=n["damping"],
                )
                roots[i] = when(again, _ignoring(anew), roots[i])
                pair = (roots[i], found) if i == INPUTS else (found, roots[i])
                found = jnp.matmul(*pair, precision="highest")
            u = of_matrices(found, axes, g.shape)
            mu = of_matrices(moment, axes, g.shape)
            if graft == "adam":
                nu = n["b2"] * nu + (1 - n["b2"]) * jnp.square(g)
                adam = adam_direction(mu, nu, n["b1"], n["b2"], n["eps"], t)
                layer = axes.layer(g.ndim)
                u = u * safe_divide(unit_norm(adam, layer), unit_norm(u, layer))
            return u, mu, nu, *grams, *roots

        like = (g, g, g if graft == "adam" else kept[0], *kept[1:])
        found: tuple[jax.Array, ...] = unsharded(
            step, like, h.numbers, h.t, g, mu, *kept
        )
        return found

    def initial(zeros: jax.Array, axes: Axes) -> tuple[jax.Array, ...]:
        first = grams_at_first(zeros, axes, sides, max_size)
        nu = zeros if graft == "adam" else jnp.zeros((1,), zeros.dtype)
        return nu, *first, *first

    direction = beside_adam(
        "shampoo",
        rule,
        ShampooState,
        initial,
        {
            "[0, 1)": dict(b1=b1, b2=b2),
            "[0, inf)": dict(eps=eps, damping=damping),
            "[1, inf)": dict(every=every),
        },
        slots=5,
        adam=dict(b1=b1, b2=b2, eps=eps),
        matrices=matrices,
        rules=rules,
        stacked=stacked,
        mu_dtype=mu_dtype,
    )
    last = descend(
        learning_rate,
        weight_decay,
        weight_decay_mask=weight_decay_mask,
        stacked=stacked,
        name="shampoo",
    )
    return optax.chain(direction, last)


def _ignoring(make: Callable[[], jax.Array]) -> Callable[[Any], jax.Array]:
    return lambda _: make()


def inverse_root(
    matrix: jax.Array, power: float, damping: jax.typing.ArrayLike
) -> jax.Array:
    """A negative power of symmetric matrices that have no negative eigenvalues.

    Args:
      matrix: [..., n, n], in float32 or wider.
      power: negative.
      damping: what eigenvalues are raised by, in units of the largest.

    Returns:
      The power; of eigenvalues that are rounding the power is zero.

    Example:
      >>> print(inverse_root(jnp.diag(jnp.array([4.0, 0.0])), -0.5, 0.0))
      [[0.5 0. ]
       [0.  0. ]]
    """
    # A decomposition of what is not finite need not end.
    finite = jnp.all(jnp.isfinite(matrix))
    # In units of the largest entry: powers of very small numbers overflow.
    size = jnp.max(jnp.abs(matrix), (-2, -1), keepdims=True)
    scaled = jnp.where(finite, safe_divide(matrix, size), 0)
    values, vectors = jnp.linalg.eigh(scaled)
    largest = values[..., -1:]
    values = values + jnp.asarray(damping, values.dtype) * largest
    rounding = jnp.finfo(values.dtype).eps * values.shape[-1]
    # What a traced b2 above 1 makes negative has no root.
    kept = values > jnp.maximum(rounding * largest, 0)
    powers = jnp.where(kept, jnp.where(kept, values, 1) ** power, 0)
    size = jnp.where(size > 0, size, 1)
    turned = vectors * powers[..., None, :]
    root = jnp.matmul(turned, jnp.swapaxes(vectors, -2, -1), precision="highest")
    return root * size**power
