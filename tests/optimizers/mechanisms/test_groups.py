"""Parameter groups: the first rule that fits decides, and all are covered."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import descend, parameter_groups, scale_by_group
from gnomon.parameters.rules import deciding, fitting
from gnomon_contract import Row


def one_group(learning_rate):
    return parameter_groups([("", descend(learning_rate))])


# Rules for layers one by one, that fit stacks as well.
RULES = (r"blocks/\d+/query", "role:embedding", "role:bias", "")
ROWS = (
    Row(
        "parameter_groups",
        one_group,
        {"learning_rate": 2e-3},
        needs_params=False,
        steps=6000,
        covers=("parameter_groups",),
    ),
)
GIVEN = {
    "parameter_groups": {"groups": [("", descend(0.1))]},
    "scale_by_group": {"groups": [("", 0.5)]},
}
COMPLEX = {"parameter_groups": lambda: parameter_groups([("", optax.adam(0.1))])}
LAYERS = {
    "parameter_groups": lambda **s: parameter_groups(
        list(
            zip(
                RULES,
                (optax.lamb(0.1), optax.sgd(0.1), optax.sgd(0.2), descend(0.3)),
                strict=True,
            )
        ),
        **s,
    ),
    "scale_by_group": lambda **s: optax.chain(
        optax.sgd(0.1),
        scale_by_group([*zip(RULES, (0.5, 2.0, 3.0, 1.0), strict=True)], **s),
    ),
}
W = {
    "embed": {"embedding": jnp.ones((4, 2))},
    "blocks": {"0": {"up": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}},
    "norm": {"scale": jnp.ones(2)},
}


def test_the_first_rule_that_fits_decides():
    chosen = deciding(W, ["role:bias", "^blocks/", "role:gain", ""], "rules")
    assert chosen == {
        "embed": {"embedding": 3},
        "blocks": {"0": {"up": {"kernel": 1, "bias": 0}}},
        "norm": {"scale": 2},
    }
    assert fitting(W, ["role:hidden", "embed"], "mask") == {
        "embed": {"embedding": True},
        "blocks": {"0": {"up": {"kernel": True, "bias": False}}},
        "norm": {"scale": False},
    }


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["^blocks/", "^embd"], "'embed/embedding', 'norm/scale'; the closest .*embd"),
        (["", "^embed"], "the rule '\\^embed' decides nothing"),
        (["kernle", ""], "the rule 'kernle' fits no parameter. Paths: 'blocks/0/up"),
        (["role:biass", ""], "did you mean 'role:bias'"),
        (["(", ""], "is not a regex"),
        ([], "no rule covers"),
    ],
)
def test_rules_cover_and_each_decides(rules, said):
    optimizer = parameter_groups([(rule, optax.sgd(0.1)) for rule in rules])
    with pytest.raises(ValueError, match=said):
        optimizer.init(W)
    with pytest.raises(ValueError, match=said):
        scale_by_group([(rule, 1.0) for rule in rules]).init(W)


def test_each_group_is_its_own_optimizer_and_a_shared_one_is_whole():
    """A norm over the tree is that of all leaves which one object moves."""
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    optimizer = parameter_groups(
        [("embed", clipped), ("role:bias", optax.sgd(0.1, momentum=0.9)), ("", clipped)]
    )
    g = jax.tree.map(lambda w: 3.0 * w, W)
    updates, _ = optimizer.update(g, optimizer.init(W), W)
    mine = {k: v for k, v in g.items() if k != "blocks"}
    mine["up"] = g["blocks"]["0"]["up"]["kernel"]
    wanted, _ = clipped.update(mine, clipped.init(mine))
    np.testing.assert_array_equal(
        updates["embed"]["embedding"], wanted["embed"]["embedding"]
    )
    np.testing.assert_array_equal(updates["norm"]["scale"], wanted["norm"]["scale"])
    bias = g["blocks"]["0"]["up"]["bias"]
    np.testing.assert_array_equal(updates["blocks"]["0"]["up"]["bias"], -0.1 * bias)


def test_multipliers_are_traced_and_keep_the_dtype():
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), W)

    @jax.jit
    def scaled(multiplier):
        scale = scale_by_group([("embed", multiplier), ("", 1.0)])
        return scale.update(half, scale.init(half))[0]

    found = scaled(jnp.float32(0.3))
    assert found["embed"]["embedding"].dtype == jnp.bfloat16
    assert found["embed"]["embedding"][0, 0] == jnp.bfloat16(0.3)
    assert found["norm"]["scale"][0] == 1
    with pytest.raises(ValueError, match="multiplier"):
        scale_by_group([("", -1.0)])
