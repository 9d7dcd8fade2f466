"""What `config.parameters` may say: in which numbers the parameters are stored."""

from collections.abc import Mapping

from gnomon.experiments.config.resolve import ConfigError, did_you_mean

DTYPES = ("", "bfloat16")
ROUNDINGS = ("nearest", "stochastic")


def check_parameters(config: Mapping) -> None:
    """Refuses a dtype or a rounding that is none.

    Raises:
      ConfigError: names the field and the fix.
    """
    section = config["parameters"]
    dtype, rounding = section.get("dtype", ""), section.get("rounding", "nearest")
    for field, value, known in (
        ("dtype", dtype, DTYPES),
        ("rounding", rounding, ROUNDINGS),
    ):
        if value not in known:
            raise ConfigError(
                f"config.parameters.{field}={value!r}{did_you_mean(str(value), known)}"
            )
    if rounding == "stochastic" and not dtype:
        raise ConfigError(
            "config.parameters.rounding='stochastic': needs"
            " config.parameters.dtype='bfloat16'; wider numbers are not rounded at"
            " random"
        )
