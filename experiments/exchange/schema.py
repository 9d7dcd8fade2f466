"""The columns of a run table: names, kinds, units (``docs/run_table.md``).

A table has a row for each run; with the column ``step`` it has a row for each step of
each run. Any other column is a field of a config under its dotted name: what begins
with ``optimizer.`` or ``schedule.`` is a setting that is tuned, ``model.`` and
``data.`` say what the runs of one comparison share, ``final.`` is a further metric.
Columns with other names are not read.
"""

from typing import NamedTuple

from gnomon.experiments.config.resolve import did_you_mean

VERSION = 1
SECTIONS = ("model.", "data.", "optimizer.", "schedule.", "final.")
OWN = ("static", "accumulate", "task", "report.baseline")
OWN_SECTIONS = ("parameters.", "tuning.")
"""What sweeps have besides."""


class Column(NamedTuple):
    """One column.

    Attributes:
      name: As a file has it.
      kind: ``text``, ``count`` (a number that may be written as 130M) or ``number``.
      field: Its name in `gnomon.experiments.records.runs.table`.
      meaning: With its unit.
      words: What others call it, for "did you mean".
    """

    name: str
    kind: str
    field: str
    meaning: str
    words: tuple[str, ...] = ()


_SIZES: tuple[str, ...] = (
    "parameters",
    "modelsize",
    "nparams",
    "numparams",
    "numparameters",
    "size",
)
_SIZES += ("paramsactiveprecise", "activeparams", "modelparams", "n")
_LOSSES: tuple[str, ...] = (
    "finalloss",
    "validationloss",
    "valloss",
    "evalloss",
    "testloss",
)
_LOSSES += ("trainloss", "validloss", "lossfinal", "loss", "nll", "crossentropy")
_LABELS: tuple[str, ...] = (
    "optimizer",
    "optim",
    "optimizername",
    "method",
    "algorithm",
    "record",
)
_LABELS += ("group", "recipe", "opt")
_RUNS = ("run", "runid", "runname", "name", "trial", "trialid")
COLUMNS = (
    Column("schema", "number", "", f"version of the format, {VERSION}"),
    Column("id", "text", "id", "name of the run", _RUNS),
    Column("label", "text", "label", "name of the optimizer", _LABELS),
    Column("seed", "text", "seed", "runs with equal seeds are paired", ("randomseed",)),
    Column("status", "text", "status", "finished, diverged or unfinished", ("state",)),
    Column("step", "count", "", "makes it a table of steps", ("iteration", "iter")),
    Column("steps", "count", "steps", "length of training", ("totalsteps", "maxsteps")),
    Column("tokens", "count", "units", "tokens or examples seen", ("ntokens", "d")),
    Column("batch", "count", "batch", "examples a step", ("batchsize",)),
    Column("params", "count", "parameters", "parameters of the model", _SIZES),
    Column("compute", "count", "compute", "FLOPs of the training", ("flops", "c")),
    Column("seconds", "number", "seconds", "time of the training", ("runtime", "time")),
    Column(
        "learning_rate",
        "number",
        "optimizer.learning_rate",
        "peak learning rate",
        ("lr", "peaklr", "maxlr"),
    ),
    Column("weight_decay", "number", "optimizer.weight_decay", "weight decay", ("wd",)),
    Column("loss", "number", "", "the final loss, smaller is better", _LOSSES),
    Column("metric", "text", "", "what the loss is, such as validation_loss"),
    Column("tried", "count", "tried", "of how many settings the run is the best"),
    Column("data", "text", "data.name", "what was trained on", ("dataset", "corpus")),
    Column("model", "text", "model.name", "architecture", ("arch", "architecture")),
    Column("device", "text", "", "what it ran on"),
    Column("versions", "text", "", "of the software"),
    Column("fingerprint", "text", "", "sha256 of the data"),
)
BY_NAME = {column.name: column for column in COLUMNS}
NEEDED = ("label", "loss")


def is_read(name: str) -> bool:
    """Whether a column of this name is read.

    >>> is_read("params"), is_read("optimizer.b1"), is_read("notes")
    (True, True, False)
    """
    known = name in BY_NAME or name in OWN
    return known or name.startswith((*SECTIONS, *OWN_SECTIONS))


def guess(name: str, there: list[str]) -> str | None:
    """The column of a table that is most likely meant by a name of the format.

    >>> guess("label", ["optimizer", "eval/loss"]), guess("loss", ["lr", "eval/loss"])
    ('optimizer', 'eval/loss')
    """
    plain = {"".join(c for c in one.lower() if c.isalnum()): one for one in there}
    for word in (name, *BY_NAME[name].words):
        if word in plain:
            return plain[word]
    hint = did_you_mean(name, there)
    return hint.split("'")[1] if "mean" in hint else None
