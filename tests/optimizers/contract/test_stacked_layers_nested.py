"""Wrappers in wrappers, masks that are trees, and fused steps, on stacked layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import pallas as pl

from gnomon import optimizers as o
from gnomon.parameters.stacks import Stacks, unstack
from gnomon_contract.layers import (
    FAST,
    HALF,
    LIST,
    NAMED,
    STACKED,
    TOLD,
    base,
    by_path_of,
    check,
    loss,
)
from gnomon_contract.makers import INNER, WRAPPERS, told

LAYERWISE = optax.chain(optax.scale_by_trust_ratio(), optax.sgd(0.1, momentum=0.9))
# What stands between a wrapper and an optimizer that looks at leaves.
BETWEEN = {
    "clip": lambda i, **s: optax.chain(optax.clip_by_global_norm(1.0), i),
    **{name: WRAPPERS[name] for name in ("mup", "quantize_moments", "per_layer")},
}
TELLING = sorted(name for name in WRAPPERS if told(WRAPPERS[name]))
# Not in itself, and what weight norm hands down has no base model.
POSSIBLE = {
    name: [b for b in BETWEEN if b != name and (name, b) != ("weight_norm", "mup")]
    for name in TELLING
}
NESTED = [(n, POSSIBLE[n][i % len(POSSIBLE[n])]) for i, n in enumerate(TELLING)]


@pytest.mark.parametrize(("name", "between"), NESTED)
def test_nested_wrappers_see_the_same_layers(name, between):
    """What is told of a stack that was taken apart does not hold of its layers.

    Whoever is told, the wrapper, what it holds and what that holds, or the first alone.
    """

    def seen(params, told, **s):
        layers = set()

        def look(updates, params=None):
            stacks = Stacks(updates, s.get("stacked"))
            for path, leaf in by_path_of(updates).items():
                shape = leaf.shape[len(stacks.sizes_of(path)) :]
                layers.update((layer, shape) for layer, _ in stacks.layers_of(path))
            return updates

        looks = optax.stateless(look)
        inner = BETWEEN[between](optax.chain(looks, LAYERWISE), **s)
        s["stacked"] = told
        optimizer = WRAPPERS[name](inner, **{} if told is None else {"stacked": told})
        optimizer = optax.with_extra_args_support(optimizer)
        params = jax.tree.map(jnp.asarray, params)

        def update(params):
            return optimizer.update(params, optimizer.init(params), params, obj_fn=loss)

        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(update, params)
        return layers

    wanted = seen(LIST, None)
    assert any("blocks/1/up/bias" in path for path, _ in wanted)
    assert seen(NAMED, None) == wanted
    for own in ({}, {"stacked": STACKED}):
        assert seen(TOLD, STACKED, **own) == wanted


@pytest.mark.parametrize(
    "make",
    [
        lambda **s: o.lawn(
            optax.chain(optax.clip_by_global_norm(1.0), o.fadam(0.1, weight_decay=0.0)),
            free_steps=1,
            **s,
        ),
        lambda **s: o.mup(
            WRAPPERS["quantize_moments"](optax.lamb(0.1), **s), base, **s
        ),
    ],
    ids=["lawn(clip, fadam)", "mup(quantize_moments(lamb))"],
)
def test_nested_wrappers(make):
    check(make, explicit=True)


# Trees of the structure of the model as it is; some act number by number.
DECAYING = jax.tree.map(lambda w: w.ndim == 2, NAMED)
LABELS = jax.tree.map(lambda decays: "ab"[decays], DECAYING)
WITH_TREES = {
    "adamw": lambda: optax.adamw(0.1, mask=DECAYING),
    "masked": lambda: optax.masked(optax.sgd(0.1, momentum=0.9), DECAYING),
    "partition": lambda: optax.partition(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1)}, LABELS
    ),
    "adamp": lambda: o.adamp(0.1, weight_decay_mask=DECAYING),
    "mup": lambda: o.mup(optax.lamb(0.1), HALF["named"]),
    "lamb": lambda: optax.lamb(0.1, mask=DECAYING),
    "muon": lambda: optax.contrib.muon(
        0.1, muon_weight_dimension_numbers=o.hidden_matrices(NAMED)
    ),
}


@pytest.mark.parametrize("inner", WITH_TREES)
def test_trees_of_the_structure_with_stacks(inner):
    """What acts number by number takes them; for the rest it is said what to give."""
    by_layers = inner in ("mup", "lamb", "muon")
    # Weight norm hands down a tree of another structure.
    names = [n for n in TELLING if n not in ("weight_norm", "per_layer")]
    names = names if inner in ("adamw", "partition") else ["constrain", "lawn"]
    for name in ["per_layer", "lawn"] if by_layers else names:
        optimizer = optax.with_extra_args_support(WRAPPERS[name](WITH_TREES[inner]()))

        def step(params, optimizer=optimizer):
            state = optimizer.init(params)
            return optimizer.update(params, state, params, obj_fn=loss)

        with jax.numpy_dtype_promotion("standard"):
            if by_layers:
                with pytest.raises(ValueError, match="has to be a function of the par"):
                    jax.eval_shape(step, NAMED)
            else:
                jax.eval_shape(step, NAMED)


# The entry points that run kernels, through the interpreter.
FUSED = {
    "adamp": lambda **s: o.adamp(0.1, implementation="tpu", **s),
    "fadam": lambda **s: o.fadam(0.1, implementation="tpu", **s),
    "hyperball": lambda **s: o.hyperball(
        optax.identity(), 0.1, implementation="tpu", **s
    ),
    "adamp_8bit": lambda **s: o.adamp_8bit(0.1, min_size=7, block=8, **s),
    "per_layer": lambda **s: o.per_layer(o.adamp(0.1, implementation="tpu"), **s),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_entry_points(name, monkeypatch):
    monkeypatch.setattr(pl, "pallas_call", functools.partial(_interpreted, CALL))

    def step(params, stacked=None):
        optimizer = FUSED[name](**({"stacked": stacked} if stacked else {}))
        params = jax.tree.map(jnp.asarray, params)
        grads = jax.grad(lambda tree: loss(unstack(tree, stacked)))(params)
        state = optimizer.init(params)
        moved, _ = o.apply_fused(optimizer, grads, state, params)
        return by_path_of(unstack(moved, stacked))

    def all_layouts():
        return step(LIST), step(NAMED), step(TOLD, STACKED)

    wanted, *others = jax.jit(all_layouts, compiler_options=FAST)()
    for other in others:
        assert other.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_allclose(other[path], leaf, atol=2e-5, err_msg=path)


CALL = pl.pallas_call


def _interpreted(call, *args, **kwargs):
    return call(*args, **kwargs | {"interpret": True})


def test_a_selection_of_some_layers_of_a_stack_is_refused():
    with pytest.raises(ValueError, match="some layers of 'blocks/stacked/up/bias'"):
        o.lawn(INNER["sgd"](), free_steps=0, constrained="blocks/1/up").init(NAMED)
