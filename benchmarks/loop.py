"""The trainer's loop beside a bare one: steps a second.

    python benchmarks/loop.py [--cases=lm-64,lm-128,digits] [--steps=400] [--quick]

``bare`` is what a person writes first: a jitted step of the same model in optax alone,
its batches gathered in NumPy by one permutation an epoch, its loss read every 20 steps.
``ours`` is a run of `gnomon.experiments.trial.engine`, with its rows every 20 steps and
its checkpoints every 200, and ``single`` the same run with one step a dispatch. They
take turns, a whole run at a time. A run's rate is that between its second row and its
last one. ``behind`` is how many percent of the bare loop's rate are lost, by medians.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _timing
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon import models
from gnomon.experiments.config import load, override
from gnomon.experiments.config.trials import make_trial
from gnomon.experiments.data import load as load_data
from gnomon.experiments.trial import engine
from gnomon.experiments.trial.lanes import compile_lanes

RESULTS = Path(__file__).parent / "results" / "loop.json"
CASES = {
    "lm-64": "lm.py:width=64",
    "lm-128": "lm.py:width=128,depth=4,length=128",
    "digits": "digits_mlp.py",
}
EVERY = 20
GOAL = 3.0
COLUMNS = {
    "case": "",
    "bare": ".1f",
    "single": ".1f",
    "ours": ".1f",
    "single_behind": ".1f",
    "behind": ".1f",
    "goal": ".0f",
}


def bare(config: dict[str, Any], dataset: Any) -> Callable[[], float]:
    """A run without gnomon's trainer; returns its steps a second."""
    spec = dict(config["model"])
    model = models.functional(getattr(models, spec.pop("name").split(".")[-1]), **spec)
    steps, batch = config["steps"], config["batch"]
    optimizer = {k: v for k, v in config["optimizer"].items() if k != "name"}
    peak = optimizer.pop("learning_rate")
    warmup = round(config["schedule"]["warmup"] * steps)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)
    transform = optax.adamw(schedule, **optimizer)

    def loss_of(params: Any, stats: Any, examples: dict[str, jax.Array]) -> jax.Array:
        if "tokens" in examples:
            tokens = examples["tokens"].astype(jnp.int32)
            inputs, labels = tokens[:, :-1], tokens[:, 1:]
        else:
            inputs = examples["image"].astype(jnp.float32) / 255.0
            labels = examples["label"]
        logits, _ = model.apply(params, stats, inputs, train=True, key=None)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits.astype(jnp.float32), labels
        )
        return losses.mean()

    @jax.jit
    def start(key: jax.Array) -> tuple:
        params, stats = model.init(key)
        return params, stats, transform.init(params)

    def step(params: Any, stats: Any, state: Any, examples: dict) -> tuple:
        loss, gradients = jax.value_and_grad(loss_of)(params, stats, examples)
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    donating = jax.jit(step, donate_argnums=(0, 2))
    examples = dataset.train
    count = len(next(iter(examples.values())))

    def run() -> float:
        params, stats, state = start(jax.random.key(0))
        generator = np.random.default_rng(0)
        order = generator.permutation(count)
        at, first, last = 0, 0.0, 0.0
        for number in range(1, steps + 1):
            if at + batch > count:
                order, at = generator.permutation(count), 0
            index, at = order[at : at + batch], at + batch
            picked = {name: array[index] for name, array in examples.items()}
            params, state, loss = donating(params, stats, state, picked)
            if number % EVERY == 0:
                float(loss)
                last = time.perf_counter()
                first = last if number == 2 * EVERY else first
        return (steps // EVERY * EVERY - 2 * EVERY) / (last - first)

    return run


def ours(config: dict[str, Any], dataset: Any) -> Callable[[], float]:
    """A run of the trainer's; returns its steps a second."""
    trial = make_trial(config)
    lanes = compile_lanes([trial], dataset)

    def run() -> float:
        read: list[tuple[int, float]] = []

        def watch(tick: Any) -> None:
            if tick.losses is not None:
                read.append((tick.step, time.perf_counter()))

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            chunk = engine.Chunk([trial], [folder], folder / "checkpoints")
            engine.run(chunk, lanes, dataset, flops_per_step=1.0, watch=watch)
        # The last row waits for the evaluation at the end.
        (first, begin), (last, end) = read[1], read[-2]
        return (last - first) / (end - begin)

    return run


def main() -> None:
    """Measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few steps, to try it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.repeats = 100, 1
    record = _timing.environment()
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    rows = []
    for case in arguments.cases.split(","):
        changes = {
            "steps": arguments.steps,
            "tensorboard": False,
            "evaluate": {"every": 0, "batches": 1, "batch": 16},
            "log_every": EVERY,
        }
        config = override(load(CASES[case]), changes)
        dataset = load_data(config["data"])
        single = override(config, {"steps_per_dispatch": 1})
        runs = {
            "bare": bare(config, dataset),
            "single": ours(single, dataset),
            "ours": ours(config, dataset),
        }
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(1 + arguments.repeats):
            for name in list(runs) if number % 2 else reversed(list(runs)):
                rate = runs[name]()
                if number:
                    rates[name].append(rate)
        medians = {name: statistics.median(rate) for name, rate in rates.items()}
        rows.append(
            {
                "case": case,
                **medians,
                "single_behind": 100 * (1 - medians["single"] / medians["bare"]),
                "behind": 100 * (1 - medians["ours"] / medians["bare"]),
                "goal": GOAL,
                "samples": rates,
            }
        )
    print(_timing.table(rows, COLUMNS))
    _timing.write(arguments.out, {**record, "steps": arguments.steps, "rows": rows})


if __name__ == "__main__":
    main()
