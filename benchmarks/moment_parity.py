"""Does training with moments in eight bits end where training with 32 bits ends?

    python benchmarks/moment_parity.py [--seeds=3] [--steps=240] [--width=32]

Trains the byte language model with AdamW and AdamP, each with its moments in float32,
in eight bits rounded at random, and in eight bits rounded to nearest, on the same data,
seeds and order. Every leaf is coded, the smallest too (`min_size` 0): on a model this
small the default would leave half of them alone. `bytes` are those of the trained
optimizer state over the number of parameters; `difference` is the mean over seeds of
the final validation loss less that of the same seed in float32, `sd` its standard
deviation over seeds, and `seed_sd` that of the loss of float32 itself.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import jax
from _timing import environment, table, write

from gnomon.experiments.config import plain
from gnomon.experiments.configs.lm import get_config
from gnomon.experiments.train import load_state, train

RESULTS = Path(__file__).parent / "results" / "moment_parity.json"
METHODS = ("adamw", "adamp")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("", {}),
    "8 bits": ("_8bit", {"min_size": 0}),
    "8 bits, to nearest": ("_8bit", {"min_size": 0, "stochastic": False}),
}
COLUMNS = {
    "optimizer": "",
    "moments": "",
    "bytes": ".3f",
    "loss": ".4f",
    "difference": "+.4f",
    "sd": ".4f",
    "seed_sd": ".4f",
}


def run(name: str, changes: dict[str, Any], seed: int, steps: int, width: int):
    """The final validation loss, and the state's bytes a parameter."""
    config = get_config(f"width={width},steps={steps},optimizer={name}")
    config.tensorboard = False
    config.seed = seed
    config = plain(config)
    config["optimizer"] |= changes
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, Path(folder))
        state = load_state(Path(folder))
    leaves = jax.tree.leaves(state.opt_state)
    nbytes = sum(leaf.nbytes for leaf in leaves)
    loss = result["final"]["validation_loss"]
    print(f"{name} {changes}, seed {seed}: {loss:.5f}", flush=True)
    return loss, nbytes / result["parameters"]


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument(
        "--moments", nargs="+", choices=VARIANTS, default=list(VARIANTS)
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    flags = parser.parse_args()
    rows = []
    for method in METHODS:
        exact: list[float] = []
        for moments in flags.moments:
            suffix, changes = VARIANTS[moments]
            name = method + suffix
            runs = [
                run(name, changes, seed, flags.steps, flags.width)
                for seed in range(flags.seeds)
            ]
            losses = [loss for loss, _ in runs]
            exact = exact or losses
            apart = [a - b for a, b in zip(losses, exact, strict=True)]
            row = {
                "optimizer": method,
                "moments": moments,
                "bytes": runs[0][1],
                "loss": statistics.mean(losses),
                "losses": losses,
            }
            if apart != [0.0] * len(apart):
                row |= {"difference": statistics.mean(apart), "sd": spread(apart)}
            else:
                row["seed_sd"] = spread(losses)
            rows.append(row)
    print(table(rows, COLUMNS))
    settings = {key: getattr(flags, key) for key in ("seeds", "steps", "width")}
    write(flags.output, environment() | settings | {"rows": rows})


if __name__ == "__main__":
    main()
