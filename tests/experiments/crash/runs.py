"""The two runs that are broken: one `train`, one sweep; tiny, and compiled once."""

import contextlib
import functools
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gnomon.experiments import sweep, train
from gnomon.experiments.config import defaults, override, plain
from gnomon.experiments.config.grid import over
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.records.files import read_json
from gnomon.experiments.trial import checkpoint
from gnomon.experiments.trial.checkpoint import Checkpoints

CONFIG = {
    "steps": 6,
    "batch": 4,
    "task": "gnomon.experiments.tasks.classification",
    "model": {
        "name": "gnomon.models.MLP",
        "inputs": 13,
        "widths": [4],
        "classes": 3,
    },
    "data": {"name": "wine"},
    "optimizer": {"name": "optax.adamw", "learning_rate": 1e-2},
    "evaluate": {"every": 3, "batches": 1, "batch": 8},
    "log_every": 1,
    "checkpoint_every": 2,
    "tensorboard": False,
}


class Eager:
    """An executor whose background is the foreground: a save is written at once."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def submit(self, function: Any, *arguments: Any) -> "Eager":
        function(*arguments)
        return self

    def result(self) -> None:
        pass

    def shutdown(self) -> None:
        pass


class Late(Eager):
    """A save is written as late as it may be: when somebody waits for it."""

    def __init__(self, *_: Any, **__: Any):
        self._work: list[Any] = []

    def submit(self, function: Any, *arguments: Any) -> "Late":
        self._work.append((function, arguments))
        return self

    def result(self) -> None:
        while self._work:
            function, arguments = self._work.pop()
            function(*arguments)


def _hash(tree: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _files(folder: Path) -> dict[str, Any]:
    result = read_json(folder / "result.json")
    result.pop("seconds")
    return {
        "result": result,
        "metrics": (folder / "metrics.jsonl").read_text(),
        "config": read_json(folder / "config.json"),
    }


def _litter(workdir: Path) -> list[str]:
    return sorted(path.name for path in workdir.rglob("*.tmp"))


@contextlib.contextmanager
def _patched(executor: Any, **functions: Any) -> Iterator[None]:
    wanted = [(train, name, function) for name, function in functions.items()]
    if executor is not None:
        wanted.append((checkpoint, "ThreadPoolExecutor", executor))
    before = [(module, name, getattr(module, name)) for module, name, _ in wanted]
    try:
        for module, name, value in wanted:
            setattr(module, name, value)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class Train:
    """``train`` in a folder."""

    def __init__(self, executor: Any, **changes: Any):
        self.config = override(plain(defaults()), CONFIG | changes)
        # The program is the same each time: what a rerun compiles is not the question.
        names = ("trace", "compile_lanes", "flops_per_step")
        once = {name: _Once(getattr(train, name)) for name in names}
        self._patched = functools.partial(_patched, executor, **once)

    def run(self, workdir: Path) -> None:
        """Trains, or goes on."""
        with self._patched():
            train.train(self.config, workdir)

    def load(self, workdir: Path) -> Any:
        """The saved state."""
        with self._patched():
            return train.load_state(str(workdir))

    def read(self, workdir: Path) -> dict[str, Any]:
        """All that must not depend on what happened on the way."""
        state = _hash(self.load(workdir))
        return {"state": state, "litter": _litter(workdir), **_files(workdir)}


class Sweep:
    """Four trials in two chunks; with ``keep`` their checkpoints stay."""

    def __init__(self, executor: Any, keep: bool, **changes: Any):
        self._executor, self._keep = executor, keep
        config = override(plain(defaults()), CONFIG | {"steps": 4} | changes)
        rates = over("optimizer.learning_rate", [1e-3, 1e-2, 1e-1, 1.0])
        self.sweep = sweep.Sweep(make_trials(config, rates), max_lanes=2)

    def run(self, workdir: Path) -> None:
        """Runs the sweep, or what is left of it."""
        with _patched(self._executor):
            sweep.prepare(self.sweep, workdir, {})
            sweep.run_sweep(self.sweep, workdir, self._keep, stream=io.StringIO())

    def read(self, workdir: Path) -> dict[str, Any]:
        """All that must not depend on what happened on the way."""
        found: dict[str, Any] = {"litter": _litter(workdir)}
        for trial in self.sweep.trials:
            found[trial.id] = _files(workdir / "trials" / trial.id)
        for manifest in sorted(workdir.glob("chunks/*/chunk.json")) * self._keep:
            ids = read_json(manifest)["trials"]
            trials = [trial for trial in self.sweep.trials if trial.id in ids]
            target = self.sweep.lanes(trials).state
            with Checkpoints(manifest.parent / "checkpoints") as checkpoints:
                restored = checkpoints.restore(target)
            found[manifest.parent.name] = restored and _hash(restored[1])
        return found


class _Once:
    def __init__(self, function: Any):
        self._function, self._kept = function, None

    def __call__(self, *arguments: Any) -> Any:
        if self._kept is None:
            self._kept = [self._function(*arguments)]
        return self._kept[0]


RUNS = {
    "train-eager": lambda: Train(Eager),
    "train-late": lambda: Train(Late),
    "sweep-eager": lambda: Sweep(Eager, keep=True),
    "sweep-late": lambda: Sweep(Late, keep=False),
    "train-thread": lambda: Train(None),
    "sweep-thread": lambda: Sweep(None, keep=True),
}
