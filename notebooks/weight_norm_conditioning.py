# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Weight normalization and conditioning, with and without AdamP
#
# [![Open in Colab][badge]](https://colab.research.google.com/)
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# **The claim** (Salimans & Kingma, *Weight Normalization*, 2016,
# [arXiv:1602.07868](https://arxiv.org/abs/1602.07868)). Writing a unit's weights as
# $w = g\, v / \|v\|$ and descending in $(g, v)$ conditions the problem better: the
# gradient in $v$ has no component along $w$, which is often close to the dominant
# eigenvector of the gradient's covariance. And it tolerates a wide range of learning
# rates: too large a step lengthens $v$ until the effective step is small enough.
# Heo et al. ([arXiv:2006.08217](https://arxiv.org/abs/2006.08217)) add that with
# momentum or Adam $v$ grows too fast, which AdamP avoids.
#
# Below: the three statements, one after another, on digits.

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
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from gnomon.experiments.data import load
from gnomon.models import MLP, functional
from gnomon.optimizers import (
    WeightNormLatents,
    adamp,
    project_tangent,
    weight_norm,
)

# These networks train in less time than a fully optimized program takes to compile.
jax.config.update("jax_disable_most_optimizations", True)

data = load({"name": "digits"})


def pixels(images):
    """[n, 28, 28, 1] bytes to [n, 49] floats."""
    small = images.reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(-1, 49)
    return jnp.float32(small / 255)


inputs, labels = pixels(data.train["image"]), jnp.asarray(data.train["label"])
net = functional(MLP, inputs=49, widths=(32,))


def loss(params, x, y):
    scores, _ = net.apply(params, {}, x, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()


def train(optimizer, key, steps=100, batch=64):
    """The trained weights, and the loss and the norm of v after every step."""
    init_key, order_key = jax.random.split(key)
    params, _ = net.init(init_key)

    def step(carry, chosen):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, inputs[chosen], labels[chosen])
        updates, state = optimizer.update(grads, state, params)
        latents = getattr(state, "latents", None)
        walked = params if latents is None else latents.direction
        size = jnp.linalg.norm(walked["hidden"]["0"]["kernel"])
        return (optax.apply_updates(params, updates), state), (value, size)

    order = jax.random.randint(order_key, (steps, batch), 0, len(labels))
    carry = params, optimizer.init(params)
    (params, _), history = jax.lax.scan(step, carry, order)
    return params, *history


# %% [markdown]
# ## Learning rates
# Every rate is a lane of one compiled program. `share` multiplies the steps of $g$, to
# see $v$ alone; with `delta=0` AdamP is AdamW.

# %%
key = jax.random.key(0)
SCALES_ALONE = WeightNormLatents(direction=False, scale=True)


def normalized_sgd(rate, share):
    scale = optax.masked(optax.scale(share), SCALES_ALONE)
    return weight_norm(optax.chain(optax.sgd(rate), scale))


def normalized_adamp(rate, delta):
    return weight_norm(adamp(rate, delta=delta))


PLAIN, ADAM = np.geomspace(0.1, 100, 7), np.geomspace(3e-3, 1, 5)
METHODS = {
    "SGD": (lambda rate, _: optax.sgd(rate), PLAIN, 0),
    "SGD + WN": (normalized_sgd, PLAIN, 1),
    "SGD + WN, v alone": (normalized_sgd, PLAIN, 0),
    "Adam + WN": (normalized_adamp, ADAM, 0),
    "AdamP + WN": (normalized_adamp, ADAM, 0.1),
}


@functools.partial(jax.jit, static_argnums=0)
def over_rates(make, rates, number):
    return jax.vmap(lambda rate: train(make(rate, number), key))(rates)


ends, sizes = {}, {}
for label, (make, rates, number) in METHODS.items():
    params, losses, norms = over_rates(make, jnp.float32(rates), jnp.float32(number))
    ends[label] = np.nan_to_num(np.asarray(losses)[:, -20:].mean(1), nan=np.inf)
    sizes[label] = np.asarray(norms) / np.asarray(norms)[:, :1]
    if label == "SGD":
        trained = jax.tree.map(lambda x: np.asarray(x)[ends["SGD"].argmin()], params)


def decades(label):
    """How many decades of learning rates end below half the loss of guessing."""
    rates = METHODS[label][1]
    return np.sum(ends[label] < np.log(10) / 2) * np.log10(rates[1] / rates[0])


for label, end in ends.items():
    print(f"{label:17s} best loss {end.min():.3f}, {decades(label):.1f} decades")

# %% [markdown]
# ## The covariance of the gradient
# For every hidden unit, trained by SGD: the gradient of each of 500 examples with
# respect to its weights, the dominant eigenvector of their covariance, and how much
# larger its eigenvalue is than the mean one, before and after projecting out $w$.


# %%
@jax.jit
def covariance(params):
    """|cos| of w with the dominant eigenvector; largest over mean eigenvalue, twice."""
    kernel = params["hidden"]["0"]["kernel"]

    def gradient(x, y):
        return jax.grad(loss)(params, x[None], y[None])["hidden"]["0"]["kernel"]

    gradients = jax.vmap(gradient)(inputs[:500], labels[:500])
    tangent = jax.vmap(lambda g: project_tangent(g, kernel, 0))(gradients)
    samples = jnp.stack([gradients, tangent])
    samples -= samples.mean(1, keepdims=True)
    matrices = jnp.einsum("snij,snkj->sjik", samples, samples)
    values, vectors = jnp.linalg.eigh(matrices)
    units = kernel / jnp.linalg.norm(kernel, axis=0)
    cosine = jnp.abs(jnp.sum(vectors[0, :, :, -1].T * units, axis=0))
    # One direction is gone after projecting, so its zero is not in the mean.
    directions = jnp.array([[len(kernel)], [len(kernel) - 1]])
    before, after = values[:, :, -1] * directions / values.sum(-1)
    return cosine, before, after


cosine, before, after = map(np.asarray, covariance(trained))  # NaN for a dead unit
print(f"|cos| of w and the dominant eigenvector: median {np.nanmedian(cosine):.2f}")

# %% [markdown]
# ## The picture

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="tight")
dots = left.scatter(before, after, c=cosine, vmin=0, vmax=1)
figure.colorbar(dots, label="|cos| of w and the dominant eigenvector")
left.axline((np.nanmin(before),) * 2, slope=1, color="k", linestyle=":")
left.set(title="gradient covariance of each unit", ylabel="the same across w")
left.set(xlabel="largest over mean eigenvalue")
for label, end in ends.items():
    middle.plot(METHODS[label][1], np.minimum(end, 10), ".-", label=label)
middle.set(title="training loss after 100 steps", xlabel="learning rate")
middle.set(xscale="log", yscale="log")
rate = ends["Adam + WN"].argmin()
for color, label in enumerate(list(METHODS)[3:], 3):
    right.plot(sizes[label][rate], f"C{color}", label=label)
right.set(title=f"growth of v at rate {ADAM[rate]:.2g}", xlabel="step")
middle.legend()
right.legend()
plt.show()

# %%
ratio, aligned = np.nanmedian(after / before), np.nanmedian(cosine)
growth = {label: sizes[label][rate, -1] for label in list(METHODS)[3:]}
plain, whole, direction = map(decades, list(METHODS)[:3])
swollen = np.nanmax(sizes["SGD + WN, v alone"][-1])
wider = max(whole, direction) > plain
slower = growth["AdamP + WN"] < growth["Adam + WN"]
print(
    f"Seen: a trained unit's weights have |cos| {aligned:.2f} (median) with the"
    " dominant eigenvector of their gradient's covariance, and projecting them out"
    f" changes the largest over the mean eigenvalue by a factor of {ratio:.2f}: better"
    f" conditioning is {'seen' if ratio < 0.9 else 'not seen here'}. SGD gets below"
    f" half the loss of guessing over {plain:.1f} decades of rates with plain weights,"
    f" {whole:.1f} with weight normalization and {direction:.1f} where v alone learns,"
    f" although v swells {swollen:.0f}-fold at the largest rate: a wider range"
    f" is {'seen' if wider else 'not seen here'}. At Adam's best rate v grows by a"
    f" factor of {growth['Adam + WN']:.2f} under Adam and {growth['AdamP + WN']:.2f}"
    f" under AdamP, which {'agrees' if slower else 'disagrees'}; the best losses are"
    f" {ends['Adam + WN'].min():.3f} and {ends['AdamP + WN'].min():.3f}."
)
