"""The chain around a config's optimizer: what it is made of, and in which order."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.experiments.config import override
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import group_key, make_trial, split
from gnomon.experiments.config.validation import validate
from gnomon.experiments.data import load
from gnomon.experiments.trial.abstract import trace
from gnomon.experiments.trial.cost import optimizer_flops
from gnomon.experiments.trial.optimizer import make_optimizer
from gnomon.models import parameter_count
from gnomon.optimizers import FusedTransformation
from gnomon_contract.layers import check

CLIP = {"name": "optax.clip_by_global_norm", "max_norm": 1.0}
GROUPS = [
    {"where": "role:embedding", "multiplier": 0.5},
    {"where": "bias$", "name": "optax.sgd", "learning_rate": 0.1},
    {"where": "up/kernel$", "weight_decay": 0.0, "learning_rate": 0.02},
    {"where": ""},
]
CHAIN = {
    "clip": CLIP,
    "parameter_groups": GROUPS,
    "decay_mask": ["role:hidden"],
    "schedule": {"name": "gnomon.experiments.schedules.constant"},
}
W = {
    "embed": {"embedding": jnp.arange(4.0).reshape(2, 2)},
    "up": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "query": {"kernel": jnp.full((2, 2), 2.0)},
    "norm": {"scale": jnp.ones(2)},
}
pytestmark = pytest.mark.usefixtures("optax_promotion")


def taken(make, *arguments):
    """The parameters after two steps, in one program."""

    def steps(*arguments):
        optimizer = make(*arguments)
        params, state = W, optimizer.init(W)
        for by in (1.0, 2.0):
            grads = jax.tree.map(lambda w, by=by: by * jnp.cos(w), params)
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    return jax.jit(steps)(*arguments)


def of(config, **changes):
    static, hypers = split(config)
    return make_optimizer(static, hypers | changes)


def assert_equal(found, wanted):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted
    )


def test_the_chain_is_the_one_written_by_hand(tiny):
    """Clip, then the optimizer of each group and its decay, then the multiplier."""
    config = tiny(**CHAIN)
    validate(config)

    labels = {
        "embed": "base",
        "up": {"kernel": "up", "bias": "bias"},
        "query": "base",
        "norm": "base",
    }

    def only(name):
        return jax.tree.map(lambda label: label == name, spread)

    spread = jax.tree.map(
        lambda label, part: jax.tree.map(lambda _: label, part), labels, W
    )
    by_hand = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(optax.sgd(0.1), only("bias")),
        optax.masked(optax.adamw(0.02, b1=0.9, weight_decay=0.0), only("up")),
        optax.masked(
            optax.adamw(
                1e-3,
                b1=0.9,
                weight_decay=0.01,
                mask=lambda tree: jax.tree_util.tree_map_with_path(
                    lambda path, _: path[0].key == "query", tree
                ),
            ),
            only("base"),
        ),
        optax.masked(optax.scale(0.5), {name: name == "embed" for name in W}),
    )
    assert_equal(taken(lambda: of(config)), taken(lambda: by_hand))


def test_its_numbers_are_traced_and_swept(tiny):
    """Trials that differ in them are one group, and lanes of one program."""
    config = tiny(**CHAIN)
    paths = (
        "clip.max_norm",
        "parameter_groups.0.multiplier",
        "parameter_groups.2.learning_rate",
    )
    values = ([1.0, 0.3], [0.5, 2.0], [0.02, 0.1])
    changes = [dict(zip(paths, row, strict=True)) for row in zip(*values, strict=True)]
    configs = [override(config, change) for change in changes]
    assert len({group_key(make_trial(c)) for c in configs}) == 1
    assert len({make_trial(c).id for c in configs}) == 2
    numbers = {path: jnp.asarray(row) for path, row in zip(paths, values, strict=True)}
    lanes = jax.vmap(lambda hypers: taken(lambda: of(config, **hypers)))(numbers)
    for lane, one in enumerate(configs):
        alone = taken(lambda one=one: of(one))
        assert_equal(jax.tree.map(lambda x, at=lane: x[at], lanes), alone)
    static = split(override(config, {"static": ["learning_rate"]}))[1]
    assert "parameter_groups.2.learning_rate" not in static


def test_stacked_layers_are_a_list_of_layers(tiny):
    rules = [{**group} for group in GROUPS]
    rules[2]["where"] = r"blocks/\d+/up/kernel$"
    config = tiny(**CHAIN | {"parameter_groups": rules})
    check(lambda: of(config), explicit=False)


def test_nothing_is_what_it_was(tiny):
    config = tiny()
    without = {k: v for k, v in config.items() if k not in CHAIN or k == "schedule"}
    assert make_trial(config).id == make_trial(without).id
    assert jax.tree.all(
        jax.tree.map(
            jnp.array_equal, taken(lambda: of(config)), taken(lambda: of(without))
        )
    )
    fused = tiny(optimizer={"name": "gnomon.optimizers.adamp", "learning_rate": 0.1})
    clipped = override(fused, {"clip": CLIP, "decay_mask": ["kernel$"]})
    assert isinstance(of(fused), FusedTransformation)
    one = of(clipped)
    assert isinstance(one, FusedTransformation)

    @jax.jit
    def both(grads):
        updates, _ = one.update(grads, one.init(W), W)
        return one.apply(grads, one.init(W), W)[0], optax.apply_updates(W, updates)

    assert_equal(*both(jax.tree.map(jnp.cos, W)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip": {"name": "optax.clip", "max": 1.0}}, "clip.max: unknown field"),
        ({"clip": {"name": "", "max_norm": 1.0}}, "config.clip.max_norm: there is no"),
        ({"parameter_groups": [{"multiplier": 1.0}]}, "'where' among them"),
        ({"parameter_groups": [{"where": "("}]}, "is not a regex"),
        ({"parameter_groups": [{"where": "role:bia"}]}, "did you mean 'role:bias'"),
        ({"parameter_groups": [{"where": "", "multiplier": -1.0}]}, "multiplier=-1.0"),
        ({"parameter_groups": [{"where": "", "b9": 1.0}]}, r"\[0\].b9: unknown field"),
        ({"parameter_groups": [{"where": "", "b1": 2.0}]}, r"\[0\].b1=2.0: needs"),
        ({"parameter_groups": "role:bias"}, r"\[0\]='role:bias': needs fields"),
        ({"decay_mask": ["role:x"]}, "did you mean 'role:head'"),
        (
            {
                "decay_mask": [""],
                "optimizer": {"name": "optax.sgd", "learning_rate": 1.0},
            },
            "optax.sgd takes no weight_decay_mask",
        ),
        (
            {
                "decay_mask": [""],
                "optimizer": {
                    "name": "optax.contrib.muon",
                    "learning_rate": 1.0,
                    "adam_weight_decay": 0.1,
                },
            },
            "optax.contrib.muon has no mask for its adam_weight_decay",
        ),
    ],
)  # fmt: skip
def test_what_no_chain_is_made_of_is_refused(tiny, changes, said):
    with pytest.raises(ConfigError, match=said):
        validate(tiny(**changes))


def test_rules_of_a_config_cover_its_model(tiny):
    """Found before the run, on shapes; and what covers goes through the program."""
    config = tiny(parameter_groups=GROUPS[:2], dynamics__free=True)
    dataset = load(config["data"])
    with pytest.raises(
        ConfigError, match=r"config.parameter_groups: no rule covers 'b"
    ):
        trace(config, dataset)
    with pytest.raises(
        ConfigError, match=r"config.decay_mask: the rule 'nothing' fits"
    ):
        trace(
            override(config, {"parameter_groups": [], "decay_mask": ["nothing"]}),
            dataset,
        )
    config = override(
        config, {"parameter_groups": [GROUPS[0], {"where": "", "b1": 0.8}]}
    )
    assert trace(override(config, {"clip": CLIP, "decay_mask": ["kernel"]}), dataset)


def test_a_dry_run_counts_the_chain_as_the_optimizers_own(tiny):
    """Without the optimizer nothing is left whose keywords find no taker."""
    config = tiny(
        task="gnomon.experiments.tasks.classification",
        model={"name": "gnomon.models.MLP", "inputs": 13, "widths": [8], "classes": 3},
        data={"name": "wine"},
        optimizer={"name": "optax.sgd", "learning_rate": 0.1},
        clip=CLIP,
        parameter_groups=[{"where": "bias$", "momentum": 0.9}, {"where": ""}],
    )
    dataset = load(config["data"])
    size = parameter_count(trace(config, dataset).params)
    # A product by the learning rate, and of the clip a square and its sum at least.
    assert optimizer_flops(config, dataset) > 3 * size
