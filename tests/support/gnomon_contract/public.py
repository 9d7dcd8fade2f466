"""Every public function that makes a transform, built from its signature.

Test files of methods are read here: what they import themselves is in ``rows.py`` and
``layers.py``.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

from gnomon import optimizers
from gnomon.optimizers.mechanisms.probe import slope
from gnomon_contract import collect

# What an argument without a default gets, and a wrapper inside.
ARGUMENTS: dict[str, Any] = dict(
    learning_rate=0.1,
    max_learning_rate=0.1,
    inner=optax.adam(0.1),
    direction=optax.scale_by_adam(),
    base=lambda params: params,
)
GIVEN = collect.given()


class Public(NamedTuple):
    """One public function that makes a transform, built from its signature."""

    name: str
    make: Callable[..., Any]

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.make).parameters

    @property
    def inside(self) -> str | None:
        """What a wrapper calls what it is around."""
        names = [n for n in ("inner", "direction") if n in self.parameters]
        return names[0] if names else None

    def given(self, name: str) -> Any:
        own = GIVEN.get(self.name, {})
        return own[name] if name in own else ARGUMENTS[name]

    def build(self, **changes) -> optax.GradientTransformationExtraArgs:
        given = dict(GIVEN.get(self.name, {}))
        for name, parameter in self.parameters.items():
            if parameter.default is parameter.empty or name == self.inside:
                given[name] = self.given(name)
        return self.make(**given | changes)

    def around(self, make: Callable[..., Any]) -> Any:
        """The wrapper around an optimizer, or around the direction that this takes."""
        if self.inside == "inner":
            return self.build(inner=_optimizer(make))
        return self.build(direction=_direction(make))


# One of each: what a wrapper asks of it is known for all wrappers.
@functools.cache
def _optimizer(make: Callable[..., Any]) -> Any:
    return make(0.1)


@functools.cache
def _direction(make: Callable[..., Any]) -> Any:
    return optax.chain(make(1.0), optax.scale(-1.0))


@functools.cache
def _built(public: Public) -> optax.GradientTransformationExtraArgs:
    return public.build()


def slope_of(public: Public) -> int:
    """The sign of its updates as it is built from its defaults."""
    return slope(_built(public))


def returns(made: Any, kind: type) -> bool:
    """Whether a function is annotated to return this kind."""
    if not inspect.isfunction(made):
        return False
    returned = inspect.signature(made).return_annotation
    return isinstance(returned, type) and issubclass(returned, kind)


def functions(kind: type) -> dict[str, Callable[..., Any]]:
    """The public functions that return this kind, by name."""
    found = {name: getattr(optimizers, name) for name in optimizers.__all__}
    return {name: made for name, made in found.items() if returns(made, kind)}


PUBLIC = [Public(*named) for named in functions(optax.GradientTransformation).items()]
# By functions of a learning rate.
INNERS: dict[str, Callable[..., Any]] = {
    "sgd": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
    "adamw": optax.adamw,
    "adamp": optimizers.adamp,
    "momo": optimizers.momo,
}
