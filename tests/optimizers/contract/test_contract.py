"""What every optimizer promises, checked on each row of the methods' test files."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gnomon_contract import Row

# The yardstick: whatever is asked of a method, optax's own can do.
ROWS = (
    Row(
        "adamw",
        optax.adamw,
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-5},
    ),
)


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=rtol, atol=atol),
        actual,
        expected,
    )


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def layout(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def some(row, names, problem, params=None):
    if not names:
        return {}
    extra = problem.extra_args(problem.params if params is None else params)
    return {name: extra[name] for name in names}


def rosenbrock(params):
    x, y = params["valley"]
    return (1 - x) ** 2 + 10 * (y - x**2) ** 2


def test_converges(row, problem):
    """On a quadratic and in Rosenbrock's valley at once."""
    targets = problem._replace(
        params={**problem.params, "valley": jnp.array([-0.5, 1.0])},
        loss=lambda params: (
            problem.loss({name: params[name] for name in problem.params})
            + rosenbrock(params)
        ),
    )

    # From tracers, as in a sweep.
    train = jax.jit(lambda values: targets.scan(row, row.build(**values), row.steps))
    params, _ = train(dict(row.hyperparameters))
    for loss in (targets.loss, rosenbrock):
        assert loss(params) < 1e-3 * loss(targets.params)


def test_traced_hyperparameters(row, problem, reference):
    """Built inside jit from tracers it does what it does outside from numbers, in
    every lane of a ``vmap`` over its hyperparameters."""
    given = dict(row.hyperparameters)
    other = {name: 0.5 * value for name, value in given.items()}
    both = {name: jnp.array([given[name], other[name]]) for name in given}
    lanes = jax.jit(jax.vmap(lambda values: problem.scan(row, row.build(**values))))
    inside = lanes(both)
    assert_close(jax.tree.map(lambda x: x[0], inside), reference)
    alone = problem.run(row, row.build(**other))
    assert_close(jax.tree.map(lambda x: x[1], inside[0]), alone[0])


def test_schedule_of_a_constant_is_the_constant(row, problem, reference):
    rate = optax.constant_schedule(row.hyperparameters[row.rate])
    scheduled = row.build(**{row.rate: rate})
    assert_close(problem.run(row, scheduled)[0], reference[0])


def test_compiles_once(row, problem):
    """What a step returns looks to jit like what it was given."""
    optimizer = row.build()
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(None)
        return problem.step(row, optimizer, params, state)

    params, state = problem.params, optimizer.init(problem.params)
    for _ in range(3):
        # Tracing decides on compilation, so nothing need be compiled to count.
        params, state = step.eval_shape(params, state)
    assert len(traces) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_is_kept(row, problem, dtype, request):
    """Updates have the dtype of the parameters; the state's layout never changes."""
    if dtype == "float64":
        request.getfixturevalue("x64")
    params = jax.tree.map(lambda x: x.astype(dtype), problem.params)

    # The learning rate as a float32 tracer must not lift bfloat16 leaves.
    def step(params, rate):
        if row.is_optax:  # optax does lift them
            rate = row.hyperparameters[row.rate]
        optimizer = row.build(**{row.rate: rate})
        state = optimizer.init(params)
        extra = some(row, row.reads, problem, params)
        return state, optimizer.update(params, state, params, **extra)

    state, (updates, new_state) = jax.eval_shape(
        step, params, jax.ShapeDtypeStruct((), jnp.float32)
    )
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    assert layout(new_state) == layout(state)


def test_extra_args_are_ignored(row, problem):
    optimizer = row.build()
    state = optimizer.init(problem.params)
    grads = problem.extra_args(problem.params)["grad"]
    read = some(row, row.reads, problem)
    offered = {**some(row, ("value", "grad"), problem), **read, "unexpected": "text"}
    plain = optimizer.update(grads, state, problem.params, **read)
    assert_equal(optimizer.update(grads, state, problem.params, **offered), plain)


def test_multi_steps_averages_equal_gradients_to_one_step(row, problem):
    optimizer = row.build()
    accumulated = optax.MultiSteps(optimizer, every_k_schedule=2)
    grads = problem.extra_args(problem.params)["grad"]
    read = some(row, row.reads, problem)
    plain = optimizer.update(
        grads, optimizer.init(problem.params), problem.params, **read
    )
    # MultiSteps itself divides a float by an integer.
    with jax.numpy_dtype_promotion("standard"):
        state = accumulated.init(problem.params)
        update = jax.jit(lambda s: accumulated.update(grads, s, problem.params, **read))
        for _ in range(2):
            updates, state = update(state)
    assert_close(updates, plain[0])


def test_masked_leaves_pass_through_and_leave_the_others_alone(row, problem):
    optimizer = row.build()
    grads = problem.extra_args(problem.params)["grad"]
    # Like the value, these describe the whole tree; "grad" does not fit a part of it.
    read = some(row, [name for name in row.reads if name != "grad"], problem)
    masked = optax.masked(optimizer, {"dense": True, "embed": False})
    got, _ = masked.update(grads, masked.init(problem.params), problem.params, **read)
    dense = {"dense": problem.params["dense"]}
    wanted, _ = optimizer.update(
        {"dense": grads["dense"]}, optimizer.init(dense), dense, **read
    )
    assert_close(got, {**wanted, "embed": grads["embed"]})


def test_inject_hyperparams(row, problem, reference):
    static = [name for name in row.kwargs if callable(row.kwargs[name])]
    factory = optax.inject_hyperparams(row.make, static_args=static)
    params, state = problem.run(row, factory(**row.kwargs, **row.hyperparameters))
    assert_close(params, reference[0])
    assert set(row.hyperparameters) <= set(state.hyperparams)


def test_chain_hands_it_its_arguments(row, problem, reference):
    chained = optax.chain(optax.clip_by_global_norm(1e9), row.build())
    assert_close(problem.run(row, chained)[0], reference[0])


def test_sharded_equals_unsharded(row, problem, reference):
    """And every state leaf shaped like a parameter lies where the parameter lies."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    shardings = {
        "dense": {
            "kernel": NamedSharding(mesh, PartitionSpec("data", "model")),
            "bias": NamedSharding(mesh, PartitionSpec("model")),
        },
        "embed": {"embedding": NamedSharding(mesh, PartitionSpec("model", "data"))},
    }
    sharded = problem._replace(params=jax.device_put(problem.params, shardings))
    optimizer = row.build()
    state = optimizer.init(sharded.params)
    # Counts and the like go everywhere at once, or the second step compiles again.
    state = jax.tree.map(
        lambda leaf: (
            leaf
            if isinstance(leaf.sharding, NamedSharding)
            else jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))
        ),
        state,
    )
    step = jax.jit(lambda params, state: sharded.step(row, optimizer, params, state))
    params = sharded.params
    for _ in range(3):
        follows = optax.tree.map_params(
            optimizer,
            lambda leaf, param, sharding: (
                leaf.shape != param.shape
                or leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
            ),
            state,
            sharded.params,
            shardings,
            transform_non_params=lambda leaf: True,
        )
        assert all(jax.tree.leaves(follows))
        params, state = step(params, state)
    assert_close(params, reference[0])


def test_explicit_sharding_is_propagated(row, problem):
    """With sharding in types, init and update under jit keep the leaf's sharding."""
    optimizer = row.build()
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    spec = PartitionSpec("data", "model")
    with jax.set_mesh(mesh):
        params = {"kernel": jax.device_put(problem.params["dense"]["kernel"], spec)}
        sharded = problem._replace(params=params)
        state = jax.eval_shape(optimizer.init, params)
        updates, new_state = jax.eval_shape(
            lambda state, params: optimizer.update(
                params, state, params, **some(row, row.reads, sharded, params)
            ),
            state,
            params,
        )
    for leaf in jax.tree.leaves((state, updates, new_state)):
        if leaf.shape == (8, 4):
            assert leaf.sharding.spec == spec


def test_init_is_abstract(row, problem):
    """Shapes are enough, so a state too large for this machine can be planned."""
    optimizer = row.build()
    shapes = jax.eval_shape(lambda: problem.params)
    wanted = layout(jax.eval_shape(optimizer.init, problem.params))
    assert layout(jax.eval_shape(optimizer.init, shapes)) == wanted
    assert layout(jax.tree.map(jnp.asarray, optimizer.init(shapes))) == wanted


def test_state_maps_over_parameters(row, problem):
    """optax can tell the state's parameter-like leaves from the others."""
    optimizer = row.build()
    state = optimizer.init(problem.params)
    mapped = optax.tree.map_params(optimizer, lambda leaf: leaf, state)
    assert_equal(mapped, state)


def test_checkpoint_round_trip(row, problem, reference, tmp_path):
    """A restored state continues as the saved one does, bit for bit."""
    optimizer = row.build()
    params, state = reference
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(
            tmp_path / "state", jax.eval_shape(optimizer.init, params)
        )
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert_equal(restored, state)


def test_order_of_leaves_does_not_matter(row, problem):
    """Renaming a subtree moves it in the flattened order and changes nothing else."""
    optimizer = row.build()
    grads = problem.extra_args(problem.params)["grad"]
    read = some(row, row.reads, problem)
    renamed = {name: f"{9 - i}_{name}" for i, name in enumerate(problem.params)}

    def rename(tree):
        return {renamed[name]: subtree for name, subtree in tree.items()}

    def update(change):
        args = {k: change(v) if k == "grad" else v for k, v in read.items()}
        params = change(problem.params)
        if "obj_fn" in args:
            back = {new: old for old, new in renamed.items()}
            args["obj_fn"] = lambda tree: problem.loss(
                {back.get(name, name): leaf for name, leaf in tree.items()}
            )
        return optimizer.update(change(grads), optimizer.init(params), params, **args)

    assert_close(update(rename)[0], rename(update(lambda tree: tree)[0]), rtol=1e-6)


def degenerate(kind, value):
    """Empty and 0-d leaves, leaves that are None, and what is zero or not."""
    full = 0.0 if kind == "zero" else value
    return {
        "kernel": jnp.full((3, 2), full),
        "none": None,
        "empty": {"kernel": jnp.zeros((0, 3)), "bias": jnp.zeros((0,))},
        "column": {"kernel": jnp.full((1, 2), full)},
        "scalar": jnp.full((), full),
    }


@pytest.fixture(scope="module")
def two_steps(row, problem):
    """(params, state) after two steps with the same gradients, in one program."""
    optimizer = row.build()

    @jax.jit
    def run(params, grads):
        read = some(row, row.reads, problem, params)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(grads, state, params, **read)
            return (optax.apply_updates(params, updates), state), None

        first = params, optimizer.init(params)
        return jax.lax.scan(step, first, length=2)[0]

    return run


@pytest.mark.parametrize("gradient", ["zero", "nonzero"])
@pytest.mark.parametrize("weight", ["zero", "nonzero"])
def test_degenerate_leaves_stay_finite(two_steps, weight, gradient):
    """Zero weights and gradients, empty and 0-d leaves, and leaves that are None."""
    params, state = two_steps(degenerate(weight, 0.5), degenerate(gradient, -2.0))
    assert params["none"] is None
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))


def test_missing_params_are_refused(row, problem):
    if not row.needs_params:
        return
    optimizer = row.build()
    with pytest.raises(ValueError, match="params"):
        optimizer.update(
            problem.params,
            optimizer.init(problem.params),
            **some(row, row.reads, problem),
        )
