"""Which law does each optimizer follow, and is a speedup a constant or does it change?

    python -m gnomon.experiments.sweep --config=experiments/configs/scaling_law.py \
        --workdir=runs/law

AdamW, Muon, AdamP and Adam on the hyperball train a byte language model at five sizes
and four budgets of compute, three rates and three seeds each: 720 trials before grids
are widened. The report draws IsoFLOP parabolas and the frontier of each, and ends in a
joint law: what each optimizer makes of parameters and of tokens, beside AdamW.

The stored run has 837 trials after widening, in 19 minutes of CPU time with jax 0.10.2
on Python 3.11.7; what was seen is in ``docs/leaderboard.md``. The machine had other
work, so that its times a step say little.

``scaling_law.py:tiny`` has two optimizers, three sizes, three budgets and two seeds.
``rule=aspect`` adds depth with width.
"""

from gnomon.experiments.config.grid import chain
from gnomon.experiments.configs.isoflop import BUDGETS, SEEDS, WIDTHS, base, cells
from gnomon.experiments.configs.optimizers import optimizer

LINES = {"AdamW": "adamw", "Muon": "muon", "AdamP": "adamp", "Hyperball": "hyperball"}


def get_config(arg: str = ""):
    """The config every trial starts from."""
    config, _ = base(arg)
    config.optimizer = optimizer("adamw")
    config.report.baseline = "AdamW"
    return config


def sweep(arg: str = ""):
    """Every optimizer over the same sizes and budgets."""
    config, options = base(arg)
    lines, widths, budgets, seeds = LINES, WIDTHS, BUDGETS, SEEDS
    if options.tiny:
        lines = {label: LINES[label] for label in ("AdamW", "Muon")}
        widths, budgets, seeds = (4, 8, 16), (6e8, 1.2e9, 2.4e9), SEEDS[:2]
    return chain(
        *(
            cells(config, label, line, widths, budgets, seeds, options.rule)
            for label, line in lines.items()
        )
    )
