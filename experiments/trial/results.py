"""The record a trial leaves when it ends."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from gnomon.experiments.config.trials import Trial
from gnomon.experiments.data import Dataset
from gnomon.experiments.records.software import versions

LOSSES = ("train_loss", "validation_loss")


def units_per_step(config: Mapping, dataset: Dataset) -> int:
    """Tokens, or examples where the data has no tokens, that one step trains on."""
    tokens = dataset.train.get("tokens")
    return config["batch"] * (1 if tokens is None else tokens.shape[1] - 1)


def make_result(
    trial: Trial,
    dataset: Dataset,
    *,
    final: Mapping[str, float | None],
    diverged_at: int | None,
    parameters: int,
    flops_per_step: float,
    seconds: float,
) -> dict[str, Any]:
    """Builds a trial's ``result.json``.

    Args:
      trial: the trial.
      dataset: what it was trained on.
      final: its last metrics by name; a loss that is not finite, or None, makes the
        trial diverged. Another metric may have no value, such as one of no examples.
      diverged_at: the first step whose loss was not finite, or None.
      parameters: trained numbers in the model.
      flops_per_step: training FLOPs of a step.
      seconds: wall time, its share of the chunk it ran in.
    """
    config = trial.config
    losses = [final[name] for name in LOSSES if name in final]
    finite = all(value is not None and math.isfinite(value) for value in losses)
    if not finite and diverged_at is None:
        diverged_at = config["steps"]
    return {
        "trial": trial.id,
        "label": trial.label,
        "seed": config["seed"],
        "status": "finished" if diverged_at is None else "diverged",
        "diverged_at": diverged_at,
        "steps": config["steps"],
        "final": dict(final),
        "parameters": parameters,
        "flops_per_step": flops_per_step,
        "compute": flops_per_step * config["steps"],
        "units": units_per_step(config, dataset) * config["steps"],
        "unit": dataset.unit,
        "data": {"name": config["data"]["name"], "fingerprint": dataset.fingerprint},
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
        "seconds": round(seconds, 3),
    }
