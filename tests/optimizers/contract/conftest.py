"""The rows, the public transforms and the wrappers that the contract suite runs over.

Rows come from the test files of methods, see ``tests/support/gnomon_contract``.
"""

import jax
import pytest

from gnomon_contract import Problem, collect, quadratic
from gnomon_contract.public import INNERS, PUBLIC


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A dense layer and an embedding, small: every row compiles a few programs."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "dense": {
            "kernel": jax.random.normal(keys[0], (8, 4)),
            "bias": jax.random.normal(keys[1], (4,)),
        },
        "embed": {"embedding": jax.random.normal(keys[2], (8, 4))},
    }
    return Problem(params, quadratic)


# Once a module, so that the tests of one row follow each other and share a reference.
@pytest.fixture(scope="module", params=collect.rows(), ids=lambda row: row.name)
def row(request):
    row = request.param
    # optax's own multiply integers by floats, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard" if row.is_optax else "strict"):
        yield row


@pytest.fixture(scope="module")
def reference(row, problem):
    """The (params, state) after three steps built and taken outside of jit."""
    return problem.run(row, row.build())


@pytest.fixture(params=PUBLIC, ids=lambda public: public.name)
def public(request):
    with jax.numpy_dtype_promotion("standard"):  # for what optax has inside
        yield request.param


@pytest.fixture(params=[p for p in PUBLIC if p.inside], ids=lambda public: public.name)
def wrapper(request):
    with jax.numpy_dtype_promotion("standard"):
        yield request.param


@pytest.fixture(
    params=[(public, None) for public in PUBLIC if not public.inside]
    + [(public, name) for public in PUBLIC if public.inside for name in INNERS],
    ids=lambda pair: f"{pair[0].name}({pair[1] or ''})",
)
def transform(request):
    """Every public transform, and every wrapper around several optimizers."""
    public, inner = request.param
    with jax.numpy_dtype_promotion("standard"):
        yield public.build() if inner is None else public.around(INNERS[inner])
