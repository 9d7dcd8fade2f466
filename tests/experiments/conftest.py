"""A run small enough to train many times, on the real data path."""

import importlib
import importlib.util
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from gnomon.experiments.config import defaults, override, plain
from gnomon.experiments.records.files import write_json

# Each needs an extra. That for tests has them, but Ray, which `make test-ray` installs.
NEEDS = {
    "ray": "fleet/test_ray.py",
    "submitit": "fleet/test_on_slurm.py",
    "optuna": "tuning/test_sampling.py",
}
collect_ignore = [
    file for name, file in NEEDS.items() if not importlib.util.find_spec(name)
]

TINY = {
    "steps": 12,
    "batch": 4,
    "model": {
        "name": "gnomon.models.TransformerLM",
        "vocab": 256,
        "width": 16,
        "depth": 1,
    },
    "data": {
        "name": "stdlib_text",
        "length": 16,
        "train_bytes": 20_000,
        "validation_bytes": 4_000,
    },
    "optimizer": {
        "name": "optax.adamw",
        "learning_rate": 1e-3,
        "b1": 0.9,
        "weight_decay": 0.01,
    },
    "evaluate": {"every": 6, "batches": 2, "batch": 8},
    "log_every": 3,
    "checkpoint_every": 4,
    "tensorboard": False,
}

# As a config file, with every field open to a sweep in a subprocess.
SWEEP_FILE = """
from gnomon.experiments.config import defaults
from gnomon.experiments.config.grid import over, product

def get_config():
    config = defaults()
    config.update({tiny!r})
    return config

def sweep():
    return {sweep}
"""


@pytest.fixture(scope="module")
def optax_promotion():
    """optax raises a traced float to an integer count, which strict mode refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def tiny():
    """Makes a small config, with changes."""

    def make(**changes):
        base = override(plain(defaults()), TINY)
        return override(base, {k.replace("__", "."): v for k, v in changes.items()})

    return make


@pytest.fixture
def folder_of(tmp_path):
    """Writes a sweep's folder from rows of what differs, as if they had been run."""

    def write(rows: list[dict], baseline: str = "") -> Path:
        workdir = tmp_path / "study"
        ids = []
        for number, row in enumerate(rows):
            ids.append(f"{number:012d}")
            loss = row.get("loss", 2.0)
            config = {
                "label": row["label"],
                "seed": row.get("seed", 0),
                "steps": 10,
                "model": {"name": "m", "width": 8},
                "data": {"name": "d"},
                "optimizer": {"name": "o"} | row["optimizer"],
                "report": {"baseline": baseline, "metric": "validation_loss"},
                "tuning": row.get("tuning", {}),
            }
            good = loss is not None and math.isfinite(loss)
            result = {
                "status": "finished" if good else "diverged",
                "final": {"validation_loss": loss},
                "parameters": 100,
                "compute": 1e9,
                "units": 100,
                "data": {"name": "d", "fingerprint": "f"},
                "versions": {"python": "3"},
                "device": "a chip",
                "seconds": 1.0,
            }
            write_json(workdir / "trials" / ids[-1] / "config.json", config)
            write_json(workdir / "trials" / ids[-1] / "result.json", result)
        about = {"command": ["sweep.py", "--config=x.py"], "trials": ids}
        write_json(workdir / "sweep.json", about)
        return workdir

    return write


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A cache that all started processes share: only the first one compiles."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module", autouse=True)
def compiled_here(compiled):
    """The same cache within the process of the tests, which train small runs anew."""
    names = [name.lower() for name in compiled]
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in compiled.items():
        jax.config.update(name.lower(), value if "DIR" in name else int(value))
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def command(tmp_path, compiled):
    """Starts ``python -m gnomon.experiments.<name>`` as a user would."""
    started = []

    def start(name: str, *arguments: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", f"gnomon.experiments.{name}", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            env=os.environ | compiled,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        if not process.stdout.closed:
            process.communicate()


@pytest.fixture(scope="session")
def sweep_file(tmp_path_factory):
    """Writes a config file whose ``sweep()`` is the given expression."""

    def write(sweep: str, **changes) -> Path:
        path = tmp_path_factory.mktemp("config") / "tiny_sweep.py"
        path.write_text(SWEEP_FILE.format(tiny=TINY | changes, sweep=sweep))
        return path

    return write


# A config file, open to a sweep within the process.
FILE = """
from gnomon.experiments.config import defaults

def get_config():
    config = defaults()
    config.update({tiny!r})
    return config

def sweep():
    return [{{}}]
"""


@pytest.fixture
def workplace(tmp_path, tiny, monkeypatch):
    """The current folder, with a small config and its sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("gnomon.experiments.config.cli.configure_jax", lambda: None)
    config = tiny()
    config.pop("report")
    (tmp_path / "small.py").write_text(FILE.format(tiny=config))
    (tmp_path / "a_file").write_text("text")
    return tmp_path


@pytest.fixture
def refused(workplace, capsys):
    """Runs a command that must be refused, and write nothing; returns its line."""

    def files():
        paths = [path for path in workplace.rglob("*") if path.is_file()]
        return {p: p.stat().st_mtime_ns for p in paths if "pycache" not in str(p)}

    def run(command, words, status=2):
        before = files()
        module = "data.__main__" if command == "data" else command
        entry = importlib.import_module(f"gnomon.experiments.{module}").run
        with pytest.raises(SystemExit) as ended:
            entry(words if command == "data" else [command, *words])
        line = capsys.readouterr().err
        assert ended.value.code == status, line
        assert re.fullmatch(r"[^\n]+\n", line), f"{line.count(chr(10))} lines: {line}"
        assert files() == before, "something was written"
        return line

    return run
