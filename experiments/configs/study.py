"""Seven optimizers, four widths: who is faster than AdamW, and does it last?

    python -m gnomon.experiments.sweep --config=experiments/configs/study.py \
        --workdir=runs/study

AdamW, Lion, Muon, AdamP, FAdam, LAWN around Adam and AdamW on normalized weights train
a byte language model on the Python standard library's source. The protocol is the same
for each at each width: four learning rates, a factor two apart, around where its best
is expected; five seeds that all share; a rate more at an end of the grid for as long as
the best lies there; the optimum read between the rates. Everything else is what the
optimizer's paper recommends (`optimizers.py`). AdamW also runs shorter and longer, so
that its own tuned curve says how much compute it needs to reach another's loss, and at
further lengths until they hold every such loss between them.

Without further lengths: 720 trials, 62 minutes of CPU time with jax 0.10.2 on Python
3.11.7; no grid had to be widened. What was seen is in ``docs/leaderboard.md``, where
the speedups of Muon and Lion are still extrapolated.
"""

from gnomon.experiments.config.grid import chain, logspace, over, product
from gnomon.experiments.configs import lm
from gnomon.experiments.configs.optimizers import optimizer

STEPS = 200
SEEDS = (0, 1, 2, 3, 4)
WIDTHS = (16, 32, 64, 96)

# Line of configs/optimizers.py and where the best learning rate is expected, times
# the width: the middle of the grid.
OPTIMIZERS = {
    "AdamW": ("adamw", 0.7),
    "Lion": ("lion", 0.17),
    "Muon": ("muon", 1.6),
    "AdamP": ("adamp", 0.7),
    "FAdam": ("fadam", 0.5),
    "LAWN": ("lawn", 0.8),
    "Weight norm": ("weight_norm_adamw", 0.8),
}


def grid(label: str, width: int):
    """Four rates for one optimizer at one width, with every seed."""
    line, center = OPTIMIZERS[label]
    low = center / width / 2**1.5
    return product(
        [{"label": label, "optimizer": optimizer(line), "model.width": width}],
        over("optimizer.learning_rate", logspace(low, 8 * low, 4)),
        over("seed", SEEDS),
    )


def get_config(arg: str = ""):
    """The config every trial starts from."""
    config = lm.get_config(arg)
    config.steps = STEPS
    config.evaluate = dict(every=0, batches=4, batch=128)
    config.checkpoint_every = 50
    config.tensorboard = False
    config.report.baseline = "AdamW"
    config.tuning = dict(widen=4, interpolate=True, lengthen=4)
    return config


def sweep():
    """All optimizers, tuned alike; the baseline at three lengths."""
    lengths = over("steps", (STEPS * 7 // 10, STEPS, STEPS * 14 // 10))
    return chain(
        *(product(lengths, grid("AdamW", width)) for width in WIDTHS),
        *(grid(label, w) for label in OPTIMIZERS if label != "AdamW" for w in WIDTHS),
    )
