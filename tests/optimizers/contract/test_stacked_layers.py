"""Layers that are stacked in one leaf are treated as a list of layers, by everything.

Every public transform and constraint is run, and every public function that can be told
of a stack: on a list of layers, on the same layers under a name that declares a stack,
and on them under another name that ``stacked=`` declares.
"""

import pytest

from gnomon import optimizers as o
from gnomon_contract.layers import check, same
from gnomon_contract.makers import (
    FUNCTIONS,
    INNER,
    METHODS,
    SAID,
    SETS,
    WRAPPERS,
    WRAPPING,
    told,
)


def test_every_wrapper_and_function_says_how():
    """In ``LAYERS`` of its test file; methods and constraints have their defaults."""
    assert sorted((WRAPPING | FUNCTIONS) - SAID.keys()) == []
    assert sorted(SAID.keys() - set(o.__all__)) == []


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    check(METHODS[name], told(METHODS[name]))


@pytest.mark.parametrize("name", [name for name in SETS if SETS[name]])
def test_sets(name):
    check(lambda **s: o.constrain(INNER["sgd"](), SETS[name](**s)), explicit=True)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(name, inner):
    make = WRAPPERS[name]
    check(lambda **s: make(INNER[inner](), **s), told(make))


@pytest.mark.parametrize("name", sorted(name for name in FUNCTIONS if SAID.get(name)))
def test_functions_of_parameters(name):
    same(SAID[name])
