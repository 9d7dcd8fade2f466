"""Public names are flat, found in the modules that list them, and loaded when asked."""

import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys

import pytest

import optimizers_stub
from gnomon import optimizers
from gnomon.optimizers import _names


def run(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def modules():
    found = pkgutil.walk_packages(optimizers.__path__, "gnomon.optimizers.")
    return [importlib.import_module(info.name) for info in found]


def test_names_are_those_of_the_modules():
    """What the scan reads is what the modules list, and all of it is there."""
    listed = {
        name: module.__name__
        for module in modules()
        for name in getattr(module, "__all__", ())
    }
    of_units = dict.fromkeys(_names.UNITS, "gnomon.parameters.units")
    assert listed | of_units | _names.MODULES == _names.modules_by_name()
    assert optimizers.__all__ == sorted(_names.modules_by_name())
    assert set(optimizers.__all__) <= set(dir(optimizers))
    for name, module in listed.items():
        assert getattr(optimizers, name) is getattr(sys.modules[module], name)
    assert optimizers.geometry is sys.modules["gnomon.parameters.units"]
    assert optimizers.constraints is sys.modules["gnomon.optimizers.mechanisms.sets"]


def test_no_module_is_hidden_by_a_public_name():
    tops = {info.name for info in pkgutil.iter_modules(optimizers.__path__)}
    assert tops & set(optimizers.__all__) == set()


def test_a_module_is_loaded_when_a_name_is_asked_for():
    loaded = "print(*sorted(m for m in sys.modules if 'gnomon.opt' in m or m == 'jax'))"
    before = ["gnomon.optimizers", "gnomon.optimizers._names"]
    assert run(f"import sys, gnomon.optimizers as o; dir(o); {loaded}") == before
    after = run(f"import sys, gnomon.optimizers as o; o.adamp; {loaded}")
    assert {"gnomon.optimizers.norms.adamp", "jax"} <= set(after)
    assert "gnomon.optimizers.polyak.momo" not in after


def test_every_form_of_import():
    script = (
        "from gnomon.optimizers import *\n"
        "from gnomon.optimizers import matrices, norms\n"
        "import gnomon.optimizers.polyak.sps as module\n"
        "print(adamp.__name__, matrices.__name__, sps is module.sps, norms.__name__)"
    )
    assert run(script) == [
        "adamp",
        "gnomon.optimizers.matrices",
        "True",
        "gnomon.optimizers.norms",
    ]


def test_functions_and_states_go_through_pickle_and_inspect():
    for name in ("adamp", "ScaleByAdamPState"):
        made = getattr(optimizers, name)
        assert pickle.loads(pickle.dumps(made)) is made
        assert inspect.getsourcefile(made).endswith("adamp.py")
    assert optimizers.__file__.endswith("__init__.py")


def test_a_typo_is_told():
    with pytest.raises(AttributeError, match="no attribute 'adam_p'; did you mean 'ad"):
        optimizers.adam_p  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        optimizers.zzz  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'adam_p'"):
        exec("from gnomon.optimizers import adam_p")


def test_a_name_that_two_modules_list_is_refused(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text('__all__ = ["twice"]\n')
    monkeypatch.setattr(_names, "HERE", tmp_path)
    with pytest.raises(ValueError, match=r"'twice' is public in .*one and .*two"):
        _names.modules_by_name.__wrapped__()


def test_the_stub_is_current():
    """``make format`` writes it."""
    assert optimizers_stub.STUB.read_text() == optimizers_stub.stub()
