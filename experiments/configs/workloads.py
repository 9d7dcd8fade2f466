"""Five small real workloads: who reaches the baseline's loss in fewer steps?

    python -m gnomon.experiments.sweep --config=experiments/configs/workloads.py \
        --workdir=runs/workloads

A byte language model, an MLP and a residual network on digits, a linear model on wine
in its raw units, and matrix factorization on MovieLens-100k, which joins where its
package is installed (``python -m pip install --no-deps recbole``). AdamW, AdamP and
SGDP are tuned on each over four learning rates and three seeds, widened until the
optimum is inside; AdamW also at further lengths, until they hold the others' losses.
The report ends in times to a target and performance profiles.

Without further lengths about nine minutes on two CPU cores. What was seen then is in
``docs/leaderboard.md``.
"""

import importlib.util
from typing import Any

from gnomon.experiments.config import defaults
from gnomon.experiments.config.grid import chain, logspace, over, product
from gnomon.experiments.configs.optimizers import optimizer

SEEDS = (0, 1, 2)

# What each workload overrides, and the middle of each optimizer's grid on it.
WORKLOADS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "language model": (
        {
            "model": dict(
                name="gnomon.models.TransformerLM", vocab=256, width=32, depth=2
            ),
            "task": "gnomon.experiments.tasks.next_token",
            "data": dict(name="stdlib_text", length=64),
            "batch": 16,
            "steps": 240,
        },
        {"AdamW": 2e-2, "AdamP": 2e-2, "SGDP": 0.4},
    ),
    "MLP": (
        {
            "model": dict(
                name="gnomon.models.MLP", inputs=784, widths=(32, 32), classes=10
            ),
            "task": "gnomon.experiments.tasks.classification",
            "data": dict(name="digits"),
            "batch": 64,
            "steps": 240,
        },
        {"AdamW": 5e-3, "AdamP": 5e-3, "SGDP": 0.1},
    ),
    "residual network": (
        {
            "model": dict(
                name="gnomon.models.ResNet", width=4, blocks=(1, 1, 1), classes=10
            ),
            "task": "gnomon.experiments.tasks.classification",
            "data": dict(name="digits"),
            "batch": 32,
            "steps": 120,
        },
        {"AdamW": 1e-2, "AdamP": 1e-2, "SGDP": 0.1},
    ),
    "wine": (
        {
            "model": dict(name="gnomon.models.MLP", inputs=13, widths=(), classes=3),
            "task": "gnomon.experiments.tasks.classification",
            "data": dict(name="wine"),
            "batch": 32,
            "steps": 600,
        },
        {"AdamW": 1e-1, "AdamP": 1e-1, "SGDP": 1e-6},
    ),
    "movielens": (
        {
            "model": dict(
                name="gnomon.models.Factorization",
                rows=943,
                columns=1682,
                rank=8,
                mean=3.5,
            ),
            "task": "gnomon.experiments.tasks.rating",
            "data": dict(name="movielens"),
            "batch": 256,
            "steps": 400,
        },
        {"AdamW": 1e-2, "AdamP": 1e-2, "SGDP": 3.0},
    ),
}
LINES = {"AdamW": "adamw", "AdamP": "adamp", "SGDP": "sgdp"}


def get_config():
    """The config every trial starts from."""
    config = defaults()
    config.optimizer = optimizer("adamw")
    config.schedule.warmup = 0.1
    config.evaluate = dict(every=20, batches=8, batch=32)
    config.checkpoint_every = 120
    config.tensorboard = False
    config.report.baseline = "AdamW"
    config.tuning = dict(widen=4, interpolate=True, lengthen=4)
    return config


def sweep():
    """Every optimizer on every workload; the baseline at three lengths."""
    installed = importlib.util.find_spec("recbole") is not None
    parts = []
    for name, (overrides, centers) in WORKLOADS.items():
        if name == "movielens" and not installed:
            continue
        lengths = [overrides["steps"] * factor // 10 for factor in (7, 10, 14)]
        for label, line in LINES.items():
            low = centers[label] / 2**1.5
            parts.append(
                product(
                    [overrides | {"label": label, "optimizer": optimizer(line)}],
                    over("optimizer.learning_rate", logspace(low, 8 * low, 4)),
                    over("seed", SEEDS),
                )
            )
            if label == "AdamW":
                parts[-1] = [
                    trial | {"steps": steps} for steps in lengths for trial in parts[-1]
                ]
    return chain(*parts)
