"""Which models are one architecture at several sizes, and which are merely others.

What a law or a line goes through must be one family: models that differ in numbers of
their own alone, such as width and depth. Another model, norm, batch or precision is
another family.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

Key = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the trials of one comparison share.

    Attributes:
      name: The fields that tell it from the others, ``"width 64, 400 steps"``.
      model: Everything but the number of steps; equal for lengths of one model.
      data: The fields of data and task; losses compare only where these agree.
      steps: Length of training.
      parameters: Size of the model, NaN when no trial has finished.
    """

    name: str
    model: Key
    data: Key
    steps: float
    # Known once a trial is done, and NaN never equals NaN: not part of identity.
    parameters: float = dataclasses.field(compare=False)


def family(scale: Scale) -> Key:
    """What all sizes of an architecture share: two scales compare where it is equal.

    Example:
      >>> model = (("model.name", "MLP"), ("model.widths", "[32, 32]"), ("batch", 8.0))
      >>> family(Scale("", model, (), 100.0, 1e4))
      (('model.name', 'MLP'), ('batch', 8.0))
    """
    return tuple(
        (field, value)
        for field, value in scale.model
        if not (field.startswith("model.") and _is_size(value))
    )


def related(scales: Iterable[Scale]) -> bool:
    """Whether scales are one architecture at several sizes.

    Two models with as many parameters as each other do not differ in size, whatever
    their numbers say.
    """
    models = {scale.model: scale for scale in scales}
    sizes = [scale.parameters for scale in models.values()]
    known = [size for size in sizes if size == size]
    one = len({family(scale) for scale in models.values()}) <= 1
    return one and len(set(known)) == len(known)


def _is_size(value: Any) -> bool:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return False
        return all(_is_size(part) for part in value)
    return isinstance(value, int | float) and not isinstance(value, bool)
