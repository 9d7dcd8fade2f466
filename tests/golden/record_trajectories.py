"""Records twenty steps of every row of the contract, or compares with a record.

    python tests/golden/record_trajectories.py FILE.npz
    python tests/golden/record_trajectories.py FILE.npz --against OTHER.npz

A change that means to leave the numbers alone records before and after, and sees here
which leaves of parameters and state are equal bit for bit, and how far the others are
apart. The record is of one machine and one release of JAX: it is not stored.
"""

import argparse
import os
import sys
from pathlib import Path

# XLA's optimizations fuse by what is near, so that they move last bits by themselves.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from gnomon_contract import Problem, collect, quadratic

STEPS = 20
SHAPES = {
    "dense": {"kernel": (8, 4), "bias": (4,)},
    "conv": {"kernel": (3, 3, 2, 5)},
    "norm": {"scale": (4,)},
    "embed": {"embedding": (8, 4)},
    "blocks": {"stacked": {"kernel": (2, 4, 6)}},
    "temperature": (),
}


def mixed_tree(dtype):
    leaves, layout = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [
        jax.random.normal(k, s, jnp.float32) for k, s in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(layout, [x.astype(dtype) for x in drawn])


def record() -> dict[str, np.ndarray]:
    """Every number of parameters and state after the last step, by row and dtype."""
    found = {}
    for row in collect.rows():
        for dtype in ("float32", "bfloat16"):
            problem = Problem(mixed_tree(dtype), quadratic)
            optimizer = row.build()
            last = jax.jit(lambda p=problem, o=optimizer, r=row: p.scan(r, o, STEPS))()
            for number, leaf in enumerate(jax.tree.leaves(last)):
                # NumPy's files know no bfloat16.
                wide = leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf
                found[f"{row.name} {dtype} {number:03d}"] = np.asarray(wide)
        print(f"{row.name}: {sum(name.startswith(row.name + ' ') for name in found)}")
    return found


def compare(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> int:
    """Prints each row whose leaves differ, and the largest difference; 1 if any."""
    worst: dict[str, float] = {}
    for name in sorted(before.keys() | after.keys()):
        row = name.rsplit(" ", 1)[0]
        if name not in before or name not in after:
            print(f"{name}: only {'after' if name in after else 'before'}")
            worst[row] = np.inf
        elif not np.array_equal(before[name], after[name], equal_nan=True):
            a, b = (np.asarray(x[name], np.float64) for x in (before, after))
            away = np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-30)
            worst[row] = max(worst.get(row, 0.0), float(away))
    for row, away in worst.items():
        print(f"{row}: relative difference {away:.2g}")
    print(f"{len(before)} leaves before, {len(worst)} rows differ")
    return int(bool(worst))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    found = record()
    np.savez_compressed(given.file, **found)
    if given.against is None:
        return 0
    return compare(dict(np.load(given.against)), found)


if __name__ == "__main__":
    raise SystemExit(main())
