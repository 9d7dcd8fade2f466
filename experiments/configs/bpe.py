"""Tokens, a sweep, a law and its report, of a deep model, in one command.

    python -m gnomon.experiments.sweep --config=experiments/configs/bpe.py:tiny \
        --workdir=runs/bpe

trains a BPE on the Python standard library and tokenizes it (once, where the data sets
lie), then trains models of 12 scanned layers at several widths and budgets of compute
on the tokens, three rates each. The report draws IsoFLOP parabolas and the frontier,
and gives the law of loss in size and length, in bits a byte of text.

Without ``:tiny`` it is a vocabulary of 4,096 and models of up to 5 million parameters:
3.6e14 FLOPs before grids are widened, minutes on a GPU and a day on two CPU cores.
``--dry_run`` says what a step needs. ``:tiny`` takes a vocabulary of 512.
"""

from collections.abc import Sequence

from gnomon.experiments.config.grid import chain
from gnomon.experiments.configs import isoflop
from gnomon.experiments.configs.optimizers import optimizer

WIDTHS: Sequence[int] = (64, 96, 128, 176)
BUDGETS: Sequence[float] = (2e12, 4e12, 8e12, 1.6e13)  # training FLOPs
SEEDS: Sequence[int] = (0,)


def get_config(arg: str = ""):
    """The config every trial starts from."""
    config, options = isoflop.base(arg, optimizer="adamw")
    vocabulary, length = (512, 32) if options.tiny else (4096, 128)
    config.data = dict(name="stdlib_tokens", vocabulary=vocabulary, length=length)
    config.model.update(vocab=vocabulary, depth=12, scan=True)
    config.model.head_dim = 4 if options.tiny else 16
    config.batch = 4 if options.tiny else 16
    config.optimizer = optimizer(options.optimizer)
    config.report.metric = "validation_bits_per_byte"
    return config


def sweep(arg: str = ""):
    """Sizes times budgets times rates times seeds."""
    config, options = get_config(arg), isoflop.base(arg, optimizer="adamw")[1]
    widths, budgets, seeds = WIDTHS, BUDGETS, SEEDS
    if options.tiny:
        widths, budgets, seeds = (4, 8, 12), (5e8, 1e9, 2e9), (0, 1)
    line = options.optimizer
    return chain(isoflop.cells(config, line, line, widths, budgets, seeds, "deep"))
