# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of gnomon
#
# [![Open in Colab][badge]](https://colab.research.google.com/)
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# Four rooms in sixty lines: a transform with a probe around it, a fair comparison
# driven by a config, the law that its runs follow, and a picture.

# %%
# Installs gnomon where it is missing, as on Colab; elsewhere this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("gnomon") is None:
    repository = input("URL of gnomon's git repository: ")
    source = f"gnomon[experiments] @ git+{repository}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %%
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from gnomon import dynamics
from gnomon.experiments.config import plain
from gnomon.experiments.config.grid import chain, logspace, over, product
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.configs import digits_mlp
from gnomon.experiments.configs.optimizers import optimizer
from gnomon.experiments.records.tables import run_table
from gnomon.experiments.report import write_report
from gnomon.experiments.sweep import Sweep, prepare, run_sweep
from gnomon.optimizers import sgdp
from gnomon.scaling import fit_compute

# These networks train in less time than a fully optimized program takes to compile.
jax.config.update("jax_disable_most_optimizations", True)

# %% [markdown]
# ## A transform, and what it does to a weight
# Any optax transform takes SGDP's place; `measure` keeps the motion of its last step.

# %%
w = {"kernel": jax.random.normal(jax.random.key(0), (8, 4))}


def loss(w):  # sees directions alone, not lengths
    units = w["kernel"] / jnp.linalg.norm(w["kernel"], axis=0)
    return -jnp.sum(units[0])


growth = {}
for name, make in {"SGD": optax.sgd, "SGDP": sgdp}.items():
    rule = dynamics.measure(make(1.0, momentum=0.9))
    params, state = w, rule.init(w)
    update = jax.jit(rule.update)
    for _ in range(20):
        updates, state = update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    growth[name] = float(dynamics.records(state)["all"].weight_norm)
print("norm after 20 steps:", growth)

# %% [markdown]
# ## A fair comparison
# Each optimizer has its own three learning rates and three seeds; the baseline also
# runs at other lengths, so that its own curve says what a better loss would cost.

# %%
base = digits_mlp.get_config("width=16,steps=80")
base.update(batch=32, tensorboard=False, evaluate=dict(every=0, batches=10, batch=100))
base.report.baseline = "AdamW"
tuning = product(
    over("optimizer.learning_rate", logspace(4e-3, 6.4e-2, 3)), over("seed", (0, 1, 2))
)
adamw = [{"label": "AdamW", "optimizer": optimizer("adamw")}]
other = [{"label": "AdamP", "optimizer": optimizer("adamp")}]
lengths = over("steps", (20, 40, 80, 160))
trials = chain(product(adamw, lengths, tuning), product(other, tuning))
workdir = Path(tempfile.mkdtemp())
sweep = Sweep(make_trials(plain(base), trials))
prepare(sweep, workdir, {"config": "tour"})
run_sweep(sweep, workdir)
print(write_report(workdir))  # report.html is the page to open
verdict = json.loads((workdir / "report.json").read_text())["overall"][0]["verdict"]

# %% [markdown]
# ## A law
# The baseline's loss against compute, every length and seed at its best learning rate.

# %%
runs = run_table(workdir)
cells = {}
columns = (runs[name] for name in ("label", "compute", "seed", "loss"))
for label, flops, seed, final in zip(*columns, strict=True):
    if label == "AdamW":
        cells[flops, seed] = min(final, cells.get((flops, seed), np.inf))
compute, tuned = np.array([c for c, _ in cells]), np.array(list(cells.values()))
law = fit_compute(compute=compute, loss=tuned)
low, high = law.interval("alpha", 0.95)

figure, axis = plt.subplots(figsize=(6, 4), layout="tight")
line = np.geomspace(compute.min(), 2 * compute.max(), 50)
axis.plot(line, law.E + law.A / line**law.alpha, label=f"exponent {law.alpha:.2f}")
axis.plot(compute, tuned, "ko", label="AdamW, tuned")
axis.set(title="digits", xlabel="FLOPs of training", ylabel="held-out loss")
axis.set(xscale="log", yscale="log")
axis.tick_params(axis="x", which="minor", labelbottom=False)
axis.legend()
plt.show()

# %%
print(
    f"Seen: without a radial step the norm ends at {growth['SGDP']:.2f}, not"
    f" {growth['SGD']:.2f}. {verdict} AdamW's loss falls with compute as a constant"
    f" plus C^-{law.alpha:.2f}, interval [{low:.2f}, {high:.2f}]."
)
