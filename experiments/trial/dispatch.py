"""Many training steps in one dispatch: their loop, and how many there are.

A dispatch is a loop over the steps whose batches it is sent. Its length is an argument:
one program takes any number of steps, each by the same instructions, so that the
numbers of a run do not tell how it was parted into dispatches: by what it logs, by the
clock, by an interruption. Where a run is logged so often that its dispatches would be
short, there is no loop, and a dispatch is a step. The numbers of that program are the
loop's: to the bit on a CPU, and on a mesh to the rounding of sums in another order.
"""

import collections
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.experiments.config.spikes import checkpoint_period
from gnomon.experiments.trial.optimizer import Hypers
from gnomon.experiments.trial.probes import settings_of
from gnomon.experiments.trial.spikes import emptied, told
from gnomon.experiments.trial.step import Batch, TrainState

MOST, FEWEST = 64, 4
BLOCK_BYTES = 64 * 2**20
"""The most that the batches of a dispatch may take, unless one batch is larger."""
SECONDS = 0.25
"""What a dispatch should take at most: progress is shown, and Ctrl-C heard, between."""


class Seen(NamedTuple):
    """What a dispatch leaves to be read, beside the state that the next one consumes.

    Attributes:
      window: sums of the metrics since they were last read.
      diverged_at: as of the state.
      spikes: those since a row was last written; empty where none are looked for.
    """

    window: Mapping[str, jax.Array]
    diverged_at: jax.Array
    spikes: Mapping[str, jax.Array]


def looped(step: Callable[[TrainState, Batch, Hypers], TrainState]) -> Callable:
    """The loop over a step.

    Args:
      step: ``(state, batch, hypers) -> state``.

    Returns:
      ``(state, pick, count, logging, hypers) -> (state, seen)``, where ``pick(i)`` is
      the batch of the i-th of the ``count`` steps. With ``logging`` the new state's
      window is empty, and its spikes are told.

    Example:
      >>> def step(state, batch, hypers):
      ...     return state._replace(window={"loss": state.window["loss"] + batch})
      >>> state = TrainState(*[None] * 5, {"loss": 0}, -1, {})
      >>> state, seen = looped(step)(state, lambda i: 10 * i, 3, True, None)
      >>> int(seen.window["loss"]), int(state.window["loss"])
      (30, 0)
    """

    def steps(state, pick, count, logging, hypers):
        state = jax.lax.fori_loop(
            0, count, lambda at, state: step(state, pick(at), hypers), state
        )
        seen = Seen(state.window, state.diverged_at, told(state.spikes))
        window = jax.tree.map(
            lambda x: jnp.where(logging, jnp.zeros_like(x), x), state.window
        )
        spikes = emptied(state.spikes, logging)
        return state._replace(window=window, spikes=spikes), seen

    return steps


def most_steps(config: Mapping, batch_bytes: int) -> int:
    """How many steps a dispatch may have; 1 where a dispatch is a step without a loop.

    ``config.steps_per_dispatch`` says it. With 0 it is what lies between the steps
    after which something is to be done, at most `MOST`, and no more than batches of
    `BLOCK_BYTES`; of fewer than `FEWEST` a loop gains little over their program alone.

    Args:
      config: the config.
      batch_bytes: of one step's batches.

    Example:
      >>> config = {"log_every": 20, "checkpoint_every": 200, "evaluate": {"every": 0}}
      >>> auto, three = (config | {"steps_per_dispatch": n} for n in (0, 3))
      >>> most_steps(auto, 10**6), most_steps(auto, 10**9), most_steps(three, 10**6)
      (20, 1, 3)
    """
    periods, watched = _periods(config)
    between = min([*periods, *watched])
    if asked := config["steps_per_dispatch"]:
        return min(asked, between)
    fitting = min(between, MOST, BLOCK_BYTES // max(batch_bytes, 1))
    return fitting if fitting >= FEWEST else 1


def slow_in_a_loop(lowered: Any) -> bool:
    """Whether a program is better off without the loop: on a CPU, one that convolves.

    XLA's CPU compiler is fast at all convolutions of a step outside loops alone: within
    one, a step of a small ResNet takes tens of times as long.

    Args:
      lowered: the program, as `jax.jit` lowers it.
    """
    if jax.default_backend() != "cpu":
        return False
    return "stablehlo.convolution" in lowered.as_text()


def _periods(config: Mapping) -> tuple[list[int], list[int]]:
    """How often a dispatch must end with a step, and how often it must be one step."""
    probes = settings_of(config)
    periods = [config["log_every"], checkpoint_period(config)]
    watched = [probes["cheap_every"], probes["full_every"]]
    watched += [config["log_every"]] * bool(probes["free"])
    every = [*periods, config["evaluate"]["every"]]
    return [p for p in every if p], [p for p in watched if p]


def steps_until_due(config: Mapping, step: int) -> int:
    """How many steps may follow a step before something is due between two of them.

    Rows, evaluations and checkpoints come after their step. A step with probes has
    them before it and its row after it: it stands alone.

    Args:
      config: the config.
      step: steps taken.

    Example:
      >>> config = {"log_every": 20, "checkpoint_every": 50, "evaluate": {"every": 0}}
      >>> config |= {"steps": 70, "dynamics": {"cheap_every": 15}}
      >>> steps, step = [], 0
      >>> while step < 70:
      ...     step += steps_until_due(config, step)
      ...     steps.append(step)
      >>> steps
      [14, 15, 20, 29, 30, 40, 44, 45, 50, 59, 60, 70]
    """
    periods, watched = _periods(config)
    ends = [config["steps"], *(step + p - step % p for p in periods)]
    for period in watched:
        due = step + period - step % period
        ends.append(max(due - 1, step + 1))
    return min(ends) - step


class Pace:
    """How many steps a dispatch may have, by the time that earlier ones took.

    It keeps two dispatches under way, one that runs and the next, and waits for the one
    before them.

    Args:
      most: the most steps of a dispatch.
      clock: the time in seconds.

    Attributes:
      short: how many steps a dispatch may have now.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic):
        self._most, self._clock = most, clock
        self._under_way: tuple[int, float, Any] | None = None
        self._ended = clock()
        # A dispatch that waits for an evaluation or a save seems to take that long.
        self._taken: collections.deque[float] = collections.deque(maxlen=3)
        self.short = 1

    def part(self, steps: int) -> int:
        """How many of the next ``steps`` to take now, in parts of about one length."""
        parts = -(-steps // min(self.short, self._most))
        return -(-steps // parts)

    def sent(self, count: int, left: Any) -> None:
        """Takes note of a dispatch of ``count`` steps, and waits for that before it.

        Args:
          count: the steps.
          left: what it leaves to be read; None for a step without the loop.
        """
        if left is None:
            return
        before, self._under_way = self._under_way, (count, self._clock(), left)
        if before is not None:
            earlier, begun, found = before
            jax.block_until_ready(found)
            now = self._clock()
            self._taken.append((now - max(begun, self._ended)) / earlier)
            self._ended = now
            self.short = max(1, int(SECONDS / max(min(self._taken), 1e-9)))
