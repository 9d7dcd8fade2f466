"""A byte-level language model on the Python standard library's source.

    python -m gnomon.experiments.train --config=experiments/configs/lm.py:width=64 \
        --config.optimizer.learning_rate=3e-3 --workdir=runs/lm

``lm.py:tokens=DIR`` takes a folder of token shards instead.
"""

from gnomon.experiments.config import defaults, parse_arg
from gnomon.experiments.configs.optimizers import optimizer
from gnomon.experiments.data import load


def get_config(arg: str = ""):
    """The config; ``arg`` sets the model's size and the run's length."""
    options = parse_arg(
        arg, width=64, depth=2, length=64, steps=1000, optimizer="adamw", tokens=""
    )
    config = defaults()
    config.steps = options.steps
    config.batch = 16
    config.task = "gnomon.experiments.tasks.next_token"
    config.model = dict(
        name="gnomon.models.TransformerLM",
        vocab=256,
        width=options.width,
        depth=options.depth,
    )
    config.data = dict(name="stdlib_text", length=options.length)
    if options.tokens:
        config.data = dict(name="tokens", path=options.tokens, length=options.length)
        config.model.vocab = load(config.data).vocabulary
    config.optimizer = optimizer(options.optimizer)
    config.schedule.warmup = 0.1
    config.schedule.final = 0.0
    config.evaluate.every = 200
    return config
