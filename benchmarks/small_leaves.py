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

import jax
import numpy as np
from _kernel_leaves import Run, draw, optimizers
from _timing import environment, interleave, table, write

RESULTS = Path(__file__).parent / "results" / "small_leaves.json"
COLUMNS = {"by": "", "leaves": "", "fusions": "", "us": ".0f", "to_leaves": ".2f"}
NAMES = {
    ("one by one", "xla"): "leaf by leaf",
    ("in buckets", "xla"): "in buckets",
    ("one by one", "optax"): "optax.adamw",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path, default=RESULTS)
    flags = parser.parse_args()
    seeds = itertools.count()
    params = draw(flags.blocks, next(seeds))
    grads = [draw(flags.blocks, next(seeds))]
    runs = {
        NAMES[way]: Run(optimizer, params, grads[0])
        for way, optimizer in optimizers(kernel=None).items()
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
