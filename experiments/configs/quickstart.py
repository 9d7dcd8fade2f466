"""AdamW against AdamP on real text, at three widths: the suite's first verdict.

    python -m gnomon.experiments.sweep --config=experiments/configs/quickstart.py \
        --workdir=runs/quickstart

Each optimizer is tuned over its own five learning rates at each width, with three
seeds that both share. The baseline also runs shorter and longer, so that its own
tuned curve says how much compute it needs to reach the other's loss.

180 trials, about five minutes on two CPU cores. Seen there with jax 0.10.2 on Python
3.11.7: AdamP 1.00x [0.99, 1.02] as fast as AdamW, no difference shown and no trend with
width; tuned losses of AdamW at 200 steps 2.400, 2.280 and 2.224 nats a byte. The text
is that of the running Python, so other versions give somewhat other numbers.
"""

from gnomon.experiments.config.grid import chain, logspace, over, product
from gnomon.experiments.configs import lm
from gnomon.experiments.configs.optimizers import optimizer

STEPS = 200
SEEDS = (0, 1, 2)


def tuning(width: int):
    """Five learning rates around where the best is expected, which falls as 1/width."""
    rates = logspace(9.6e-2 / width, 1.536 / width, 5)
    return product(
        over("model.width", [width]),
        over("optimizer.learning_rate", rates),
        over("seed", SEEDS),
    )


def get_config(arg: str = ""):
    """The config every trial starts from."""
    config = lm.get_config(arg)
    config.steps = STEPS
    config.evaluate = dict(every=0, batches=4, batch=128)
    config.checkpoint_every = 70
    config.tensorboard = False
    config.report.baseline = "AdamW"
    return config


def sweep():
    """Both optimizers, tuned alike; the baseline at three lengths."""
    grid = chain(tuning(16), tuning(32), tuning(64))
    adamw = [{"label": "AdamW", "optimizer": optimizer("adamw")}]
    adamp = [{"label": "AdamP", "optimizer": optimizer("adamp")}]
    lengths = over("steps", (STEPS * 7 // 10, STEPS, STEPS * 14 // 10))
    return chain(product(adamw, lengths, grid), product(adamp, grid))
