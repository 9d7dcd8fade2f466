"""Configs: arguments, overrides and the refusal of what cannot run."""

import pytest

from gnomon.experiments.config import load, override, parse_arg, validate
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.source import packaged


def test_arguments_take_the_types_of_their_defaults():
    arg = parse_arg("width=32,rate=1e-3,tied=false", width=1, rate=1.0, tied=True)
    assert arg.to_dict() == {"width": 32, "rate": 1e-3, "tied": False}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht=3", "did you mean 'width'"),
        ("width=wide", "needs int"),
        ("width", "write width=VALUE"),
        ("tied=maybe", "true or false"),
    ],
)
def test_bad_arguments_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_arg(text, width=1, tied=True)


@pytest.mark.parametrize("name", ["lm", "digits_mlp", "digits_resnet", "quickstart"])
def test_the_configs_that_ship_are_valid_and_found_by_name(name):
    assert packaged(f"{name}.py:width=32").endswith(f"/configs/{name}.py:width=32")
    validate(load(f"{name}.py"))


def test_overrides_replace_whole_components_before_their_fields(tiny):
    changed = override(
        tiny(),
        {
            "optimizer.learning_rate": 0.3,
            "optimizer": {"name": "optax.sgd", "learning_rate": 0.1},
        },
    )
    assert changed["optimizer"] == {"name": "optax.sgd", "learning_rate": 0.3}


def test_overrides_leave_the_base_as_it_was(tiny):
    base = tiny()
    override(base, {"model.width": 99, "steps": 1})
    assert base == tiny()


def test_a_word_in_place_of_a_list_is_the_list_of_it_as_on_the_command_line(tiny):
    changed = override(tiny(), {"mesh.rules": "fsdp"})
    assert changed["mesh"]["rules"] == ["fsdp"]
    validate(changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 3}, r"'step': unknown field; did you mean 'steps'"),
        ({"steps": "many"}, "config.steps is int, not str"),
        ({"evaluate.evry": 3}, "did you mean 'every'"),
        ({"optimiser.b1": 0.5}, "no section 'optimiser'; did you mean 'optimizer'"),
        ({"model": 3}, "config.model is dict, not int"),
    ],
)
def test_bad_overrides_name_the_field(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        override(tiny(), changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "config.steps=0: needs an integer above 0"),
        ({"evaluate.batch": 0}, "config.evaluate.batch=0"),
        ({"seed": -1}, "config.seed=-1"),
        ({"model.widht": 8}, "config.model.widht: unknown field; did you mean 'width'"),
        ({"optimizer.b3": 0.9}, "config.optimizer.b3: unknown field"),
        ({"task": "gnomon.experiments.tasks.next_tok"}, "did you mean 'next_token'"),
        ({"static": ["epsilon"]}, "adamw has no field 'epsilon'"),
    ],
)
def test_a_config_that_cannot_run_is_refused(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(override(tiny(), changes))
