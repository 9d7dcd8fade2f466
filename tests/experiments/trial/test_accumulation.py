"""Micro-batches give the step of the whole batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trial, split
from gnomon.experiments.config.validation import validate
from gnomon.experiments.trial.journal import Observation, means_of
from gnomon.experiments.trial.program import initial_state
from gnomon.experiments.trial.step import (
    Parts,
    evaluation,
    objective,
    parts_of,
    train_step,
)

pytestmark = pytest.mark.usefixtures("optax_promotion")
RNG = np.random.default_rng(0)
TOKENS = {"tokens": RNG.integers(0, 32, (8, 7)).astype(np.int32)}
IMAGES = {
    "tokens": RNG.normal(size=(8, 6, 6, 1)),
    "label": RNG.integers(0, 3, 8),
}
FEATURES = {"tokens": RNG.normal(size=(8, 3)), "label": IMAGES["label"]}
MLP = dict(name="gnomon.models.MLP", inputs=3, widths=[4], classes=3)
LM = dict(name="gnomon.models.TransformerLM", vocab=32, width=8, depth=1, head_dim=4)
RESNET = dict(name="gnomon.models.ResNet", width=4, blocks=[1], classes=3)
NO_STATISTICS = dict(norm=dict(ref="gnomon.models.normalization.LayerNorm"))
OPTIMIZERS = {
    "adamw": dict(name="optax.adamw", learning_rate=1e-2),
    "momo": dict(name="gnomon.optimizers.momo", learning_rate=1.0),
    "sania": dict(  # by Hessian-vector products of grad_fn
        name="gnomon.optimizers.sania",
        preconditioner=dict(name="gnomon.optimizers.scale_by_hutchinson"),
    ),
}
# Compile times are most of this module's time; the numbers do not depend on them.
QUICK = {"xla_backend_optimization_level": 0}


def counted(apply, batch):
    """A mean over the even tokens, of which no two examples have as many."""
    if "label" in batch:
        inputs, labels = batch["tokens"], batch["label"]
        weights = jnp.ones(labels.shape)
    else:
        inputs, labels = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        weights = 1.0 * (labels % 2 == 0)
    logits = apply(inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    loss = jnp.sum(losses * weights) / jnp.sum(weights)
    return loss, {"twice": 2 * loss}


def terms(batch):
    """How many terms `counted` averages."""
    if "label" in batch:
        return jnp.asarray(len(batch["label"]))
    return jnp.sum(batch["tokens"][:, 1:] % 2 == 0)


counted.weight = terms  # type: ignore[attr-defined]


def setting(tiny, accumulate, model, batch, optimizer="adamw", **changes):
    """Parts in float64, the state at the start, and the traced numbers."""
    config = tiny(batch=8) | dict(accumulate=accumulate)
    wide = dict(dtype="float64", param_dtype="float64")
    config |= dict(model={**model, **wide, **changes}, optimizer=OPTIMIZERS[optimizer])
    static, traced = split(config)
    parts = Parts(static, parts_of(static).model, counted)
    hypers = {name: jnp.asarray(value) for name, value in traced.items()}
    return parts, initial_state(parts, jnp.uint32(0), hypers, batch), hypers


def assert_close(found, wanted, tolerance=1e-12):
    for x, y in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance * max(1, np.abs(y).max()))


@pytest.mark.parametrize(
    ("model", "batch"), [(LM, TOKENS), (RESNET | NO_STATISTICS, IMAGES)]
)
def test_the_objective_is_that_of_the_whole_batch(tiny, x64, model, batch):
    def take(accumulate):
        parts, state, _ = setting(tiny, accumulate, model, batch)

        def everything(params):
            sought = objective(parts, state, batch)
            taken = sought.take(params, jnp.shape)
            # By hand as well: what an optimizer may do with value_fn.
            own = jax.value_and_grad(sought.value)(params)
            return taken._replace(looked=None), own, sought.grad(params)

        return jax.jit(everything, compiler_options=QUICK)(state.params)

    alone, parted = take(1), take(4)
    assert_close(parted, alone)
    # Unequal counts matter: a plain average over the micro-batches is another number.
    if batch is TOKENS:
        counts = [int(terms({"tokens": TOKENS["tokens"][i::4]})) for i in range(4)]
        assert len(set(counts)) > 1


def test_a_step_of_every_optimizer_is_that_of_the_whole_batch(tiny, x64):
    def after(accumulate):
        made = {
            name: setting(tiny, accumulate, MLP, FEATURES, name) for name in OPTIMIZERS
        }

        @functools.partial(jax.jit, compiler_options=QUICK)
        def step(states):
            return {
                name: train_step(parts, states[name], FEATURES, hypers)[0]
                for name, (parts, _, hypers) in made.items()
            }

        start = {name: state for name, (_, state, _) in made.items()}
        end = step(step(start))
        return [{n: (s.params, s.window) for n, s in x.items()} for x in (start, end)]

    (start, alone), (_, parted) = after(1), after(4)
    assert_close(parted, alone, 1e-9)  # Adam's quotients magnify rounding
    for name in OPTIMIZERS:
        pairs = zip(*(jax.tree.leaves(x[name][0]) for x in (start, alone)), strict=True)
        assert min(float(jnp.abs(x - y).max()) for x, y in pairs) > 1e-5


def test_running_statistics_take_one_update_a_micro_batch(tiny, x64):
    parts, state, _ = setting(tiny, 2, RESNET, IMAGES)
    take = objective(parts, state, IMAGES).take
    taken = jax.jit(lambda w: take(w, jnp.shape).stats, compiler_options=QUICK)
    stats = taken(state.params)
    by_hand = state.stats
    for i in range(2):
        images = IMAGES["tokens"][i::2]
        _, by_hand = parts.model.apply(state.params, by_hand, images, train=True)
    assert_close(stats, by_hand)


def test_sums_are_float32_for_parameters_of_bfloat16(tiny):
    config = tiny(batch=8, accumulate=8, model__param_dtype="bfloat16")
    static, traced = split(config)
    parts = parts_of(static)
    hypers = {name: jnp.asarray(value) for name, value in traced.items()}
    state = initial_state(parts, jnp.uint32(0), hypers, TOKENS)
    wide = {jnp.dtype("float32")}

    def carried(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "scan" and eqn.params["length"] == 8:
                count = eqn.params["num_consts"], eqn.params["num_carry"]
                yield from eqn.invars[count[0] : count[0] + count[1]]

    take = objective(parts, state, TOKENS).take
    jaxpr = jax.make_jaxpr(lambda w: take(w, lambda x: None))(state.params).jaxpr
    found = [v.aval.dtype for v in carried(jaxpr)]
    assert set(found) == wide
    assert len(found) >= len(jax.tree.leaves(state.params))
    assert {v.aval.dtype for v in jaxpr.outvars} == {jnp.dtype("bfloat16"), *wide}


def test_what_does_not_divide_is_refused(tiny):
    validate(tiny(batch=8, accumulate=4))
    with pytest.raises(ConfigError, match=r"accumulate=3: does not divide .*=8; use 2"):
        validate(tiny(batch=8, accumulate=3))
    with pytest.raises(ConfigError, match=r"leaves 2 examples a micro-batch.*; use 2"):
        validate(tiny(batch=8, accumulate=4, mesh__data=4, evaluate__batch=8))
    with pytest.raises(ConfigError, match="accumulate=0: needs an integer above 0"):
        validate(tiny(batch=8, accumulate=0))


def test_a_trial_without_micro_batches_keeps_its_id(tiny):
    config = tiny()
    assert make_trial(config).id != make_trial(config | dict(accumulate=2)).id
    old = {key: value for key, value in config.items() if key != "accumulate"}
    assert make_trial(config).id == make_trial(old).id


@pytest.mark.parametrize("chunk", [None, 4])
def test_tokens_behind_a_separator_do_not_count(tiny, chunk):
    config = tiny(batch=8, accumulate=4, model__separator=3, model__logits_chunk=chunk)
    static, traced = split(config)
    parts = parts_of(static)
    rows = {"tokens": np.where(TOKENS["tokens"] % 3, TOKENS["tokens"], 3)}
    hypers = {name: jnp.asarray(value) for name, value in traced.items()}

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both():
        state = initial_state(parts, jnp.uint32(0), hypers, rows)
        inputs, labels = rows["tokens"][:, :-1], rows["tokens"][:, 1:]
        logits, _ = parts.model.apply(state.params, {}, inputs, train=True)
        logits = logits if chunk is None else logits.dense()
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        halves = [evaluation(parts, state, {"tokens": half}) for half in cut]
        return objective(parts, state, rows).value(state.params), losses, halves

    # An evaluation's batches, the second with the separators, have unlike counts.
    order = np.argsort((rows["tokens"][:, :-1] == 3).sum(axis=1))
    cut = rows["tokens"][order].reshape(2, 4, -1)
    found, losses, halves = both()
    wanted = np.average(losses, weights=rows["tokens"][:, :-1] != 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert abs(wanted - np.mean(losses)) > 1e-3
    evaluated = jax.tree.map(lambda *x: np.stack(x)[None], *halves)
    row = means_of(Observation({}, [evaluated], {}, -np.ones(1)))
    assert sorted(row) == ["validation_bits", "validation_loss"]
    np.testing.assert_allclose(row["validation_loss"], [wanted], rtol=1e-5)
    alike = np.mean([half["loss"] for half in halves])
    assert abs(wanted - alike) > 1e-3
