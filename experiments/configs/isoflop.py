"""IsoFLOP curves of one optimizer: which size is best at each budget of compute?

    python -m gnomon.experiments.sweep --config=experiments/configs/isoflop.py \
        --workdir=runs/isoflop

A byte language model at five sizes, each trained for as many steps as four budgets pay
for. Learning rates are three about a law in width and steps, a factor of two apart,
and widened where the best is the first or last. The report draws the parabola of each
budget, the frontier, and the law of loss in size and length.

``isoflop.py:optimizer=adamp,rule=aspect`` takes another optimizer and adds depth with
width; ``isoflop.py:tiny`` is a look at it: three sizes, two budgets, one seed.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from gnomon.experiments.config import parse_arg
from gnomon.experiments.config.grid import chain, logspace, over, product
from gnomon.experiments.configs import lm
from gnomon.experiments.configs.budgets import sized, steps_for
from gnomon.experiments.configs.optimizers import optimizer

WIDTHS: Sequence[int] = (8, 12, 16, 24, 32)
BUDGETS: Sequence[float] = (2.5e9, 5e9, 1e10, 2e10)  # training FLOPs
SEEDS: Sequence[int] = (0, 1, 2)
BATCH = 4
LENGTH = 64
HEAD = 4

# The best rate is c width^-a steps^-b: c, a and b of each optimizer, from three seeds
# at five smaller sizes.
RATES = {
    "adamw": (4.0, 1.2, 0.3),
    "adamp": (4.0, 1.2, 0.3),
    "muon": (2.0, 0.7, 0.34),
    "hyperball": (2.35, 0.61, 0.45),
}
# The embedding and the gains of a hyperball take its rate, under its schedule.
SETTINGS = {"hyperball": {"free_learning_rate": None}}


def best_rate(line: str, width: int, steps: int) -> float:
    """Where the law expects the best learning rate.

    Args:
      line: of `optimizers.py`; one without a law takes AdamW's.
      width: features of the model.
      steps: of training.

    Example:
      >>> print(f"{best_rate('adamw', 32, 400):.3g}")
      0.0104
    """
    scale, by_width, by_steps = RATES.get(line, RATES["adamw"])
    return scale * width**-by_width * steps**-by_steps


def base(arg: str = "", **known: Any):
    """The config that every trial of these sweeps starts from, and the options."""
    options = parse_arg(arg, tiny=False, rule="width", **known)
    config = lm.get_config(f"length={LENGTH}")
    config.batch = BATCH
    config.model.head_dim = HEAD  # more width is more heads, not larger ones
    config.evaluate = dict(every=0, batches=4, batch=128)
    config.checkpoint_every = 1000
    config.log_every = 100
    config.tensorboard = False
    config.tuning = dict(widen=3, interpolate=True)
    return config, options


def cells(
    config: Any,
    label: str,
    line: str,
    widths: Iterable[int],
    budgets: Sequence[float],
    seeds: Iterable[int],
    rule: str = "width",
) -> list[dict[str, Any]]:
    """One optimizer at every size and budget, three rates and all seeds each."""
    found = []
    spec = {**optimizer(line), **SETTINGS.get(line, {})}
    for width in widths:
        size = sized(width, rule)
        model = {**config.model, "width": width, "depth": size["model.depth"]}
        for budget in budgets:
            steps = steps_for(budget, model, config.batch, (config.data.length,))
            best = best_rate(line, width, steps)
            found += product(
                [{"label": label, "optimizer": spec, **size}],
                over("steps", [steps]),
                over("optimizer.learning_rate", logspace(best / 2, best * 2, 3)),
                over("seed", seeds),
            )
    return found


def get_config(arg: str = ""):
    """The config every trial starts from."""
    config, options = base(arg, optimizer="adamw")
    config.optimizer = optimizer(options.optimizer)
    config.report.baseline = options.optimizer
    return config


def sweep(arg: str = ""):
    """Sizes times budgets times rates times seeds."""
    config, options = base(arg, optimizer="adamw")
    widths, budgets, seeds = WIDTHS, BUDGETS, SEEDS
    if options.tiny:
        widths, budgets, seeds = WIDTHS[:3], BUDGETS[:2], SEEDS[:1]
    line = options.optimizer
    return chain(cells(config, line, line, widths, budgets, seeds, options.rule))
