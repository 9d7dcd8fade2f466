"""Run tables for law fits: what their columns mean, and how a sweep becomes one.

A run table is any mapping from names to columns of equal length: a dict of lists or
arrays, or a DataFrame. The law fits take its columns by keyword, under these names:

=================  =====================================================================
``params``         parameters of the model
``tokens``         tokens or examples seen in training, repeats counted
``unique``         of those, how many were distinct
``compute``        FLOPs of the whole training
``loss``           final loss, smaller is better
``batch``          tokens or examples a step
``steps``          steps of training
``learning_rate``  peak learning rate
``weight_decay``   decoupled weight decay
``label``, ``seed``  the optimizer's name, the seed (not fitted; for grouping)
=================  =====================================================================
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

FIELDS = {
    "params": "parameters",
    "tokens": "units",
    "compute": "compute",
    "steps": "steps",
    "batch": "batch",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "label": "label",
    "seed": "seed",
}


def as_run_table(
    runs: Mapping[str, np.ndarray], metric: str = "validation_loss"
) -> dict[str, np.ndarray]:
    """The same from columns as `gnomon.experiments.records.runs.table` gives them.

    Example:
      >>> runs = {
      ...     "status": np.array(["finished", "diverged"], dtype=object),
      ...     "parameters": np.array([1e6, 1e6]), "units": np.array([4e7, 4e7]),
      ...     "steps": np.array([100.0, 100.0]),
      ...     "final.validation_loss": np.array([2.5, np.nan])}
      >>> for name, column in as_run_table(runs).items():
      ...     print(name, column)
      params [1000000.]
      tokens [40000000.]
      steps [100.]
      batch [400000.]
      loss [2.5]
    """
    loss = runs.get(f"final.{metric}")
    known = sorted(name[6:] for name in runs if name.startswith("final."))
    if loss is None:
        raise ValueError(
            f"metric={metric!r}: not recorded; there are: {', '.join(known) or 'none'}"
        )
    keep = (np.asarray(runs["status"]) == "finished") & np.isfinite(loss)
    if not keep.any():
        raise ValueError(f"metric={metric!r}: no finished run has a finite value of it")
    columns = {
        name: np.asarray(runs[field])[keep]
        for name, field in FIELDS.items()
        if field in runs
    }
    if "tokens" in columns and "steps" in columns:
        columns["batch"] = columns["tokens"] / columns["steps"]
    return {**columns, "loss": np.asarray(loss)[keep]}


def select(runs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Some columns of a run table, ready for ``fit(**columns)``.

    Args:
      runs: the table.
      *names: of the columns.

    Returns:
      The columns by name.

    Raises:
      ValueError: The table lacks one.

    Example:
      >>> select({"loss": [2.0, 1.5], "seed": [0, 1]}, "loss")
      {'loss': [2.0, 1.5]}
    """
    missing = [name for name in names if name not in runs]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: no such column; the table has"
            f" {', '.join(map(str, runs))}; rename or add it"
        )
    return {name: runs[name] for name in names}
