# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own optimizer
#
# [![Open in Colab][badge]](https://colab.research.google.com/)
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# Many optimizers are announced as twice as fast as AdamW and turn out 1.1 times as
# fast, or not at all, once AdamW is tuned as well. To have yours compared, write it as
# an optax transform in any importable module and name it in a config by its path.
# Nothing is registered and nothing of gnomon is imported by it.
#
# Below: the sign of momentum (signSGD with momentum, Bernstein et al., 2018,
# [arXiv:1802.04434](https://arxiv.org/abs/1802.04434)) against AdamW on digits.

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
import sys
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from gnomon.experiments.config import plain
from gnomon.experiments.config.grid import chain, logspace, over, product
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.configs import digits_mlp
from gnomon.experiments.configs.optimizers import optimizer
from gnomon.experiments.report import write_report
from gnomon.experiments.sweep import Sweep, prepare, run_sweep

# These networks train in less time than a fully optimized program takes to compile.
jax.config.update("jax_disable_most_optimizations", True)

# %% [markdown]
# ## Your module
# In real use a file of your own; here it is written to a temporary folder. Its numbers
# may be traced, so a grid of learning rates is one compiled program.

# %%
MODULE = '''
import optax


def sign_momentum(learning_rate, momentum=0.9):
    """Steps of one size in every coordinate, along the sign of momentum."""
    return optax.chain(
        optax.trace(momentum),
        optax.scale_by_sign(),
        optax.scale_by_learning_rate(learning_rate),
    )
'''
folder = Path(tempfile.mkdtemp())
(folder / "my_optimizer.py").write_text(MODULE)
sys.path.insert(0, str(folder))

# %% [markdown]
# ## The sweep
# Four learning rates each, around where each is expected to be best, and three seeds.
# AdamW also runs at two other lengths: how much longer or shorter it must train to
# reach the same loss is the effective speedup.

# %%
base = digits_mlp.get_config("width=16,steps=80")
base.update(batch=32, tensorboard=False, evaluate=dict(every=0, batches=10, batch=100))
base.report.baseline = "AdamW"


def tuning(low, high):
    rates = over("optimizer.learning_rate", logspace(low, high, 4))
    return product(rates, over("seed", (0, 1, 2)))


adamw = [{"label": "AdamW", "optimizer": optimizer("adamw")}]
line = {"name": "my_optimizer.sign_momentum", "learning_rate": 1e-3, "momentum": 0.9}
mine = [{"label": "mine", "optimizer": line}]
lengths = over("steps", (50, 80, 130))
trials = chain(
    product(adamw, lengths, tuning(4e-3, 6.4e-2)), product(mine, tuning(4e-4, 2.5e-2))
)
sweep = Sweep(make_trials(plain(base), trials))
prepare(sweep, folder, {"config": "bring_your_own_optimizer"})
run_sweep(sweep, folder)
print(write_report(folder))  # report.html is the page to open
report = json.loads((folder / "report.json").read_text())

# %% [markdown]
# ## The picture

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="tight")
for cell in report["cells"]:
    grid = sorted(cell["grid"], key=lambda s: s["values"]["optimizer.learning_rate"])
    rates = [setting["values"]["optimizer.learning_rate"] for setting in grid]
    losses = np.array([setting["losses"] for setting in grid])
    label = f"{cell['label']}, {cell['steps']:.0f} steps"
    left.errorbar(rates, losses.mean(1), losses.std(1, ddof=1), marker=".", label=label)
left.set(title="tuning", xlabel="learning rate", ylabel="held-out loss")
left.set(xscale="log", yscale="log")
left.legend()
result = report["overall"][0]
low, high = result["interval"]
right.errorbar(
    [result["speedup"]],
    [0],
    xerr=[[result["speedup"] - low], [high - result["speedup"]]],
    fmt="o",
    capsize=5,
)
right.axvline(1, color="k", linestyle=":", label="as fast as AdamW")
right.set(title="effective speedup, 95 % interval", xlabel="times AdamW", yticks=[])
right.legend()
plt.show()

# %%
print(f"Seen: {result['verdict']}")
