"""Which data a folder was made with, and whether the data is still the same."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.data import Dataset


def fingerprints(
    used: Iterable[tuple[Mapping[str, Any], Dataset]],
) -> dict[str, str]:
    """The fingerprint of each data set, by its name and fields.

    Two sections of one name may be two data sets: ``tfds`` is one for each `dataset`.

    Args:
      used: pairs of a config's ``data`` section and its data.
    """
    return {_key(section): dataset.fingerprint for section, dataset in used}


def check_data(workdir: Path, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Refuses data that is not what a folder was made with.

    Args:
      workdir: the folder.
      old: its `fingerprints`; a data set may stand there by its name alone.
      new: those of today.

    Raises:
      ConfigError: names the data set and the fix.
    """
    for key, found in new.items():
        name = key.partition(" ")[0]
        before = old.get(key, old.get(name, found))
        if before != found:
            raise ConfigError(
                f"--workdir={workdir} was made with other data: the fingerprint of"
                f" {name} was {str(before)[:12]} and is {found[:12]}; results"
                " would not compare; bring the old data back, or use another --workdir"
            )


def _key(section: Mapping[str, Any]) -> str:
    fields = {key: value for key, value in section.items() if key != "name"}
    if not fields:
        return str(section["name"])
    return f"{section['name']} {json.dumps(fields, sort_keys=True, default=dict)}"
