"""Parts of models are named in a config as everything is."""

import jax
import pytest

from gnomon.experiments.config.resolve import ConfigError, check
from gnomon.experiments.trial.step import parts_of

MODEL = {
    "name": "gnomon.models.TransformerLM",
    "vocab": 16,
    "width": 8,
    "depth": 1,
    "norm": {
        "name": "gnomon.models.part",
        "of": {"ref": "gnomon.models.normalization.LayerNorm"},
        "epsilon": 1e-3,
    },
    "placement": {
        "name": "builtins.dict",
        "attention": {"ref": "gnomon.models.placements.sandwich"},
        "mlp": {"ref": "gnomon.models.placements.post"},
    },
    "init": {"ref": "gnomon.models.initialization.gaussian"},
}


def test_a_model_is_built_of_the_parts_that_its_config_names():
    check(MODEL, "model", provided={"rngs": "config.seed"})
    config = {"model": MODEL, "task": "gnomon.experiments.tasks.next_token"}
    params, _ = jax.eval_shape(parts_of(config).model.init, jax.random.key(0))
    block = params["blocks"]["0"]
    assert block.keys() == {
        "attention",
        "attention_norm",
        "attention_out_norm",
        "mlp",
        "mlp_norm",
    }
    assert block["mlp_norm"].keys() == {"scale", "bias"}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"norm": {"ref": "gnomon.models.normalization.LayerNrom"}},
            "config.model.norm.ref: .*did you mean 'LayerNorm'",
        ),
        ({"norms": {"ref": "optax.adam"}}, "config.model.norms: .*did you mean 'norm'"),
    ],
)
def test_a_part_that_does_not_exist_is_refused_by_its_field(part, message):
    with pytest.raises(ConfigError, match=message):
        check(MODEL | part, "model", provided={"rngs": "config.seed"})
