# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sharpness, noise and drift in training
#
# [![Open in Colab][badge]](https://colab.research.google.com/)
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# Three behaviours that papers report, looked for with `gnomon.dynamics` in small
# networks trained on 4,000 digits. Each ends in a picture and a sentence; the numbers
# in the sentence, and whether it agrees, are computed. Two more are in `dynamics`.

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
import contextlib
import io
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.stats import spearmanr

from gnomon import dynamics
from gnomon.experiments.config import load as load_config
from gnomon.experiments.config import override
from gnomon.experiments.data import load as load_data
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.train import train
from gnomon.models import MLP, functional

# These networks train in less time than a fully optimized program takes to compile.
jax.config.update("jax_disable_most_optimizations", True)
plt.rcParams.update(
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "figure.dpi": 110,
        "legend.frameon": False,
    }
)


def verdict(agrees):
    return "agrees with" if agrees else "DOES NOT AGREE with"


def plain_numbers(*axes):
    """Plain numbers on logarithmic axes."""
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


digits = load_data({"name": "digits"}).train
pixels = jnp.asarray(digits["image"], jnp.float32).reshape(-1, 14, 2, 14, 2)
images = pixels.mean((2, 4)).reshape(-1, 196) / 255
labels = jnp.asarray(digits["label"])

# %% [markdown]
# ## Full-batch descent sits at 2 / learning rate
#
# Gradient descent on a quadratic diverges where the curvature passes $2/\eta$. In a
# network the sharpness, the Hessian's largest eigenvalue, rises to that bound and stays
# there while the loss goes on falling
# ([Cohen et al., 2021](https://arxiv.org/abs/2103.00065)). Three learning
# rates, a gelu network, squared error, 200 digits at once; the sharpness comes from
# Lanczos. The network was chosen so that it gets there: with one hidden layer and 500
# digits, 1,500 steps at rates of 0.05 and 0.1 ended at 0.3 and 0.6 of the bound.

# %%
smooth = functional(MLP, inputs=196, widths=(32, 32), activation="gelu")
targets = jax.nn.one_hot(labels[:200], 10)


def squared_error(params):
    outputs, _ = smooth.apply(params, {}, images[:200], train=True)
    return jnp.mean(jnp.sum((outputs - targets) ** 2, axis=1))


beginning, _ = jax.jit(smooth.init)(jax.random.key(0))


def descend(rate):
    def step(params, _):
        grads = jax.grad(squared_error)(params)
        return jax.tree.map(lambda w, g: w - rate * g, params, grads), None

    def look(params, _):
        # An odd number of steps: the oscillation across the valley has period two.
        params, _ = jax.lax.scan(step, params, length=25)
        top = dynamics.top_eigenvalues(squared_error, params, iterations=10)
        return params, (squared_error(params), top.values[0])

    return jax.lax.scan(look, beginning, length=60)[1]


rates = np.array([0.05, 0.1, 0.2], np.float32)
losses, sharpness = jax.device_get(jax.jit(lambda: jax.lax.map(descend, rates))())
edge = np.asarray(dynamics.stability_ratio(sharpness, rates[:, None]))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
steps = 25 * np.arange(1, 61)
for i, color in enumerate(("C0", "C1", "C3")):
    left.plot(steps, sharpness[i], color=color, label=f"learning rate {rates[i]:.2f}")
    left.axhline(2 / rates[i], color=color, linestyle="--", linewidth=1)
    right.plot(steps, losses[i], color=color)
left.set(xlabel="step", ylabel="sharpness; dashed: 2 / learning rate", ylim=(0, None))
left.legend(loc=(0.6, 0.6))
right.set(xlabel="step", ylabel="training loss", yscale="log")
plain_numbers(right.yaxis)
plt.show()

# %%
late, fall = edge[:, 30:], losses[:, -1] / losses[:, 30]
agrees = np.all(np.abs(late.mean(1) - 1) < 0.1) and np.all(fall < 1)
print(
    "In the second half of training the sharpness was, at learning rates "
    f"{', '.join(f'{rate:.2f}' for rate in rates)}, on average "
    f"{', '.join(f'{row.mean():.2f}' for row in late)} times 2 / learning rate "
    f"({late.min():.2f} to {late.max():.2f}) while the loss fell to "
    f"{', '.join(f'{share:.2f}' for share in fall)} of itself, which {verdict(agrees)} "
    "Cohen et al."
)

# %% [markdown]
# ## A run of the trainer, probed by its config
#
# The last two behaviours are read off `metrics.jsonl` of one run: an MLP, SGD at a
# constant learning rate, measured every eight steps, its gradient noise every 20.

# %%
config = override(
    load_config("digits_mlp.py:width=64,steps=1000,optimizer=sgd"),
    {
        "batch": 256,
        "optimizer.learning_rate": 0.05,
        "optimizer.momentum": 0.0,
        "optimizer.nesterov": False,
        "schedule.warmup": 0.0,
        "schedule.final": 1.0,
        "dynamics": {"free": True, "cheap_every": 20},
        "log_every": 8,
        "evaluate.every": 0,
        "tensorboard": False,
    },
)
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    train(config, Path(folder))
    rows = read_metrics(folder)


def column(name):
    """The steps that have a metric, and the metric."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return np.array(found).T


# %% [markdown]
# ## The noise scale rises as the loss falls
#
# The gradient noise scale $\operatorname{tr}\Sigma / |G|^2$ says up to which batch size
# larger batches save steps ([McCandlish et al., 2018](https://arxiv.org/abs/1812.06162)).
# One batch tells little of $|G|^2$, so noise and signal are averaged over five batches
# and the averages divided.

# %%
_, noise = column("dynamics/gradient_noise/all")
at, signal = column("dynamics/gradient_signal/all")
logged, loss = column("train_loss")
noise, signal, at = (x.reshape(-1, 5) for x in (noise, signal, at))
scale = noise.mean(1) / signal.mean(1)
level = [loss[(logged > b[0] - 20) & (logged <= b[-1])].mean() for b in at]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(logged, loss, color="C7", linewidth=0.8)
left.set(xlabel="step", ylabel="training loss", yscale="log")
right.plot(level, scale, "o-", color="C0")
right.set(
    xlabel="training loss (falling to the right)",
    ylabel="noise scale, examples",
    xscale="log",
    yscale="log",
)
right.invert_xaxis()
plain_numbers(left.yaxis, right.xaxis, right.yaxis)
plt.show()

# %%
correlation, chance = spearmanr(level, scale)
agrees = correlation < 0 and chance < 0.01
print(
    f"As the loss fell from {level[0]:.2f} to {level[-1]:.2f} the noise scale went "
    f"from {scale[0]:.0f} to {scale[-1]:.0f} examples, with a rank correlation of "
    f"{correlation:.2f} (p = {chance:.1g}), which {verdict(agrees)} McCandlish et al."
)

# %% [markdown]
# ## The distance from the start grows like log t
#
# Weights under SGD at a constant rate drift from where they began ever more slowly:
# their distance is a straight line over the logarithm of the step
# ([Hoffer et al., 2017](https://arxiv.org/abs/1705.08741)), not over its root, as that
# of a free random walk would be. The line is fitted from where the loss has halved:
# over all steps of a first run, from step 1 on, log t explained 93 % and sqrt t 94 %.

# %%
t, distance = column("dynamics/distance/all")
chosen = np.unique(np.geomspace(1, len(t), 60).astype(int)) - 1
t, distance = t[chosen], distance[chosen]
# The fall from the random start is no drift: what counts is what comes after it.
halved = logged[np.argmax(loss < loss[0] / 2)]


def explained(first):
    """The share of the distance's variance that a line explains, and the line."""
    late = t >= first
    found = {}
    for name, x in {"log t": np.log(t), "sqrt t": np.sqrt(t), "t": t}.items():
        line = np.polyval(np.polyfit(x[late], distance[late], 1), x)
        rest = np.var((distance - line)[late]) / np.var(distance[late])
        found[name] = 1 - rest, np.where(late, line, np.nan)
    return found


whole, drift = explained(0), explained(halved)

# %%
figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
axis.plot(t, distance, "o", color="black", markersize=3, label="seen")
for name, (share, line) in drift.items():
    axis.plot(t, line, label=f"a + b {name}: explains {share:.1%}")
axis.axvline(halved, color="C7", linestyle="--", linewidth=1)
axis.text(1.03 * halved, 0, "loss halved", rotation=90, va="bottom", color="C7")
axis.set(xlabel="step", ylabel="distance from the start", xscale="log")
plain_numbers(axis.xaxis)
axis.legend()
plt.show()

# %%
share = {name: found for name, (found, _) in drift.items()}
agrees = share["log t"] > 0.95 and share["log t"] == max(share.values())
print(
    f"From step {halved:.0f}, where the loss had halved, to step {t[-1]:.0f} a line in "
    f"log t explains {share['log t']:.1%} of the distance from the start, in sqrt t "
    f"{share['sqrt t']:.1%}, in t {share['t']:.1%}, which {verdict(agrees)} Hoffer et "
    f"al.; with the first fall included it is {whole['log t'][0]:.1%}, "
    f"{whole['sqrt t'][0]:.1%} and {whole['t'][0]:.1%}."
)
