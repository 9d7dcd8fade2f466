"""AdamW against AdamP on real text, at three widths: the suite's first verdict.

    python -m gnomon.experiments.sweep --config=experiments/configs/quickstart.py \
        --workdir=runs/quickstart

Each optimizer is tuned over its own five learning rates at each width, with three
seeds that both share. The baseline also runs shorter and longer, so that its own
tuned curve says how much compute it needs to reach the other's loss.
"""

from gnomon.experiments.configs import lm
from gnomon.experiments.configs.optimizers import optimizer
from gnomon.experiments.sweeps import chain, logspace, over, product

STEPS = 240
WIDTHS = (16, 32, 64)
LEARNING_RATES = logspace(1.5e-3, 2.4e-2, 5)
SEEDS = (0, 1, 2)


def get_config(arg: str = ""):
    """The config every trial starts from."""
    config = lm.get_config(arg)
    config.steps = STEPS
    config.evaluate = dict(every=80, batches=4, batch=128)
    config.checkpoint_every = 80
    config.tensorboard = False
    config.report.baseline = "AdamW"
    return config


def sweep():
    """Both optimizers, tuned alike; the baseline at three lengths."""
    tuning = product(
        over("model.width", WIDTHS),
        over("optimizer.learning_rate", LEARNING_RATES),
        over("seed", SEEDS),
    )
    adamw = [{"label": "AdamW", "optimizer": optimizer("adamw")}]
    adamp = [{"label": "AdamP", "optimizer": optimizer("adamp")}]
    lengths = over("steps", (STEPS * 7 // 10, STEPS, STEPS * 14 // 10))
    return chain(product(adamw, lengths, tuning), product(adamp, tuning))
