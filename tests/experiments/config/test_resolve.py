"""Names in configs become objects, and wrong names become helpful errors."""

import optax
import pytest

from gnomon.experiments.config.resolve import ConfigError, build, check, resolve


def test_any_dotted_path_resolves_modules_classes_and_attributes():
    assert resolve("optax.adamw") is optax.adamw
    assert resolve("optax.contrib.muon") is optax.contrib.muon
    assert resolve("collections.OrderedDict.fromkeys")("ab") == {"a": None, "b": None}


def test_a_users_own_module_needs_no_registration(tmp_path, monkeypatch):
    (tmp_path / "my_optimizers.py").write_text(
        "import optax\ndef mine(learning_rate): return optax.sgd(learning_rate)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    built = build({"name": "my_optimizers.mine"}, learning_rate=0.1)
    assert isinstance(built, optax.GradientTransformation)


def test_an_import_error_inside_the_users_module_is_shown_as_it_is(
    tmp_path, monkeypatch
):
    (tmp_path / "broken_optimizers.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        resolve("broken_optimizers.mine")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "optax.adamww"}, r"did you mean 'adamw'\?"),
        ({"name": "no_such_package.f"}, "cannot import 'no_such_package.f'"),
        ({"learning_rate": 0.1}, "config.optimizer.name: missing"),
        (
            {"name": "optax.adamw", "learning_rat": 0.1},
            r"config.optimizer.learning_rat: unknown field; did you mean",
        ),
        ({"name": "optax.adamw"}, "config.optimizer.learning_rate: missing"),
        (
            {"name": "optax.adamw", "learning_rate": 1.0, "mask": {"ref": "optax.no"}},
            "config.optimizer.mask.ref",
        ),
    ],
)
def test_a_bad_component_is_refused_by_field_and_fix(spec, message):
    with pytest.raises(ConfigError, match=message):
        check(spec, "optimizer")


def test_nested_components_are_built_and_references_are_not_called():
    chained = build(
        {
            "name": "optax.apply_if_finite",
            "inner": {"name": "optax.sgd", "learning_rate": 0.5},
            "max_consecutive_errors": 3,
        }
    )
    assert isinstance(chained, optax.GradientTransformation)
    mapped = build({"name": "builtins.dict", "kind": {"ref": "optax.sgd"}})
    assert mapped["kind"] is optax.sgd
