"""What the probes add to a training step of the language model.

    python benchmarks/probe_cost.py [--width=128] [--depth=4] [--repeats=15] [--quick]

The programs are the trainer's own, taking turns: a plain step, a step with the free
tier, whose record is also brought to the host, named and written to `metrics.jsonl`,
and the cheap tier, with the same. ``call`` is what one call adds to training, in steps
(the free tier takes the step itself, so a step is subtracted); ``share`` is that spread
over the default period, in percent of the training time, by medians.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import _timing
import jax
import jax.numpy as jnp

from gnomon.experiments.config import load, override
from gnomon.experiments.config.trials import make_trial
from gnomon.experiments.data import load as load_data
from gnomon.experiments.records.metrics import MetricsWriter
from gnomon.experiments.trial.lanes import compile_lanes, hypers_of
from gnomon.experiments.trial.probes import columns, settings_of

RESULTS = Path(__file__).parent / "results" / "probe_cost.json"
PERIODS = {"free": 20, "cheap": 50}
GOALS = {"free": 5.0, "cheap": 10.0}
COLUMNS = {
    "tier": "",
    "period": "",
    "step_ms": ".1f",
    "tier_ms": ".1f",
    "call": ".3f",
    "share": ".2f",
    "goal": ".0f",
    "keys": "",
}


class Run:
    """One training run that can take a step, or run a tier."""

    def __init__(self, width: int, depth: int, length: int):
        config = override(
            load(f"lm.py:width={width},depth={depth},length={length}"),
            {
                "dynamics": {"free": True, "cheap_every": PERIODS["cheap"]},
                "data.train_bytes": 200_000,
                "data.validation_bytes": 20_000,
            },
        )
        self.settings = settings_of(config)
        trial = make_trial(config)
        dataset = load_data(config["data"])
        self.lanes = compile_lanes([trial], dataset)
        self.rest = (
            {
                k: jnp.asarray(v[None, : config["batch"]])
                for k, v in dataset.train.items()
            },
            jnp.zeros(1, jnp.int32),
            jax.tree.map(jnp.asarray, hypers_of([trial])),
        )
        self.state = self.lanes.init(jnp.zeros(1, jnp.uint32), self.rest[2])
        self.parameters = sum(x.size for x in jax.tree.leaves(self.state.params))
        self.writer = MetricsWriter(tempfile.mkdtemp(), tensorboard=False)
        self.keys: dict[str, int] = {}

    def step(self) -> Any:
        """A plain step."""
        self.state = self.lanes.step(self.state, *self.rest)
        return self.state

    def tier(self, name: str) -> Any:
        """A tier, and the row it writes."""
        self.state, record = self.lanes.probes[name](self.state, *self.rest)
        row = columns(record, self.state.params, self.settings)
        self.writer.write(0, {key: float(value[0]) for key, value in row.items()})
        self.keys[name] = len(row)
        return self.state


def main() -> None:
    """Measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.width, arguments.depth, arguments.length = 16, 1, 16
        arguments.repeats = 2
    record = _timing.environment()
    run = Run(arguments.width, arguments.depth, arguments.length)
    seconds = _timing.interleave(
        {
            "step": run.step,
            "free": lambda: run.tier("free"),
            "cheap": lambda: run.tier("cheap"),
        },
        repeats=arguments.repeats,
        warmup=2,
    )
    if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(run.state.params)):
        raise FloatingPointError("parameters are not finite any more")
    step = statistics.median(seconds["step"])
    rows = []
    for tier, period in PERIODS.items():
        taken = statistics.median(seconds[tier])
        added = taken - step if tier == "free" else taken
        rows.append(
            {
                "tier": tier,
                "period": period,
                "step_ms": 1e3 * step,
                "tier_ms": 1e3 * taken,
                "call": added / step,
                "share": 100 * added / step / period,
                "goal": GOALS[tier],
                "keys": run.keys[tier],
                "samples_ms": [1e3 * s for s in seconds[tier]],
            }
        )
    print(f"{run.parameters:,} parameters", file=sys.stderr)
    print(_timing.table(rows, COLUMNS))
    _timing.write(
        arguments.out,
        {
            **record,
            "width": arguments.width,
            "depth": arguments.depth,
            "length": arguments.length,
            "parameters": run.parameters,
            "step_samples_ms": [1e3 * s for s in seconds["step"]],
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
