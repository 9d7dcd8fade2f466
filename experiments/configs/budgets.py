"""Sizes by a rule, and lengths of training that spend a budget of compute.

A config of a law takes models of one shape at several sizes and gives each as many
steps as its budget pays for.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gnomon.experiments.config.resolve import ConfigError, did_you_mean
from gnomon.experiments.trial.cost import flops_of

ASPECT = 16  # width over depth

# The depth that goes with a width.
RULES: dict[str, Callable[[int], int]] = {
    "width": lambda width: 2,
    "aspect": lambda width: max(1, round(width / ASPECT)),
    "deep": lambda width: 12,
}


def sized(width: int, rule: str = "width") -> dict[str, int]:
    """The overrides of a model of one width, its depth by a named rule.

    Args:
      width: features of the model.
      rule: ``"width"`` keeps two blocks, ``"deep"`` twelve; ``"aspect"`` adds a block
        every 16 features.

    Raises:
      ConfigError: There is no such rule.

    Example:
      >>> sized(48), sized(48, "aspect")
      ({'model.width': 48, 'model.depth': 2}, {'model.width': 48, 'model.depth': 3})
    """
    if rule not in RULES:
        raise ConfigError(f"rule {rule!r}{did_you_mean(rule, RULES)}")
    return {"model.width": width, "model.depth": RULES[rule](width)}


def steps_for(
    compute: float, model: Mapping[str, Any], batch: int, shape: tuple[int, ...]
) -> int:
    """Steps that a budget pays for, at least one.

    Args:
      compute: training FLOPs; the optimizer's own are not counted.
      model: as a config has it.
      batch: examples a step.
      shape: of an example.

    Example:
      >>> model = {"name": "gnomon.models.TransformerLM", "width": 32, "depth": 2}
      >>> steps_for(1e11, model, batch=16, shape=(64,))
      397
    """
    return max(1, round(compute / flops_of(model, batch, shape)))
