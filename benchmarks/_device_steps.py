"""Sections on training: what the device can do, steps, updates, sweeps."""

import contextlib
import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _device_stages import Row, said

LARGE = dict(vocab=50_304, width=768, depth=12, head_dim=64, length=1024, batch=32)
SMALL = dict(vocab=256, width=32, depth=2, head_dim=16, length=32, batch=4)
STEPS = 8  # of a dispatch
# Config lines by name, `+` with the device's kernel.
METHODS = ("adamw", "adamp+", "adamp", "muon", "fadam+", "fadam", "hyperball+")
METHODS += ("hyperball", "lawn+", "lawn", "adam+")


def _seconds(call: Callable[[], Any], repeats: int, calls: int = 10) -> float:
    """The median time of a call, of some begun one after another and waited for."""
    import jax

    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            result = call()
        jax.block_until_ready(result)
        times.append((time.perf_counter() - begin) / calls)
    return statistics.median(times)


def alive() -> None:
    """Asks the device for a sum, which one that is lost to this process cannot give."""
    import jax.numpy as jnp

    if int(jnp.arange(8).sum()) != 28:
        raise RuntimeError("the device adds up wrongly")


def device_items(settings: Mapping[str, Any]) -> list[str]:
    """What `device` can be asked; of a CPU that stands in for one, what it is."""
    import jax

    if jax.default_backend() == "cpu" and not settings["quick"]:
        return ["environment"]
    return ["environment", "copy", "matmul"]


def device(item: str, settings: Mapping[str, Any]) -> list[Row]:
    """What the device is, and what it does at most."""
    import jax
    import jax.numpy as jnp

    quick = settings["quick"]
    if item == "environment":
        from _timing import environment

        chip = jax.devices()[0]
        found: Row = environment() | {
            "kind": chip.device_kind,
            "platform": chip.platform,
        }
        found["devices"] = len(jax.devices())
        with contextlib.suppress(Exception):
            found["bytes_limit"] = (chip.memory_stats() or {}).get("bytes_limit")
        asked = "driver_version,name,memory.total"
        with contextlib.suppress(Exception):  # there is no such command, or no GPU
            command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
            ran = subprocess.run(command, capture_output=True, timeout=20, text=True)
            found["driver"] = ran.stdout.strip()
        return [found]
    if item == "copy":
        count = 2**20 if quick else 2**29
        words, add = jnp.zeros(count, jnp.uint32), jax.jit(lambda x: x + 1)
        seconds = _seconds(lambda: add(words), 5)
        return [{"copy_GB_s": 8 * count / seconds / 1e9}]
    size = 256 if quick else 8192
    a, b = (
        jax.random.normal(jax.random.key(seed), (size, size), jnp.bfloat16)
        for seed in (0, 1)
    )
    seconds = _seconds(functools.partial(jax.jit(jnp.matmul), a, b), 5)
    return [{"matmul_TFLOP_s": 2 * size**3 / seconds / 1e12, "size": size}]


def line_of(method: str, kernel: str) -> dict[str, Any]:
    """A config line by its name here.

    Raises:
      KeyError: there is no such method.
    """
    from gnomon.experiments.configs.optimizers import optimizer

    name, fused = method.rstrip("+"), method.endswith("+")
    if name == "adam":  # AdamP on leaves without units
        line = dict(optimizer("adamp")) | {"rules": [[".*", []]]}
    else:
        line = dict(optimizer(name))
    if fused:
        line["implementation"] = kernel
    elif name not in ("adamw", "muon"):
        line["implementation"] = "xla"
    return line


def config_of(settings: Mapping[str, Any], line: dict, attention: str | None) -> dict:
    """The config of a step of the 124M model, or of a small one."""
    from gnomon.experiments.config import defaults, override, plain, validate

    sizes = SMALL if settings["quick"] else LARGE
    model = {k: v for k, v in sizes.items() if k not in ("length", "batch")}
    model |= {"scan": True, "logits_chunk": 128, "attention": attention}
    model |= {"dtype": "float32" if settings["quick"] else "bfloat16"}
    changes = {f"model.{name}": value for name, value in model.items()}
    batch = {"batch": sizes["batch"], "log_every": STEPS, "steps_per_dispatch": STEPS}
    config = override(plain(defaults()), changes | batch | {"tensorboard": False})
    config |= {"optimizer": line}
    config["evaluate"] |= {"batch": sizes["batch"], "batches": 1}
    validate(config)
    return config


def tokens_of(settings: Mapping[str, Any]) -> Any:
    """Random tokens as a data set."""
    import numpy as np

    from gnomon.experiments.data import Dataset

    sizes = SMALL if settings["quick"] else LARGE
    shape = (8 * sizes["batch"], sizes["length"] + 1)
    drawn = np.random.default_rng(0).integers(0, sizes["vocab"], shape, np.uint16)
    return Dataset({"tokens": drawn}, {"tokens": drawn}, "", "token")


def _kernel() -> str:
    import jax

    return "tpu" if jax.default_backend() == "tpu" else "gpu"


def step_items(settings: Mapping[str, Any]) -> list[str]:
    """What `step` can be asked: whole steps, and updates alone, in order of worth."""
    import jax

    accelerated = jax.default_backend() != "cpu"
    methods = [m for m in METHODS if accelerated or not m.endswith("+")]
    if settings["quick"]:
        return ["step adamw", "step adamp", "update adamw", "update adamp"]
    updates = [f"update {m}" for m in methods]
    steps = [f"step {m}" for m in methods]
    plain = ["step adamw, attention by xla"] if accelerated else []
    return [*steps[:2], *updates, *plain, *steps[2:]]


def step(item: str, settings: Mapping[str, Any]) -> list[Row]:
    """A whole step, or an update alone."""
    what, _, rest = item.partition(" ")
    method, _, attention = rest.partition(", attention by ")
    line = line_of(method, _kernel())
    config = config_of(settings, line, attention or None)
    row = {"method": method, "what": what, "attention": attention or "default"}
    row["by"] = line.get("implementation", "xla")
    if what != "step":
        return [row | _update(config, settings)]
    try:
        return [row | _whole(config, settings)]
    except Exception as problem:
        if attention or "dnn" not in str(problem).lower():
            raise
        # Without cuDNN, or where it has no plan for the call, a step is still a step.
        row["without_cudnn"] = said(problem)
    config["model"]["attention"] = "xla"
    return [row | _whole(config, settings)]


def _peak() -> int:
    import jax

    try:
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    except Exception:
        return 0


def _whole(config: dict, settings: Mapping[str, Any]) -> Row:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from gnomon.experiments.config.trials import make_trial
    from gnomon.experiments.trial.abstract import batch_shapes
    from gnomon.experiments.trial.cost import flops_per_step
    from gnomon.experiments.trial.lanes import compile_lanes, hypers_of
    from gnomon.experiments.trial.needs import peak_of
    from gnomon.models import dot_product

    model, batch = config["model"], config["batch"]
    trial, dataset = make_trial(config), tokens_of(settings)
    before, began = _peak(), time.perf_counter()
    lanes = compile_lanes([trial], dataset)
    compiled = time.perf_counter() - began
    hypers = jax.tree.map(jnp.asarray, hypers_of([trial]))
    state = lanes.init(np.zeros(1, np.uint32), hypers)
    shapes = batch_shapes(dataset.train, batch)
    blocks = {
        name: np.stack(
            [
                dataset.train[name][np.arange(batch) + batch * (at % 8)][None]
                for at in range(lanes.most)
            ]
        )
        for name in shapes
    }
    blocks = jax.device_put(blocks, lanes.place.blocks)
    which = jnp.zeros(1, jnp.int32)
    times = []
    for _ in range(3 if settings["quick"] else 4):
        begin = time.perf_counter()
        how = np.int32(lanes.most), np.bool_(False), which, hypers
        state, seen = lanes.steps(state, blocks, *how)
        jax.block_until_ready((state, seen))
        times.append((time.perf_counter() - begin) / lanes.most)
    seconds, peak = statistics.median(times[1:]), _peak()
    loss = float(seen.window["loss"][0] / seen.window["count"][0])
    # As `needs_of` has them, which traces the step four times for what is not asked.
    flops = flops_per_step(config, dataset)
    most = peak_of(jax.devices()[0].device_kind)
    tokens = batch * (dataset.train["tokens"].shape[1] - 1)
    shape = (batch, tokens // batch, model["width"] // model["head_dim"])
    asked = model["attention"]
    attention = dot_product.explain(
        (*shape, model["head_dim"]), model["dtype"], implementation=asked
    )
    live = sum(
        leaf.nbytes for leaf in jax.tree.leaves((state._replace(key=()), blocks))
    )
    return {
        "compile_s": compiled,
        "step_ms": 1e3 * seconds,
        "tokens_s": tokens / seconds,
        "mfu": flops / seconds / most if most else None,
        "flops": flops,
        "loss": loss,
        "attention": attention.implementation,
        "planned_GB": lanes.memory.total / 1e9,
        # Of the process: known where this item raised it.
        "peak_GB": peak / 1e9 if peak > before else None,
        "held_GB": lanes.memory.arguments / 1e9,
        "live_GB": live / 1e9,
    }


def _update(config: dict, settings: Mapping[str, Any]) -> Row:
    import jax
    import jax.numpy as jnp

    from gnomon.experiments.config.trials import split
    from gnomon.experiments.trial.abstract import batch_shapes
    from gnomon.experiments.trial.optimizer import make_optimizer
    from gnomon.experiments.trial.program import make_program
    from gnomon.optimizers import apply_fused

    static, traced = split(config)
    hypers = {path: jnp.asarray(value) for path, value in traced.items()}
    program = make_program(static)
    batch = batch_shapes(tokens_of(settings).train, config["batch"])
    state = jax.jit(lambda: program.init(jnp.uint32(0), hypers, batch))()
    grads = jax.tree.map(
        lambda w: (
            1e-3 * jnp.cos(jnp.arange(w.size) % 997.0).reshape(w.shape).astype(w.dtype)
        ),
        state.params,
    )

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def move(params, opt_state, grads):
        optimizer = make_optimizer(static, hypers)
        return apply_fused(optimizer, grads, opt_state, params)

    began = time.perf_counter()
    compiled = move.lower(state.params, state.opt_state, grads).compile()
    seconds = time.perf_counter() - began
    held = [state.params, state.opt_state]

    def call() -> Any:
        held[:] = compiled(*held, grads)
        return held

    numbers = sum(w.size for w in jax.tree.leaves(grads))
    taken = _seconds(call, 5 if settings["quick"] else 20)
    finite = all(bool(jnp.isfinite(w).all()) for w in jax.tree.leaves(held[0]))
    row = {"compile_s": seconds, "update_ms": 1e3 * taken, "finite": finite}
    return row | {"passes_GB_s": 28 * numbers / taken / 1e9}


SWEEP = """
import sys, time
begin = time.time()
from pathlib import Path
import importlib.util, types
import numpy as np
import jax
if importlib.util.find_spec("grain") is None:  # it shuffles; any shuffle takes as long
    class Epochs:
        def __init__(self, *given): self.given = given
        range = classmethod(lambda cls, count: cls())
        def seed(self, seed): return Epochs(seed)
        def random_map(self, function): return Epochs(*self.given, function)
        def __getitem__(self, epoch):
            seed, function = self.given
            return function(epoch, np.random.default_rng([seed, epoch]))
    sys.modules["grain"] = types.SimpleNamespace(MapDataset=Epochs)
how, folder, data, count, steps, width = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", folder + "/xla")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
from gnomon.experiments.config import defaults, override, plain
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.fleet.local import run_sweep
from gnomon.experiments.fleet.preparation import Sweep, prepare
from gnomon.experiments.train import train
config = override(plain(defaults()), {
    "steps": int(steps), "batch": 16, "tensorboard": False, "checkpoint_every": 10**6,
    "model.vocab": 256, "model.width": int(width), "model.depth": 4, "model.scan": True,
    "evaluate.batch": 16, "evaluate.batches": 2,
})
config["data"] = {"name": "tokens", "path": data, "length": 128, "vocabulary": 256}
rates = [1e-3 * 2 ** (i / 2) for i in range(int(count))]
if how == "lanes":
    trials = make_trials(config, [{"optimizer.learning_rate": r} for r in rates])
    sweep, folder = Sweep(trials), Path(folder, "lanes")
    prepare(sweep, folder, {})
    run_sweep(sweep, folder)
else:
    at = int(how)
    train(override(config, {"optimizer.learning_rate": rates[at]}), Path(folder, how))
"""


def sweep_items(settings: Mapping[str, Any]) -> list[str]:
    """Two items: a cut after the first leaves what it measured."""
    return ["lanes", "a process a trial"]


def sweep(item: str, settings: Mapping[str, Any]) -> list[Row]:
    """Trials an hour of one program, or of a process a trial, compiled beforehand."""
    import numpy as np

    count, steps, width = (3, 8, 32) if settings["quick"] else (16, 400, 128)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "data")
        data.mkdir()
        drawn = np.random.default_rng(0).zipf(1.3, 2**20) % 256
        np.save(data / "train.npy", drawn.astype(np.uint16))
        words = [scratch, str(data), *map(str, (count, steps, width))]
        row = {"by": item, "trials": count, "steps": steps}
        if item == "lanes":
            seconds = _process("lanes", words)
            return [row | {"seconds": seconds, "trials_hour": 3600 * count / seconds}]
        # The first compiles; the other finds its programs in the cache.
        first, seconds = (_process(how, words) for how in ("0", "1"))
        row |= {"trials": 1, "first_seconds": first}
    return [row | {"seconds": seconds, "trials_hour": 3600 / seconds}]


def _process(how: str, words: list[str]) -> float:
    """The seconds that a process of `SWEEP` takes.

    Raises:
      RuntimeError: it ended with an error, the last line of which this tells.
    """
    begin = time.perf_counter()
    command = [sys.executable, "-c", SWEEP, how, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        lines = done.stderr.strip().splitlines() or [""]
        raise RuntimeError(f"{how}: exit status {done.returncode}: {lines[-1]}")
    return time.perf_counter() - begin
