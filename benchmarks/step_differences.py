"""How far a step in parts is from the plain step.

    python benchmarks/step_differences.py

One step of a small transformer in float32 on the CPU, from the same parameters on the
same batch: by micro-batches, with blocks that run twice, with logits in chunks, with
JAX's TPU kernel for attention (interpreted), and with all of them. Differences are
those of the gradient, the largest of any leaf, over that leaf's largest entry; that of
the loss is over the loss. Float32 resolves 6e-8.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _timing import environment, table, write
from jax.experimental.pallas import tpu as pltpu

from gnomon.experiments.config import defaults, override, plain
from gnomon.experiments.config.trials import split
from gnomon.experiments.trial.program import initial_state
from gnomon.experiments.trial.step import objective, parts_of

BATCH, LENGTH, VOCAB = 8, 128, 256
SMALL = {
    "model.name": "gnomon.models.TransformerLM",
    "model.vocab": VOCAB,
    "model.width": 64,
    "model.depth": 2,
    "model.scan": True,
    "batch": BATCH,
}
WAYS: dict[str, dict[str, Any]] = {
    "accumulate=4": {"accumulate": 4},
    "remat=full": {"model.remat": "full"},
    "remat=projections": {"model.remat": "projections"},
    "logits_chunk=48": {"model.logits_chunk": 48},
    "attention=tpu": {"model.attention": "tpu"},
}
WAYS["all"] = {key: value for way in WAYS.values() for key, value in way.items()}
COLUMNS = {"step": "", "loss": ".1e", "gradient": ".1e"}


def taken(changes: dict[str, Any], batch: dict[str, Any]) -> tuple[Any, Any]:
    """The loss and the gradient of the first step of a config."""
    config = override(plain(defaults()), SMALL | changes)
    static, traced = split(config)
    hypers = {name: jnp.asarray(value) for name, value in traced.items()}
    parts = parts_of(static)

    @jax.jit
    def first():
        state = initial_state(parts, jnp.uint32(0), hypers, batch)
        found = objective(parts, state, batch).take(state.params, lambda outputs: None)
        return found.loss, found.grads

    with pltpu.force_tpu_interpret_mode():
        return jax.device_get(first())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a JSON file for the table")
    flags = parser.parse_args()
    tokens = np.random.default_rng(0).integers(0, VOCAB, (BATCH, LENGTH + 1))
    batch = {"tokens": tokens.astype(np.int32)}
    loss, grads = taken({}, batch)
    rows = []
    for name, changes in WAYS.items():
        other, found = taken(changes, batch)
        gaps = jax.tree.map(
            lambda x, y: np.abs(x - y).max() / np.abs(y).max(), found, grads
        )
        rows.append(
            {
                "step": name,
                "loss": float(abs(other - loss) / loss),
                "gradient": float(max(jax.tree.leaves(gaps))),
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
