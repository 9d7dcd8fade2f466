"""What `config.accumulate` may say: into how many micro-batches a batch is cut."""

from collections.abc import Mapping

from gnomon.experiments.config.resolve import ConfigError


def parts_in(config: Mapping) -> int:
    """How many micro-batches a step takes; 1 is the batch as a whole.

    >>> parts_in({"accumulate": 4}), parts_in({})
    (4, 1)
    """
    return config.get("accumulate", 1)


def check_accumulate(config: Mapping) -> None:
    """Refuses micro-batches of different sizes, or that a mesh cannot share out.

    Raises:
      ConfigError: names the field and the fix.
    """
    parts, batch = parts_in(config), config["batch"]
    data = config["mesh"].get("data", 1)
    if batch % parts == 0 and (parts == 1 or batch // parts % data == 0):
        return
    fitting = [n for n in range(1, parts) if batch % n == 0 and batch // n % data == 0]
    why = f"does not divide config.batch={batch}"
    if batch % parts == 0:
        why = (
            f"leaves {batch // parts} examples a micro-batch, and config.mesh.data="
            f"{data} does not divide them"
        )
    raise ConfigError(
        f"config.accumulate={parts}: {why}; use {max(fitting, default=1)}, or another"
        " batch"
    )
