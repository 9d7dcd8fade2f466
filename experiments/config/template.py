"""The fields every experiment has, and a config as plain values.

Inside the suite a config is a plain nested dict; `ml_collections.ConfigDict` is how
a person writes one and changes it from the command line.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from gnomon.experiments.config.resolve import ConfigError, did_you_mean

# Sections whose fields are gnomon's; a component's own signature says what it takes.
OWN = ("evaluate", "report", "dynamics", "tuning", "mesh", "parameters", "spikes")


def defaults() -> ml_collections.ConfigDict:
    """The fields of every experiment; a config file fills in the components."""
    return ml_collections.ConfigDict(
        dict(
            label="",  # name in tables and pictures; "" takes the optimizer's
            seed=0,  # initialization and data order; paired across optimizers
            steps=1000,
            batch=16,  # examples a step
            # Micro-batches that a batch is taken in, one after another: the gradient of
            # all its examples in the memory of one part.
            accumulate=1,
            task="gnomon.experiments.tasks.next_token",
            model=dict(name="gnomon.models.TransformerLM"),
            # How they are stored (`gnomon.experiments.trial.precision`): "", as the
            # model has them, or "bfloat16", with rounding "nearest" or "stochastic".
            parameters=dict(dtype="", rounding="nearest"),
            data=dict(name="stdlib_text"),
            optimizer=dict(name="optax.adamw", learning_rate=1e-3),
            # Of every learning_rate of the optimizer, a nested one's too.
            schedule=dict(name="gnomon.experiments.schedules.warmup_cosine"),
            # What stands around the optimizer (`gnomon.experiments.config.chain`): a
            # clip of gradients by name, ordered rules that give groups of parameters a
            # multiplier or an optimizer of their own, rules of the leaves that decay.
            clip=dict(name=""),
            parameter_groups=(),
            decay_mask=(),
            # Losses far above those before them (`gnomon.experiments.config.spikes`):
            # action "" (none are looked for), "record", "skip" or "rewind".
            spikes=dict(
                action="", window=128, sigma=6.0, patience=10, every=100, rewinds=10
            ),
            static=(),  # optimizer fields a program must know before compilation
            evaluate=dict(every=0, batches=8, batch=64),  # every 0: at the end alone
            # Steps that the device takes between two words with the host; 0: as many
            # as lie between rows, evaluations, probes and checkpoints.
            steps_per_dispatch=0,
            log_every=20,
            checkpoint_every=200,
            tensorboard=True,
            # Trackers that metrics are sent to as well, with what their init takes:
            # dict(wandb=dict(project="widths"), trackio=dict(project="widths")).
            writers=dict(),
            # One trial over several devices (`gnomon.experiments.trial.mesh`).
            # Rules by name: "fsdp", "zero1". state_memory "pinned_host" keeps the
            # optimizer's state on the host; "" is the device.
            mesh=dict(data=1, model=1, rules=(), state_memory=""),
            # Probes (`gnomon.experiments.trial.probes`); every 0: off.
            dynamics=dict(free=False, cheap_every=0, full_every=0, layers=""),
            # Whom to compare with, by what: smaller is better.
            report=dict(baseline="", metric="validation_loss"),
            # The protocol of a sweep: rates added to a grid until its best one is
            # inside; optima read between the points of the grid; lengths added to the
            # baseline until they hold every speedup between them; the optimizer's field
            # that is tuned ("": its learning rate, or what the grid varies instead).
            # Of a search (`gnomon.experiments.config.search`): its points, how many are
            # asked for at once, who chooses them; what it searches is filled in.
            tuning=dict(
                widen=0,
                interpolate=False,
                lengthen=0,
                field="",
                trials=16,
                at_once=4,
                sampler="optuna.samplers.TPESampler",
                search=(),
            ),
        )
    )


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose own sections have every field that they leave out.

    >>> filled({"evaluate": {"batch": 20}})
    {'evaluate': {'batch': 20, 'batches': 8, 'every': 0}}
    """
    known = plain(defaults())
    given = {name: config[name] for name in OWN if name in config}
    sections = {
        name: known[name] | dict(section)
        for name, section in given.items()
        if isinstance(section, Mapping)
    }
    return {**config, **sections}


def parse_arg(arg: str | None, **known: Any) -> ml_collections.ConfigDict:
    """Reads ``"width=64,depth=2"`` with the types of the defaults given.

    >>> parse_arg("width=64,tied", width=32, tied=False).to_dict()
    {'tied': True, 'width': 64}
    """
    values = dict(known)
    for part in filter(None, (arg or "").split(",")):
        name, equals, text = part.partition("=")
        if name not in known:
            raise ConfigError(f"config argument {name!r}{did_you_mean(name, known)}")
        kind = type(known[name])
        if kind is bool:
            choices = {"": True, "1": True, "true": True, "0": False, "false": False}
            if text.lower() not in choices:
                raise ConfigError(
                    f"config argument {name}={text!r}: give true or false"
                )
            values[name] = choices[text.lower()]
        elif not equals:
            raise ConfigError(f"config argument {name!r}: write {name}=VALUE")
        else:
            try:
                values[name] = kind(text)
            except ValueError as error:
                raise ConfigError(
                    f"config argument {name}={text!r}: needs {kind.__name__}"
                ) from error
    return ml_collections.ConfigDict(values)


def plain(config: Any) -> Any:
    """A config as dicts, lists and scalars, as it is stored and hashed.

    Raises:
      ConfigError: a placeholder that needs a value and has none, or a config that
        contains itself.
    """
    try:
        return _plain(config, "config")
    except RecursionError as error:
        raise ConfigError("the config contains itself") from error


def _plain(config: Any, path: str) -> Any:
    if isinstance(config, Mapping | ml_collections.ConfigDict):
        return {
            str(key): _plain(_at(config, key, path), f"{path}.{key}") for key in config
        }
    if isinstance(config, list | tuple):
        return [_plain(value, f"{path}[{i}]") for i, value in enumerate(config)]
    if isinstance(config, np.generic | np.ndarray):
        return config.tolist()
    return config


def _at(config: Any, key: Any, path: str) -> Any:
    try:
        return config[key]
    except ml_collections.config_dict.RequiredValueError as error:
        raise ConfigError(
            f"{path}.{key}: a placeholder without a value; give it one in the file"
        ) from error
