"""What a step of each method costs next to ``optax.adamw``.

    python benchmarks/update_cost.py [--methods=adamp,fadam] [--repeats=9] [--quick]

A step is ``update`` and ``apply_updates`` in one jitted function that is given the
parameters and the state for good (donated), on float32 parameters in one leaf and in
200, with a fresh random gradient every round. Each method takes turns with AdamW in the
same rounds; ``ratio`` is of the fastest calls. ``temporary`` is what the compiled step
allocates beside its arguments, in megabytes. In the same run every step is compared
with the unjitted update on a small tree, and after the timing all parameters must be
finite and have moved.

Why some methods cost what they do on CPU. XLA makes one loop a result there and AdamW
is three of them: ten passes over the leaf, no temporaries. An array that two loops
share is written out unless it is cheap to recompute, and a square root or a division is
not cheap by XLA's rule. A temporary of the size of a large leaf comes fresh from the
operating system on every call, and its page faults cost as much as six passes.

* FAdam's inverse denominator is needed for two RMS and two results. Written plainly
  that makes three temporaries and 27 passes, 4.5 times AdamW. Recomputing it for each
  use (a barrier each), summing both squares in one loop and keeping the root of the
  Fisher information instead of its square make it 15 passes without temporaries, two
  times AdamW's. What is left above that is the loop of the sums: it adds along a row
  one number after another, which the vector units cannot speed up.
* AdamP's direction is needed by the radial part and by the step, so it is a temporary,
  and each of the four sums over a unit is a loop of its own: 18 passes. SGDP likewise.
  Recomputing the direction after a barrier, as FAdam does, costs more: the moments are
  then read twice after they change, and XLA copies both (three temporaries, 4.4 times
  AdamW).
* LAWN takes three sums (<w, g>, <w, u>, |w + u|^2) that must each wait for the one
  before, 26 passes, and chooses between its phases at run time: what crosses the edge
  of a branch is written out, here two temporaries. One branch around the whole step
  instead of one a stage is no way out: XLA copies the moments that it is to update in
  place (four temporaries, 5.5 times AdamW).
* Target variance rescaling does nothing in 49 of 50 steps, but its branch still needs
  the updates, the sums and the result as arrays: three temporaries.
* Weight normalization has no temporary; the sums over a unit of v (its norm, and its
  product with the gradient) and the two trees it steps are its extra passes.

A fused kernel is the way below these: one that keeps a unit on the chip between its
sums and its step.
"""

import argparse
import functools
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import _timing
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.experiments.config.resolve import build
from gnomon.experiments.configs.optimizers import optimizer as config_line

RESULTS = Path(__file__).parent / "results" / "update_cost.json"
BASELINE = "adamw"


class Method(NamedTuple):
    """A method under measurement."""

    goal: float | None = None  # the ratio to stay within on CPU
    changes: Mapping[str, Any] = {}  # to its line in experiments/configs/optimizers.py


# What is measured when --methods is not given; any config line can be named there.
METHODS = {
    "adamp": Method(1.25),
    "sgdp": Method(),
    "fadam": Method(1.5),
    # Timed where it does its work: after the free steps.
    "lawn": Method(1.25, {"free_steps": 0.0}),
    "target_variance_rescaling": Method(1.25),
    "weight_norm_adamw": Method(1.6),
}

COLUMNS = {
    "method": "",
    "parameters": ",",
    "leaves": "",
    "adamw_ms": ".2f",
    "method_ms": ".2f",
    "ratio": ".2f",
    "median_ratio": ".2f",
    "goal": ".2f",
    "temporary": ".0f",
}


def leaf_shape(size: int) -> tuple[int, int]:
    """The most nearly square matrix of ``size`` numbers."""
    rows = math.isqrt(size)
    while size % rows:
        rows -= 1
    return rows, size // rows


@functools.partial(jax.jit, static_argnums=(1, 2))
def random_tree(key, parameters, leaves):
    """Normal numbers, none of them zero, in equal kernels."""
    shape = leaf_shape(parameters // leaves)
    return {
        f"layer_{i:03}": {
            "kernel": jax.random.normal(jax.random.fold_in(key, i), shape)
        }
        for i in range(leaves)
    }


def make_optimizer(name: str) -> optax.GradientTransformationExtraArgs:
    """Builds a config line, with the changes that its measurement asks for."""
    spec = {**config_line(name), **METHODS.get(name, Method()).changes}
    return optax.with_extra_args_support(build(spec))


class Run:
    """One method with its parameters and state, stepped in place."""

    def __init__(self, name, key, parameters, leaves):
        self.optimizer = make_optimizer(name)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, grads, value):
            updates, state = self.optimizer.update(
                grads, state, params, value=value, grad=grads
            )
            return optax.apply_updates(params, updates), state

        self.params = random_tree(key, parameters, leaves)
        self.state = jax.jit(self.optimizer.init)(self.params)
        self.check_against_unjitted(step)
        self.start = self.corners()
        self.value = jnp.ones([])
        lowered = step.lower(self.params, self.state, self.params, self.value)
        self.compiled = lowered.compile()
        memory = self.compiled.memory_analysis()
        self.temporary = memory and memory.temp_size_in_bytes / 1e6

    def step(self, grads):
        """One step, compiled and in place; returns what to wait for."""
        self.params, self.state = self.compiled(
            self.params, self.state, grads, self.value
        )
        return self.params, self.state

    def corners(self):
        """A few numbers of every leaf."""
        return jax.tree.map(lambda x: np.array(x[:2, :2]), self.params)

    def check_against_unjitted(self, step):
        """Raises if the step differs from the plain update on a small tree."""
        params, grads = (random_tree(jax.random.key(i), 60, 2) for i in (1, 2))
        state, value = self.optimizer.init(params), jnp.ones([])
        updates, _ = self.optimizer.update(
            grads, state, params, value=value, grad=grads
        )
        wanted = optax.apply_updates(params, updates)
        actual, _ = step(params, state, grads, value)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
            actual,
            wanted,
        )

    def check_moved(self, name):
        """Raises if some parameter is not finite or some leaf stayed where it was."""
        finite = jax.tree.map(lambda x: jnp.isfinite(x).all(), self.params)
        if not all(jax.tree.leaves(finite)):
            raise FloatingPointError(f"{name}: parameters are not finite any more")
        moved = jax.tree.map(lambda a, b: np.any(a != b), self.start, self.corners())
        if not all(jax.tree.leaves(moved)):
            raise AssertionError(f"{name}: some leaf did not move")


def measure(name, baseline, key, parameters, leaves, repeats) -> dict[str, Any]:
    """Times one method against the baseline on one tree."""
    run = Run(name, key, parameters, leaves)
    grads, keys = None, iter(jax.random.split(key, repeats + 1))

    def fresh():
        nonlocal grads
        grads = jax.block_until_ready(random_tree(next(keys), parameters, leaves))

    seconds = _timing.interleave(
        {
            "baseline": lambda: baseline.step(grads),
            "method": lambda: run.step(grads),
        },
        repeats=repeats,
        before=fresh,
    )
    run.check_moved(name)
    return {
        "method": name,
        "parameters": parameters,
        "leaves": leaves,
        "adamw_ms": 1e3 * min(seconds["baseline"]),
        "method_ms": 1e3 * min(seconds["method"]),
        **_timing.ratios(seconds["method"], seconds["baseline"]),
        "goal": METHODS.get(name, Method()).goal,
        "temporary": run.temporary,
        "samples_ms": {k: [1e3 * s for s in v] for k, v in seconds.items()},
    }


def main() -> None:
    """Measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--parameters", default="10_000_000,50_000_000")
    parser.add_argument("--leaves", default="1,200")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.parameters, arguments.leaves, arguments.repeats = "6000", "1,3", 2
    names = arguments.methods.split(",")
    for name in names:
        config_line(name)  # an unknown name is refused before any work
    # The fast generator: drawing the gradients would take longer than the steps.
    key = jax.random.key(0, impl="rbg")
    record = _timing.environment()
    rows = []
    for parameters in map(int, arguments.parameters.split(",")):
        for leaves in map(int, arguments.leaves.split(",")):
            baseline = Run(BASELINE, key, parameters, leaves)
            for name in names:
                row = measure(
                    name, baseline, key, parameters, leaves, arguments.repeats
                )
                rows.append(row)
                case = f"{name}, {parameters:,} in {leaves}"
                print(f"{case}: {row['ratio']:.2f}", file=sys.stderr)
            baseline.check_moved(BASELINE)
    print(_timing.table(rows, COLUMNS))
    _timing.write(arguments.out, {**record, "rows": rows})


if __name__ == "__main__":
    main()
