"""SOAP: Adam in the eigenbases of Shampoo."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.matrix.beside_adam import beside_adam
from gnomon.optimizers.matrix.grams import Sides, gram, grams_at_first, sides_of
from gnomon.optimizers.mechanisms.constrain import when
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.moments import adam_direction
from gnomon.parameters.checks import ScalarOrSchedule, require_choice, require_within
from gnomon.parameters.matrices import matrices_in, of_matrices, unsharded
from gnomon.parameters.select import Where
from gnomon.parameters.units import Axes, Rules

__all__ = ["ScaleBySoapState", "scale_by_soap", "soap"]

RECOMMENDED = {
    "soap": dict(
        learning_rate=3e-3, b1=0.95, b2=0.95, eps=1e-8, weight_decay=0.01, every=10
    )
}


class ScaleBySoapState(NamedTuple):
    """State of :func:`scale_by_soap`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, in mu_dtype or the dtype of the parameters
    nu: optax.Updates  # second moment in the bases, in float32 or wider
    input_gram: Any  # [layers, inputs, inputs], average of G G^T; a zero without
    output_gram: Any  # [layers, outputs, outputs], average of G^T G; a zero without
    input_basis: Any  # [layers, inputs, inputs], its eigenvectors
    output_basis: Any  # [layers, outputs, outputs], its eigenvectors


def scale_by_soap(
    b1: ScalarOrSchedule = 0.95,
    b2: jax.typing.ArrayLike = 0.95,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    gram_decay: jax.typing.ArrayLike | None = None,
    every: jax.typing.ArrayLike = 10,
    sides: Sides = "both",
    max_size: int = 10_000,
    skip_first: bool = True,
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`soap`, ascent-signed and before the learning rate.

    Args:
      b1: decay of the first moment, a scalar or a schedule.
      b2: decay of the second moment.
      eps: added to its root.
      gram_decay: decay of the averages that have the bases, default ``b2``.
      every: updates between two bases.
      sides: which sides of a matrix have a basis.
      max_size: the longest side that has one.
      skip_first: whether the first update only finds the bases.
      matrices: the leaves that are hidden matrices.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      mu_dtype: dtype of the first moment.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out
        of range, or ``sides`` is unknown.
    """
    require_choice("sides", sides, Sides)
    require_within("[1, inf)", every=every, whole=True)
    require_within("[1, inf)", max_size=max_size, whole=True)

    def rule(
        h: Any, g: jax.Array, _: jax.Array, mu: jax.Array, *kept: jax.Array
    ) -> tuple[jax.Array, ...]:
        axes: Axes = h.axes.axes

        def step(
            n: dict[str, jax.Array], now: jax.Array, *arrays: jax.Array
        ) -> tuple[jax.Array, ...]:
            g, mu, nu, *kept = arrays
            grad, moment, square = (matrices_in(x, axes) for x in (g, mu, nu))
            grams, bases = list(kept[:2]), list(kept[2:])
            used = sides_of(sides, grad.shape, max_size)
            first = now == 1
            for i in used:
                new = (1 - n["gram_decay"]) * gram(grad, i)
                grams[i] = n["gram_decay"] * grams[i] + new
                found = functools.partial(_eigenbasis, grams[i])
                bases[i] = when(first, found, bases[i])
            active = {i: bases[i] for i in used}
            if skip_first:  # as if it had been zero
                grad = jnp.where(first, 0, grad)
            turned = _turn(grad, active)
            moment = n["b1"] * moment + (1 - n["b1"]) * grad
            square = n["b2"] * square + (1 - n["b2"]) * jnp.square(turned)
            t = now - 1 if skip_first else now
            u = adam_direction(
                _turn(moment, active), square, n["b1"], n["b2"], n["eps"], t
            )
            u = _turn(u, active, back=True)
            again = (now > 1) & (jnp.mod(now - 1, n["every"]) == 0)
            for i in used:
                refresh = functools.partial(_refreshed, matrix=grams[i], side=i)
                square, bases[i] = when(again, refresh, (square, bases[i]))
            written = (of_matrices(x, axes, g.shape) for x in (u, moment, square))
            return *written, *grams, *bases

        like = (g, g, g, *kept[1:])
        found: tuple[jax.Array, ...] = unsharded(
            step, like, h.numbers, h.t, g, mu, *kept
        )
        return found

    def initial(zeros: jax.Array, axes: Axes) -> tuple[jax.Array, ...]:
        first = grams_at_first(zeros, axes, sides, max_size)
        return zeros, *first, *first

    decays = dict(b2=b2, gram_decay=b2 if gram_decay is None else gram_decay)
    return beside_adam(
        "soap",
        rule,
        ScaleBySoapState,
        initial,
        {
            "[0, 1)": dict(b1=b1, **decays),
            "[0, inf)": dict(eps=eps),
            "[1, inf)": dict(every=every),
        },
        slots=5,
        adam=dict(b1=b1, b2=b2, eps=eps, late=skip_first),
        matrices=matrices,
        rules=rules,
        stacked=stacked,
        mu_dtype=mu_dtype,
    )


def soap(
    learning_rate: ScalarOrSchedule,
    *,
    b1: ScalarOrSchedule = 0.95,
    b2: jax.typing.ArrayLike = 0.95,
    eps: jax.typing.ArrayLike = 1e-8,
    gram_decay: jax.typing.ArrayLike | None = None,
    every: jax.typing.ArrayLike = 10,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    sides: Sides = "both",
    max_size: int = 10_000,
    skip_first: bool = True,
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SOAP: Adam in the eigenbases of Shampoo's preconditioners.

    On a hidden matrix with gradient :math:`G`, of n inputs and m outputs,

    .. math::
      G' &= Q_L^\top G\, Q_R, \qquad
      M \leftarrow \beta_1 M + (1 - \beta_1) G, \qquad
      V \leftarrow \beta_2 V + (1 - \beta_2) G'^2 \\
      W &\leftarrow W - \eta \left( Q_L \frac{Q_L^\top M\, Q_R / (1 - \beta_1^t)}
        {\sqrt{V / (1 - \beta_2^t)} + \epsilon} Q_R^\top + \lambda W \right) \\
      L &\leftarrow \beta L + (1 - \beta)\, G G^\top, \qquad
      R \leftarrow \beta R + (1 - \beta)\, G^\top G

    The bases :math:`Q_L, Q_R` are the eigenvectors of :math:`L, R` of the first
    gradient. Every so many updates they take one step of orthogonal iteration,
    :math:`Q \leftarrow \mathrm{qr}(L Q)`, sorted by :math:`q^\top L q`, and :math:`V`
    is sorted with them. They are computed in float32 or wider, whatever the dtype of
    the weights. With the identity for a basis it is Adam, and so are the steps of all
    leaves that are no hidden matrices.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      b1: :math:`\beta_1`, a scalar or a schedule, default 0.95.
      b2: :math:`\beta_2`, default 0.95.
      eps: :math:`\epsilon`, default 1e-8.
      gram_decay: :math:`\beta`, default :math:`\beta_2`.
      every: updates between two bases, default 10. A basis costs about as much as a
        decomposition of a matrix of this side.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      sides: which sides have a basis: ``"both"``, the default; ``"smaller"``, the
        shorter one (the inputs, of a square matrix); ``"inputs"``; ``"outputs"``.
      max_size: a longer side has none, default 10,000.
      skip_first: whether the first update only finds the bases, the default, as in the
        authors' code. A gradient in its own bases is diagonal, and what Adam would make
        of the rest is rounding.
      matrices: the leaves that are hidden matrices: a regex found in the path, or a
        mask (a tree of bools, a prefix, or a function of the parameters); default by
        their roles, see `gnomon.parameters.roles`.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has bases
        of its own.
      mu_dtype: dtype of the first moment, default that of the parameters.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``sides`` is unknown, or ``matrices`` matches no leaf.

    Example:
      A gradient that is turned by 45 degrees has, in its own basis, one number, and the
      step goes along it:

      >>> w = {"kernel": jnp.array([[1.0, 0.0], [1.0, 0.0]])}
      >>> optimizer = soap(0.1)
      >>> state = optimizer.init(w)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(w, state, w)
      >>> print(updates["kernel"].round(3) + 0)
      [[-0.071  0.   ]
       [-0.071  0.   ]]

    References:
      Vyas et al., `SOAP: Improving and Stabilizing Shampoo using Adam
      <https://arxiv.org/abs/2409.11321>`_, 2024

    Differences:
      The paper's text was not read; the rule is that of a maintained port of its code.
      That divides before the bias corrections, so that its epsilon counts for more in
      the first steps, and gives bases to all kernels, a convolution's one a side; here
      kernels of more than two axes are read as one matrix, and embeddings and heads are
      Adam's unless ``matrices`` names them.
    """
    direction = scale_by_soap(
        b1,
        b2,
        eps,
        gram_decay=gram_decay,
        every=every,
        sides=sides,
        max_size=max_size,
        skip_first=skip_first,
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
        name="soap",
    )
    return optax.chain(direction, last)


def _turn(x: jax.Array, bases: dict[int, jax.Array], back: bool = False) -> jax.Array:
    """Into the bases of the sides, or back."""
    for i, q in bases.items():
        q = jnp.swapaxes(q, -2, -1) if back else q
        if i == 0:
            x = jnp.einsum("bij,bik->bkj", x, q, precision="highest")
        else:
            x = jnp.einsum("bij,bjk->bik", x, q, precision="highest")
    return x


def _eigenbasis(matrix: jax.Array, _: jax.Array) -> jax.Array:
    """Eigenvectors in columns, those of large eigenvalues first."""
    # A decomposition of what is not finite need not end.
    matrix = jnp.where(jnp.all(jnp.isfinite(matrix)), matrix, 0)
    basis: jax.Array = jnp.linalg.eigh(matrix)[1]
    return basis[..., ::-1]


def _refreshed(
    pair: tuple[jax.Array, jax.Array], matrix: jax.Array, side: int
) -> tuple[jax.Array, jax.Array]:
    """A step of orthogonal iteration, and the second moment in its order."""
    square, basis = pair
    product = jnp.matmul(matrix, basis, precision="highest")
    order = jnp.argsort(-jnp.sum(basis * product, -2), axis=-1)
    axis = -2 if side == 0 else -1
    square = jnp.take_along_axis(square, jnp.expand_dims(order, -3 - axis), axis)
    product = jnp.take_along_axis(product, order[..., None, :], -1)
    return square, jnp.linalg.qr(product)[0]
