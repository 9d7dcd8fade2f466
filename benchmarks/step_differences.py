"""How far a step in parts, or on several devices, is from the plain step.

    python benchmarks/step_differences.py

Three steps of SGD of a small transformer in float32 on CPU devices, from the same
parameters on the same batches, by the program that a trial runs: by micro-batches, with
layers that are not scanned, blocks that run twice, logits in chunks, all of these, with
JAX's TPU kernel for attention (interpreted), three steps in one dispatch, cut over four
devices or eight, and with parameters stored in bfloat16. The difference of the loss is
that of its sum over the steps, over the sum; that of the parameters is the largest of
any leaf where they end, over the largest way that the leaf has moved: some thousandths
of its size, by which rounding counts. Float32 resolves 6e-8 of a number, bfloat16 4e-3.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _timing import environment, table, write
from jax.experimental.pallas import tpu as pltpu

from gnomon.experiments.config import defaults, override, plain
from gnomon.experiments.config.trials import make_trial
from gnomon.experiments.data import Dataset
from gnomon.experiments.trial.lanes import compile_lanes, hypers_of, seeds_of

STEPS, BATCH, LENGTH, VOCAB = 3, 4, 128, 256
SMALL = {
    "model.name": "gnomon.models.TransformerLM",
    "model.vocab": VOCAB,
    "model.width": 64,
    "model.head_dim": 64,  # one head: the interpreter takes a second for each and more
    "model.depth": 2,
    "model.scan": True,
    "batch": BATCH,
    "optimizer": {"name": "optax.sgd", "learning_rate": 0.3},
    "schedule": {"name": "gnomon.experiments.schedules.constant"},
    "steps_per_dispatch": 1,
}
WAYS: dict[str, dict[str, Any]] = {
    "accumulate=2": {"accumulate": 2},
    "scan=False": {"model.scan": False},
    "remat=full": {"model.remat": "full"},
    "remat=projections": {"model.remat": "projections"},
    "logits_chunk=48": {"model.logits_chunk": 48},
}
WAYS["all of these"] = {key: x for way in WAYS.values() for key, x in way.items()}
WAYS |= {
    "attention=tpu": {"model.attention": "tpu"},
    "steps_per_dispatch=3": {"steps_per_dispatch": STEPS},
    "mesh: data=4": {"mesh": {"data": 4, "model": 1, "rules": []}},
    "mesh: data=4, rules=fsdp": {"mesh": {"data": 4, "model": 1, "rules": "fsdp"}},
    "mesh: data=4, rules=zero1": {"mesh": {"data": 4, "model": 1, "rules": "zero1"}},
    "mesh: data=4, model=2, rules=fsdp": {
        "mesh": {"data": 4, "model": 2, "rules": "fsdp"}
    },
    "parameters in bfloat16, nearest": {"parameters.dtype": "bfloat16"},
    "parameters in bfloat16, stochastic": {
        "parameters.dtype": "bfloat16",
        "parameters.rounding": "stochastic",
    },
}
COLUMNS = {"step": "", "loss": ".1e", "parameters": ".1e"}


def taken(changes: dict[str, Any], data: Dataset) -> tuple[float, Any, Any]:
    """The summed loss of a few steps, and the parameters before and after."""
    trials = [make_trial(override(plain(defaults()), SMALL | changes))]
    lanes = compile_lanes(trials, data)
    (seeds, _, which), hypers = seeds_of(trials), hypers_of(trials)
    state = lanes.init(seeds, hypers)
    before = _layers(state.params)
    tokens = data.train["tokens"][:].reshape(STEPS, 1, BATCH, -1)
    if lanes.most == 1:
        for step in range(STEPS):
            state = lanes.step(state, {"tokens": tokens[step]}, which, hypers)
        window = state.window
    else:
        blocks = jax.device_put({"tokens": tokens}, lanes.place.blocks)
        how = np.int32(STEPS), np.bool_(False)
        state, seen = lanes.steps(state, blocks, *how, which, hypers)
        window = seen.window
    return float(window["loss"][0]), before, _layers(state.params)


def _layers(params: Any) -> dict[str, Any]:
    """Parameters in float32, layers stacked, on the host."""
    found = jax.tree.map(lambda x: np.asarray(x[0], np.float32), params)
    blocks = found.pop("blocks")
    if "stacked" not in blocks:
        layers = [blocks[str(layer)] for layer in range(len(blocks))]
        blocks = {"stacked": jax.tree.map(lambda *x: np.stack(x), *layers)}
    return found | {"blocks": blocks}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a JSON file for the table")
    flags = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    shape = STEPS * BATCH, LENGTH + 1
    tokens = np.random.default_rng(0).integers(0, VOCAB, shape).astype(np.int32)
    data = Dataset({"tokens": tokens}, {"tokens": tokens}, "", "token")
    loss, before, after = taken({}, data)
    rows = []
    for name, changes in WAYS.items():
        with pltpu.force_tpu_interpret_mode():
            other, _, found = taken(changes, data)
        gaps = jax.tree.map(
            lambda x, y, z: np.abs(x - y).max() / np.abs(y - z).max(),
            *(found, after, before),
        )
        rows.append(
            {
                "step": name,
                "loss": abs(other - loss) / loss,
                "parameters": float(max(jax.tree.leaves(gaps))),
            }
        )
    print(table(rows, COLUMNS))
    if flags.output is not None:
        about = environment()
        kept = {name: about[name] for name in ("command", "date", "versions")}
        write(flags.output, kept | {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
