"""Reads the arrays of a run without running anything that its folder names."""

from pathlib import Path
from typing import Any

import numpy as np

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.trial import stored


def load_arrays(workdir: str | Path) -> dict[str, Any]:
    """The arrays of the newest checkpoint of a run, as nested dictionaries.

    Unlike `gnomon.experiments.train.load_state` it reads no config and imports neither
    the model nor the optimizer: the folder may be from anyone.

    Args:
      workdir: the folder of a run that ``train`` made, finished or not.

    Returns:
      Arrays by the parts of their paths: ``load_arrays(workdir)["params"]`` are the
      parameters, by the names of the modules. Lists and tuples are dictionaries, their
      keys ``"0"``, ``"1"`` and so on.

    Raises:
      UserError: the folder holds no checkpoint that can be read.
    """
    folder = Path(workdir) / "checkpoints"
    names = [path.name for path in folder.glob("*") if path.name.isdecimal()]
    reason = "none was written"
    for step in sorted(names, key=int, reverse=True):
        try:
            manifest, arrays = stored.read(folder / step)
        except (ConfigError, stored.DamagedCheckpointError, OSError) as error:
            reason = f"checkpoint {step}: {error}"
            continue
        return _nested(manifest["leaves"], arrays)
    raise UserError(f"{folder} holds no checkpoint that can be read: {reason}")


def _nested(leaves: list[dict], arrays: list[np.ndarray | None]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for leaf, array in zip(leaves, arrays, strict=True):
        *parents, last = leaf["path"].split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        # A run is a chunk of one trial: its arrays have a lane axis of one.
        node[last] = leaf["value"] if array is None else array[0]
    return tree
