"""Does the best learning rate stay where it is when the network gets wider?

    python -m gnomon.experiments.sweep --config=experiments/configs/transfer.py \
        --workdir=runs/transfer

A byte language model at four widths, each with the same seven learning rates, under
standard parameterization with one rate for all layers and under muP. The two are the
same at the base width, 16. The report's learning-rate panels show the optimum of the
first move to smaller rates as the width grows, and how far that of the second stays.

The head dimension is the same at every width, so that width adds heads; weight decay is
off, since decay under muP has two readings (see `gnomon.optimizers.mup`).
"""

from gnomon.experiments.config.grid import chain, logspace, over, product
from gnomon.experiments.configs import lm

STEPS = 100
SEEDS = (0, 1)
BASE = 16
WIDTHS = (16, 32, 64, 128)
# Gradients of hidden layers shrink with width and have to stay above epsilon.
ADAM = dict(b1=0.9, b2=0.99, eps=1e-12)
GRID = logspace(5e-3, 0.32, 7)


def get_config(arg: str = ""):
    """The config every trial starts from."""
    config = lm.get_config(arg)
    config.steps = STEPS
    config.model.head_dim = BASE
    config.optimizer = dict(name="optax.adam", learning_rate=GRID[3], **ADAM)
    config.evaluate = dict(every=0, batches=4, batch=128)
    config.checkpoint_every = 50
    config.tensorboard = False
    config.report.baseline = "standard"
    config.tuning = dict(widen=2, interpolate=True)
    return config


def mup(config) -> dict:
    """The overrides that make a trial muP: its model and its optimizer."""
    model = {**config.model, "width": BASE}
    base = dict(
        name="gnomon.models.parameter_shapes",
        model=dict(ref=model.pop("name")),
        **model,
    )
    return {
        "label": "muP",
        "model.base_width": BASE,
        "optimizer": dict(
            name="gnomon.optimizers.mup",
            inner=dict(name="optax.adam", learning_rate=GRID[3], **ADAM),
            base=base,
            output_multiplier=True,
        ),
    }


def sweep():
    """Both parameterizations over the same widths, rates and seeds."""
    parameterizations = chain([{"label": "standard"}], [mup(get_config())])
    return product(
        parameterizations,
        over("model.width", WIDTHS),
        over("optimizer.learning_rate", GRID),
        over("seed", SEEDS),
    )
