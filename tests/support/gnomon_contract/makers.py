"""How everything public is built for the tests of stacked layers, see ``layers.py``.

As ``LAYERS`` of the test files say, or from the defaults; wrappers have to say.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import optax

from gnomon import optimizers
from gnomon.optimizers.mechanisms.constrain import Constraint
from gnomon_contract import collect
from gnomon_contract.layers import by_rank, descending
from gnomon_contract.public import GIVEN, PUBLIC, Public, functions, slope_of

Maker = Callable[..., Any]
SAID: dict[str, Maker | None] = collect.layers()
# One of each: what a wrapper asks of it is known for all wrappers and layouts.
INNER: dict[str, Maker] = {
    "sgd": functools.cache(lambda: optax.sgd(0.1, momentum=0.9)),
    "adamw": functools.cache(lambda: optax.adamw(0.1, weight_decay=0.1, mask=by_rank)),
    "adamp": functools.cache(lambda: optimizers.adamp(0.1)),
    "lamb": functools.cache(lambda: optax.lamb(0.1)),
}


def told(make: Maker) -> bool:
    """Whether it can be told which leaves are stacks."""
    kinds = {p.kind for p in inspect.signature(make).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def by_defaults(public: Public) -> Maker:
    def make(**stacked):
        optimizer = public.build(**stacked)
        # A probe has no stack to be told of.
        return descending(optimizer) if slope_of(public) > 0 else optimizer

    return make if "stacked" in public.parameters else lambda: make()


def set_by_defaults(name: str, made: Maker) -> Maker:
    return lambda **stacked: made(**GIVEN.get(name, {}), **stacked)


_SETS = functions(Constraint)
WRAPPING = {p.name for p in PUBLIC if p.inside or "preconditioner" in p.parameters}
WRAPPERS = {name: SAID[name] for name in SAID if name in WRAPPING}
METHODS = {
    p.name: SAID.get(p.name, by_defaults(p)) for p in PUBLIC if p.name not in WRAPPING
}
SETS = {name: SAID.get(name, set_by_defaults(name, _SETS[name])) for name in _SETS}
# Of a tree of parameters, those that can be told of a stack.
FUNCTIONS = {
    name
    for name in optimizers.__all__
    if inspect.isfunction(made := getattr(optimizers, name))
    and made.__module__.startswith("gnomon.optimizers")
    and "stacked" in inspect.signature(made).parameters
} - {*WRAPPING, *METHODS, *SETS}
