"""What each number, word and switch of a config may be, by field.

``FIELDS`` has the fields that every config has, ``OPTIMIZER`` the hyperparameters that
optimizers call by the same names. A value that is an optimizer's own default is always
allowed: `math.inf` where it means "no bound", None where it means "choose for me".
"""

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.config.resolve import ConfigError, is_whole, resolve
from gnomon.experiments.console.shown import printable

INT32, UINT32 = 2**31 - 1, 2**32 - 1
_FLOAT32 = float(np.finfo(np.float32).max)


class Whole(NamedTuple):
    """An integer in ``[least, most]``."""

    least: int
    most: int = INT32
    meaning: str = ""

    def allows(self, value: Any) -> bool:
        """Whether a value is in the range."""
        return is_whole(value, self.least) and value <= self.most

    def __str__(self) -> str:
        least = f">= {self.least}" if self.least != 1 else "above 0"
        return f"an integer {least}, at most {self.most}{self.meaning}"


class Number(NamedTuple):
    """A number in ``[low, high]``; the ends belong to it where ``closed`` says so."""

    low: float
    high: float
    closed: tuple[bool, bool] = (True, False)

    def allows(self, value: Any) -> bool:
        """Whether a value is in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = self.closed
        above = value > self.low or (low and value == self.low)
        return above and (value < self.high or (high and value == self.high))

    def __str__(self) -> str:
        low, high = self.closed
        text = f"a number {'>=' if low else 'above'} {self.low:g}"
        return text + f" and {'<=' if high else 'below'} {self.high:g}"


class Word(NamedTuple):
    """Text that can be shown; not empty if ``needed``."""

    needed: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value is such a text."""
        if not isinstance(value, str) or printable(value) != value:
            return False
        return bool(value.strip()) or not self.needed

    def __str__(self) -> str:
        return "text" + " that is not empty" * self.needed + ", no control characters"


class Switch(NamedTuple):
    """True or false."""

    def allows(self, value: Any) -> bool:
        """Whether a value is a bool."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


Range = Whole | Number | Word | Switch
_never = " (0: never)"

FIELDS: Mapping[str, Range] = {
    "label": Word(),
    "seed": Whole(0, UINT32),
    "steps": Whole(1),
    "batch": Whole(1),
    "accumulate": Whole(1),
    "task": Word(needed=True),
    "evaluate.every": Whole(0, meaning=" (0: at the end alone)"),
    "evaluate.batches": Whole(1),
    "evaluate.batch": Whole(1),
    "mesh.state_memory": Word(),
    "steps_per_dispatch": Whole(0, meaning=" (0: as many as fit)"),
    "spikes.action": Word(),
    "spikes.window": Whole(2),
    "spikes.sigma": Number(0.0, math.inf),
    "spikes.patience": Whole(1, meaning=", spikes in a row"),
    "spikes.every": Whole(1),
    "spikes.rewinds": Whole(0),
    "log_every": Whole(1),
    "checkpoint_every": Whole(1),
    "tensorboard": Switch(),
    "dynamics.free": Switch(),
    "dynamics.cheap_every": Whole(0, meaning=_never),
    "dynamics.full_every": Whole(0, meaning=_never),
    "dynamics.layers": Word(),
    "report.baseline": Word(),
    "report.metric": Word(needed=True),
    "tuning.widen": Whole(0, meaning=", the most rates that are added to one grid"),
    "tuning.lengthen": Whole(
        0, meaning=", the most lengths that are added to the baseline of one model"
    ),
    "tuning.interpolate": Switch(),
    "tuning.field": Word(),
    "tuning.trials": Whole(1, meaning=", the points of a search"),
    "tuning.sampler": Word(needed=True),
    "tuning.at_once": Whole(1, meaning=", the points that are asked for at a time"),
}

_POSITIVE = Number(0.0, math.inf, (False, False))
_FRACTION = Number(0.0, 1.0)
_NOT_NEGATIVE = Number(0.0, math.inf)
OPTIMIZER: Mapping[str, Number] = {
    "learning_rate": _POSITIVE,
    "max_learning_rate": Number(0.0, math.inf, (False, True)),
    "b1": _FRACTION,
    "b2": _FRACTION,
    "b3": _FRACTION,
    "beta": _FRACTION,
    "adam_b1": _FRACTION,
    "adam_b2": _FRACTION,
    "momentum": Number(-1.0, 1.0, (False, False)),
    "decay": Number(0.0, 1.0, (True, True)),
    "eps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "adam_weight_decay": _NOT_NEGATIVE,
}
# A stranger's function may mean something else by any of these names but this one,
# which gnomon makes a schedule of.
_EVERYWHERE = ("learning_rate",)


def check_fields(config: Mapping) -> None:
    """Refuses a value of the fields that every config has.

    Raises:
      ConfigError: names the field and what it needs.
    """
    for field, allowed in FIELDS.items():
        section, _, last = field.rpartition(".")
        values = config[section] if section else config
        if last in values and not allowed.allows(values[last]):
            raise ConfigError(f"config.{field}={values[last]!r}: needs {allowed}")


def check_leaves(config: Mapping) -> None:
    """Refuses values that no field can mean, or that JSON cannot hold.

    Raises:
      ConfigError: names the field and the fix.
    """
    for path, value in _leaves(config, "config"):
        shown = f"{path}={value!r}"
        if isinstance(value, float) and math.isnan(value):
            raise ConfigError(f"{shown}: not a number; give a number")
        if isinstance(value, int) and abs(value) > 2**63:
            raise ConfigError(f"{path}: an integer of {value.bit_length()} bits")
        if value is not None and not isinstance(value, bool | int | float | str):
            raise ConfigError(
                f"{path} is a {type(value).__name__}: a config holds numbers, text,"
                " lists and mappings; name an object by {'ref': 'dotted.path'}"
            )


def check_traced(traced: Mapping[str, float]) -> None:
    """Refuses numbers that a program, which takes them in float32, would not see.

    Args:
      traced: by dotted path, from `gnomon.experiments.config.trials.split`.

    Raises:
      ConfigError: names the field.
    """
    for path, value in traced.items():
        if isinstance(value, float) and math.isfinite(value):
            if abs(value) > _FLOAT32:
                said = f"beyond the largest number of float32, {_FLOAT32:.2g}"
            elif value and np.float32(value) == 0:
                said = "nothing but 0 in float32"
            else:
                continue
            raise ConfigError(f"config.{path}={value!r}: {said}")


def check_optimizer(spec: Mapping, path: str = "optimizer") -> None:
    """Refuses hyperparameters outside their range, those of nested components too.

    Raises:
      ConfigError: names the field and what it needs.
    """
    function = resolve(spec["name"], f"{path}.name") if "name" in spec else None
    known = defaults_of(function)
    module = getattr(function, "__module__", None) or "optax"
    ours = module.partition(".")[0] in ("optax", "gnomon")
    for field, value in spec.items():
        if isinstance(value, Mapping):
            check_optimizer(value, f"{path}.{field}")
        allowed = OPTIMIZER.get(field) if ours or field in _EVERYWHERE else None
        default = field in known and _same(value, known[field])
        if allowed is None or default or isinstance(value, Mapping):
            continue
        # A convention, such as that of decay, where others have a number.
        if isinstance(value, str) and isinstance(known.get(field), str):
            continue
        if value is None and field not in _EVERYWHERE:
            continue
        if not allowed.allows(value):
            raise ConfigError(f"config.{path}.{field}={value!r}: needs {allowed}")


def defaults_of(function: Any) -> dict[str, Any]:
    """The defaults of a function's keywords.

    >>> defaults_of(lambda a, b=2: None)
    {'b': 2}
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # none given, or a builtin without a signature
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _same(value: Any, default: Any) -> bool:
    plain = (type(None), bool, int, float, str)
    return isinstance(value, plain) and isinstance(default, plain) and value == default


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{path}[{index}]")
    else:
        yield path, node
