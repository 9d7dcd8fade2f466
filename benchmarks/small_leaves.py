"""What joining small leaves is worth: 300 of them stepped one by one and in buckets.

    python benchmarks/small_leaves.py [--blocks=100] [--repeats=30]

A tree of `blocks` times a kernel, a bias and a scale, updated by AdamW (AdamP's step on
leaves without units), one leaf after another, and joined by `bucket_leaves`, whose
moments stay joined; and by `optax.adamw`. Under jit with donation, calls interleaved,
fresh gradients every round; the results of all ways are compared in the same run.
`fusions` are those of the optimized program, about what a device would launch.
`to_leaves` is the median time over that of the first row.
"""

import argparse
import functools
import itertools
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _timing import environment, interleave, table, write

from gnomon.optimizers import adamp, apply_fused, bucket_leaves

RESULTS = Path(__file__).parent / "results" / "small_leaves.json"
COLUMNS = {"by": "", "leaves": "", "fusions": "", "us": ".0f", "to_leaves": ".2f"}
HYPERS: dict[str, Any] = dict(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1)


def draw(blocks: int, seed: int) -> Any:
    """Normal numbers: 64x64 kernels, biases and scales."""
    generator = np.random.default_rng(seed)
    shapes = {"kernel": (64, 64), "bias": (64,), "scale": (64,)}
    return {
        f"block_{i:03}": {
            name: jnp.asarray(generator.normal(size=shape).astype(np.float32))
            for name, shape in shapes.items()
        }
        for i in range(blocks)
    }


class Run:
    """One way to step the tree, in place."""

    def __init__(self, optimizer, params, grads):
        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, grads):
            return apply_fused(optimizer, grads, state, params)

        self.params = jax.tree.map(jnp.copy, params)
        self.state = jax.jit(optimizer.init)(params)
        self.compiled = step.lower(self.params, self.state, grads).compile()

    @property
    def fusions(self) -> int:
        """Loops and calls of the optimized program."""
        lines = self.compiled.as_text().split("ENTRY ")[1].splitlines()
        return sum(" fusion(" in line or " call(" in line for line in lines)

    def step(self, grads):
        """One step; returns what to wait for."""
        self.params, self.state = self.compiled(self.params, self.state, grads)
        return self.params, self.state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path, default=RESULTS)
    flags = parser.parse_args()
    seeds = itertools.count()
    params = draw(flags.blocks, next(seeds))
    grads = [draw(flags.blocks, next(seeds))]
    plain = adamp(1e-3, rules=((".*", ()),), **HYPERS)
    runs = {
        name: Run(optimizer, params, grads[0])
        for name, optimizer in {
            "leaf by leaf": plain,
            "in buckets": bucket_leaves(plain),
            "optax.adamw": optax.adamw(1e-3, **HYPERS),
        }.items()
    }

    def renew():
        grads[0] = jax.block_until_ready(draw(flags.blocks, next(seeds)))

    samples = interleave(
        {
            name: functools.partial(lambda run: run.step(grads[0]), run)
            for name, run in runs.items()
        },
        repeats=flags.repeats,
        before=renew,
    )
    baseline = statistics.median(samples["leaf by leaf"])
    rows = [
        {
            "by": name,
            "leaves": len(jax.tree.leaves(params)),
            "fusions": runs[name].fusions,
            "us": statistics.median(times) * 1e6,
            "to_leaves": statistics.median(times) / baseline,
        }
        for name, times in samples.items()
    ]
    print(table(rows, COLUMNS))
    write(flags.output, environment() | {"rows": rows})
    first, *others = (jax.tree.leaves(run.params) for run in runs.values())
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    main()
