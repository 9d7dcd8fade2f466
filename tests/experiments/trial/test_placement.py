"""Parameters and state that are cut over devices, or kept on the host, really are."""

import functools
import re
import shutil

import jax
import numpy as np
import pytest

from gnomon.experiments.config import validate
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trial
from gnomon.experiments.data import Dataset, load
from gnomon.experiments.train import load_state, train
from gnomon.experiments.trial.lanes import compile_lanes, hypers_of
from gnomon.experiments.trial.mesh import whole_leaves
from gnomon.experiments.trial.needs import needs_of
from gnomon.experiments.trial.resume import first_lanes

pytestmark = pytest.mark.usefixtures("optax_promotion")
RATE, STEPS, DEVICES = 1e-2, 4, 8
ADAMP = {"name": "gnomon.optimizers.adamp", "learning_rate": RATE}
OPTIMIZERS = {
    "adamw": {"name": "optax.adamw", "learning_rate": RATE},
    "adamp": ADAMP,
    "lawn": {"name": "gnomon.optimizers.lawn", "free_steps": 2, "inner": ADAMP},
}
ONE = {"data": 1, "model": 1, "rules": (), "state_memory": ""}


@pytest.fixture(scope="module")
def trained(tiny, optax_promotion):
    """Four steps of a small MLP in one dispatch: its program and its state."""

    def config(optimizer="adamw", **mesh):
        model = {"inputs": 13, "widths": [64, 64], "classes": 3}
        return tiny(
            batch=8,
            task="gnomon.experiments.tasks.classification",
            model={"name": "gnomon.models.MLP"} | model,
            data={"name": "wine"},
            optimizer=OPTIMIZERS[optimizer],
            log_every=STEPS,
            mesh=ONE | mesh,
        )

    @functools.cache
    def train(optimizer, **mesh):
        trial = make_trial(config(optimizer, **mesh))
        dataset = load(trial.config["data"])
        lanes = compile_lanes([trial], dataset)
        hypers = hypers_of([trial])
        state = lanes.init(np.zeros(1, np.uint32), hypers)
        index = np.arange(8) + 8 * np.arange(STEPS)[:, None, None]
        batches = {name: array[index] for name, array in dataset.train.items()}
        how = np.int32(STEPS), np.bool_(False), np.zeros(1, np.int32), hypers
        return lanes, lanes.steps(state, batches, *how)[0]

    train.config = config
    return train


def matrices(tree):
    """The leaves that can be cut: [lane, in, out], and no norm of one."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim == 3 and leaf.size > 1]


def bytes_on(device, leaves):
    return sum(
        shard.data.nbytes
        for leaf in leaves
        for shard in leaf.addressable_shards
        if shard.device == device
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_bytes_a_device_fall_by_the_number_of_devices(trained, optimizer):
    _, alone = trained(optimizer)
    for rules in ("zero1", "fsdp"):
        _, state = trained(optimizer, data=DEVICES, rules=rules)
        for device in jax.devices():
            for field, cut in (("opt_state", True), ("params", rules == "fsdp")):
                ours, whole = (matrices(getattr(s, field)) for s in (state, alone))
                assert len(whole) >= 3
                total = sum(leaf.nbytes for leaf in whole)
                parts = DEVICES if cut else 1
                assert bytes_on(device, ours) == total // parts, (rules, field)
        # Sums round in another order; so many Adam steps then agree to 2e-4 of the way
        # that they can move a weight.
        pairs = zip(*map(jax.tree.leaves, (alone.params, state.params)), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-4 * RATE * STEPS)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_zero1_gathers_new_parameters_once_and_no_state(trained, optimizer):
    """All that the program gathers are the numbers of the parameters that are cut."""
    lanes, state = trained(optimizer, data=DEVICES, rules="zero1")
    gathered = re.findall(r" = (.*) all-gather(?:-start)?\(", lanes.steps.as_text())
    sizes = [
        int(np.prod([int(n) for n in shape.split(",")]))
        for found in gathered
        for shape in re.findall(r"f32\[([\d,]+)\]", found)
    ]
    assert sorted(sizes) == sorted(leaf.size for leaf in matrices(state.params))


def test_fsdp_gathers_weights_and_no_activations(tiny, optax_promotion):
    """XLA, told nothing of the examples, cuts activations as it finds the weights."""
    length = 24
    tokens = {"tokens": jax.ShapeDtypeStruct((64, length + 1), "uint8")}
    sizes = dict(vocab=64, width=32, depth=2, head_dim=16, scan=True)
    config = tiny(
        batch=2 * DEVICES,
        accumulate=2,
        model={"name": "gnomon.models.TransformerLM"} | sizes,
        evaluate={"every": 0, "batches": 1, "batch": DEVICES},
        mesh=ONE | {"data": DEVICES, "rules": ("fsdp",)},
        log_every=STEPS,
    )
    lanes = compile_lanes([make_trial(config)], Dataset(tokens, tokens, "", "token"))
    gathered = re.findall(r" = (.*) all-gather(?:-start)?\(", lanes.steps.as_text())
    shapes = [
        [int(n) for n in shape.split(",")]
        for found in gathered
        for shape in re.findall(r"\w+\[([\d,]+)\]", found)
    ]
    assert [32, 128] in shapes, "a layer's weights, when it needs them"
    assert not [shape for shape in shapes if length in shape]


def test_what_stays_whole_is_said(trained):
    config = trained.config(data=DEVICES, rules="zero1")
    alone = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), trained("adamw")[1]
    )
    named = dict(whole_leaves(config, alone))
    moments = ("opt_state/0/mu/", "opt_state/0/nu/")
    layers = {"hidden/0/bias": 256, "hidden/1/bias": 256, "head/bias": 12}
    expected = {m + name: size for m in moments for name, size in layers.items()}
    assert named == expected
    # 3 devices divide no axis of 64.
    config = trained.config(data=3, rules="fsdp")
    assert {"params/hidden/1/kernel", "opt_state/0/mu/hidden/1/kernel"} <= {
        name for name, _ in whole_leaves(config, alone)
    }


def test_state_on_the_host_trains_as_on_the_device_and_resumes(trained, tmp_path):
    _, alone = trained("adamw")
    _, state = trained("adamw", state_memory="pinned_host")
    kinds = [
        {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}
        for tree in (state.opt_state, state.params, alone.opt_state)
    ]
    assert kinds == [{"pinned_host"}, {"device"}, {"device"}]
    for a, b in zip(*map(jax.tree.leaves, (alone.params, state.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    mesh = {"data": 2, "rules": ("zero1",), "state_memory": "pinned_host"}
    config = trained.config(**mesh)
    result = train(config, tmp_path)
    whole = load_state(tmp_path)
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints/12")
    assert train(config, tmp_path)["final"] == result["final"]
    again = load_state(tmp_path)
    for a, b in zip(*map(jax.tree.leaves, (whole.params, again.params)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_ghost_lanes_of_a_state_on_the_host_are_left_out():
    device = jax.devices()[0]
    host = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
    lanes = jax.device_put(np.arange(8.0, dtype=np.float32).reshape(4, 2), host)
    kept = first_lanes({"mu": lanes}, 3)["mu"]
    np.testing.assert_array_equal(kept, np.arange(6.0).reshape(3, 2))


@pytest.mark.parametrize("mesh", [{}, {"data": DEVICES, "rules": "fsdp"}])
def test_what_a_dry_run_tells_agrees_with_the_live_device(trained, mesh):
    lanes, state = trained("adamw", **mesh)
    trial = make_trial(trained.config(**mesh))
    dataset = load(trial.config["data"])
    held = state._replace(key=jax.random.key_data(state.key))
    batches = {
        name: np.zeros((STEPS, 1, 8, *array.shape[1:]), array.dtype)
        for name, array in dataset.train.items()
    }
    hypers = jax.device_put(hypers_of([trial]), lanes.place.lanes)
    given = [held, jax.device_put(batches, lanes.place.blocks), hypers]
    live = bytes_on(jax.devices()[0], jax.tree.leaves(given))
    left = bytes_on(jax.devices()[0], jax.tree.leaves(held))
    needs = needs_of(trial.config, dataset, lanes, count=1, seconds=2.0, peak=1e6)
    assert needs.held == pytest.approx(live, rel=0.05)
    outputs = lanes.memory.outputs + needs.held
    assert outputs == pytest.approx(left + live, rel=0.05)
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert needs.state == pytest.approx(8, abs=0.02), "two moments in float32"
    assert needs.rule == 6 * size * 8
    assert needs.rule < needs.counted < 3 * needs.rule, "the optimizer's own and all"
    # Moments, their correction, root, quotient, decay, rate: some twenty a parameter.
    assert 12 * size < needs.optimizer < 30 * size
    devices = mesh.get("data", 1)
    assert needs.mfu == pytest.approx(needs.flops / (2.0 * 1e6 * devices))
    assert needs.activations > 0
    assert (needs.whole > 0) == bool(mesh)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ({"rules": "fdsp"}, "'fdsp' is not a regex and where to cut, nor one of fsdp"),
        ({"rules": ("fsdp", ("head", ()))}, "give one, as the last rule"),
    ],
)
def test_rules_that_cannot_be_are_refused(trained, mesh, message):
    with pytest.raises(ConfigError, match=message):
        validate(trained.config(**mesh))


def test_a_memory_that_is_not_there_is_refused_by_name(trained):
    with pytest.raises(ConfigError, match="state_memory='hbm': cpu keeps no state"):
        trained("adamw", state_memory="hbm")
