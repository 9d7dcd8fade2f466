"""ResNet-8 with batch normalization on 4,000 real 28x28 digits.

    python -m gnomon.experiments.train --config=experiments/configs/digits_resnet.py \
        --workdir=runs/digits_resnet
"""

from gnomon.experiments.config import defaults, parse_arg
from gnomon.experiments.configs.optimizers import optimizer


def get_config(arg: str = ""):
    """The config; ``arg`` sets the width of the first stage."""
    options = parse_arg(arg, width=8, steps=400, optimizer="sgdp")
    config = defaults()
    config.steps = options.steps
    config.batch = 64
    config.task = "gnomon.experiments.tasks.classification"
    config.model = dict(
        name="gnomon.models.ResNet", width=options.width, blocks=(1, 1, 1), classes=10
    )
    config.data = dict(name="digits")
    config.optimizer = optimizer(options.optimizer)
    config.schedule.warmup = 0.1
    config.evaluate = dict(every=200, batches=10, batch=100)
    return config
