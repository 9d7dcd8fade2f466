"""FLOPs of a program: those of devices that share it are those of one that has it."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from gnomon.experiments.trial.operations import flops_in


def test_a_program_on_devices_counts_on_each():
    def product(x, y):
        return jnp.tanh(x @ y)

    mesh = jax.make_mesh(
        *((4, 2), ("data", "model"), (jax.sharding.AxisType.Auto,) * 2),
        devices=jax.devices()[:8],
    )
    shared = jax.shard_map(
        product,
        mesh=mesh,
        in_specs=(P("data"), P(None, "model")),
        out_specs=P("data", "model"),
    )
    x, y = jnp.ones((8, 4)), jnp.ones((4, 6))
    counts = [flops_in(jax.make_jaxpr(f)(x, y).jaxpr) for f in (product, shared)]
    assert counts == [2 * 8 * 4 * 6 + 8 * 6] * 2
