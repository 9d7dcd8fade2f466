"""An optax wrapper that keeps the motion of the latest step in its state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.dynamics.layers import ALL, layers_of
from gnomon.dynamics.motion import Motion, layer_motion
from gnomon.parameters.checks import ScalarOrSchedule, at_step, require_params


class MeasureState(NamedTuple):
    """State of :func:`measure`; :func:`records` reads it.

    Attributes:
      step: int32, steps taken.
      inner: the wrapped transform's state.
      rows: for each layer and for ``all``, the fields of its `Motion` as one array
        (float32, or wider where the parameters are); NaN before the first step.
      cosine_sums: for each layer, the sum of its gradient cosines over the measured
        steps where it had one, and their number.
    """

    step: jax.Array
    inner: Any
    rows: dict[str, jax.Array]
    cosine_sums: dict[str, jax.Array]


def measure(
    inner: optax.GradientTransformation,
    *,
    learning_rate: ScalarOrSchedule | None = None,
    layers: str | None = None,
    every: jax.typing.ArrayLike = 1,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps a transform; updates pass unchanged, and their motion is kept.

    The gradients are what reaches the wrapper, so that a chain inside of it is seen
    from its raw gradients to its final update. Wrap the whole optimizer, learning rate
    included, for updates that are what is added to the weights. The distance from the
    start is NaN here, for it needs a copy of the weights.

    Args:
      inner: any optax transform.
      learning_rate: the number or schedule that the effective rates are computed from,
        by default unknown (NaN); it changes no update.
      layers: regex of the grouping (`gnomon.dynamics.layers_of`), by default modules.
      every: measure at every so many steps; between them the last record stays.
      stacked: regex of further leaves that stack layers along axis 0; each has the
        record of a layer in a list.

    Returns:
      The wrapped transform, which needs ``params`` in ``update``.

    Raises:
      ValueError: in ``update`` without ``params``; in ``init`` when ``layers`` matches
        no path.

    Example:
      >>> optimizer = measure(optax.sgd(0.1), learning_rate=0.1)
      >>> params = {"dense": {"kernel": jnp.array([[3.0], [4.0]])}}
      >>> grads = {"dense": {"kernel": jnp.array([[4.0], [-3.0]])}}
      >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
      >>> record = records(state)["dense"]
      >>> print(record.weight_norm, record.update_norm, record.gradient_cosine)
      5.0 0.5 0.0
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> MeasureState:
        # Asked for the layout, as `optax.tree.map_params` does with a tree without
        # leaves: records are not shaped like parameters.
        if not jax.tree.leaves(params):
            blank: Any = jnp.zeros([])
            return MeasureState(blank, inner.init(params), blank, blank)
        layout = layers_of(params, layers, stacked=stacked)
        names = (*layout.names, ALL)
        # The shape and dtype are those that update will find.
        row = jax.eval_shape(
            lambda p: jnp.stack(layer_motion(p, p, p, layers=layout)), params
        )
        # An array of its own for each: the first step may be given them for good.
        blanks = {
            name: jnp.full(len(Motion._fields), jnp.nan, row.dtype) for name in names
        }
        return MeasureState(
            step=jnp.zeros((), jnp.int32),
            inner=inner.init(params),
            rows=blanks,
            cosine_sums={name: jnp.zeros(2, row.dtype) for name in names},
        )

    def update(
        updates: Any, state: MeasureState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, MeasureState]:
        require_params(params, "measure")
        grads = updates
        updates, inner_state = inner.update(grads, state.inner, params, **extra_args)
        rate = learning_rate
        if rate is not None:
            rate = at_step("learning_rate", rate, state.step)

        def look() -> Any:
            layout = layers_of(params, layers, stacked=stacked)
            record = layer_motion(
                params, updates, grads, learning_rate=rate, layers=layout
            )
            names = (*layout.names, ALL)
            cosines = record.gradient_cosine
            seen = ~jnp.isnan(cosines)
            pairs = jnp.stack(
                [jnp.where(seen, cosines, 0), seen.astype(cosines.dtype)], axis=1
            )
            rows = dict(zip(names, jnp.stack(record, axis=1), strict=True))
            sums = {
                name: state.cosine_sums[name] + pair
                for name, pair in zip(names, pairs, strict=True)
            }
            return rows, sums

        rows, sums = jax.lax.cond(
            state.step % every == 0, look, lambda: (state.rows, state.cosine_sums)
        )
        return updates, MeasureState(state.step + 1, inner_state, rows, sums)

    return optax.GradientTransformationExtraArgs(init, update)


def _find(state: Any) -> MeasureState:
    found = [
        leaf
        for leaf in jax.tree.leaves(
            state, is_leaf=lambda s: isinstance(s, MeasureState)
        )
        if isinstance(leaf, MeasureState)
    ]
    if len(found) != 1:
        raise ValueError(
            f"the state holds {len(found)} records of measure(...), not one; wrap the "
            "optimizer once, or pass the part of the state that holds the one you mean"
        )
    return found[0]


def records(state: Any) -> dict[str, Motion]:
    """Reads the latest record out of an optimizer's state.

    Args:
      state: the state of `measure`, or any tree that holds it once, such as a chain's.

    Returns:
      For each layer, and for the whole model under ``all``, its `Motion` of scalars.

    Raises:
      ValueError: if ``state`` holds no record, or several.
    """
    rows = _find(state).rows
    return {
        name: Motion(*(row[..., i] for i in range(row.shape[-1])))
        for name, row in rows.items()
    }


def mean_gradient_cosines(state: Any) -> dict[str, jax.Array]:
    """The mean over batches of the cosine between gradient and weights, by layer.

    It is zero, up to noise over the square root of the steps, in layers whose scale the
    loss does not see; in the others it is not once the loss has a gradient at all.

    Args:
      state: as `records` takes it.

    Returns:
      For each layer and ``all`` a scalar; NaN before the first measured step, and for
      a layer whose weights or gradients were always zero.

    Raises:
      ValueError: as `records` does.
    """
    sums = _find(state).cosine_sums
    return {name: s[..., 0] / s[..., 1] for name, s in sums.items()}
