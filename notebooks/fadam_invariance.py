# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # FAdam: loss-scale invariance and robust steps
#
# [![Open in Colab][badge]](https://colab.research.google.com/)
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# **The claim** (Hwang, *FAdam: Adam is a natural gradient optimizer using diagonal
# empirical Fisher information*, 2024, [arXiv:2405.12807](https://arxiv.org/abs/2405.12807)).
# Read as natural gradient descent, Adam needs three repairs: an epsilon relative to the
# gradient, so that the scale of the loss does not matter; clipping of the *natural*
# gradient, so that one odd batch does not throw the weights; and momentum of that
# clipped gradient.
#
# Below: the loss multiplied by factors from $2^{-40}$ to $2^{16}$, and a batch whose
# inputs are broken, at many learning rates. FAdam's weight decay means something else
# than AdamW's, so both run without.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from gnomon.experiments.data import load
from gnomon.models import MLP, functional
from gnomon.optimizers import fadam

# These networks train in less time than a fully optimized program takes to compile.
jax.config.update("jax_disable_most_optimizations", True)

data = load({"name": "digits"})


def pixels(images):
    """[n, 28, 28, 1] bytes to [n, 196] floats."""
    small = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)
    return jnp.float32(small / 255)


inputs, labels = pixels(data.train["image"]), jnp.asarray(data.train["label"])
net = functional(MLP, inputs=196, widths=(32,))


def loss(params, x, y):
    scores, _ = net.apply(params, {}, x, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()


def train(optimizer, key, *, scale, spike, at=100, steps=150, batch=64):
    """How far the weights went, and every step's loss; batch `at` is spiked."""
    init_key, order_key = jax.random.split(key)
    start, _ = net.init(init_key)

    def step(carry, now):
        params, state = carry
        chosen, count = now
        x, y = inputs[chosen], labels[chosen]
        x = jnp.where(count == at, spike * x, x)
        value, grads = jax.value_and_grad(lambda p: scale * loss(p, x, y))(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value / scale

    order = jax.random.randint(order_key, (steps, batch), 0, len(labels))
    carry = start, optimizer.init(start)
    (params, _), losses = jax.lax.scan(step, carry, (order, jnp.arange(steps)))
    return ravel_pytree(params)[0] - ravel_pytree(start)[0], losses


# %% [markdown]
# ## All runs of an optimizer as one program
# First one learning rate and many scales of the loss, in powers of two, so that scaling
# itself rounds nothing. Then many learning rates, with and without a batch at step 100
# whose pixels are 100 times too bright.

# %%
OPTIMIZERS = {"Adam": optax.adam, "FAdam": lambda r: fadam(r, weight_decay=0.0)}
SCALES, RATES = 2.0 ** np.arange(-40, 17, 8), np.geomspace(1e-3, 0.1, 6)
key = jax.random.key(0)
lanes = [(3e-3, scale, 1) for scale in SCALES]
lanes += [(rate, 1, spike) for spike in (1, 100) for rate in RATES]
away, runs = {}, {}
for label, make in OPTIMIZERS.items():
    run = jax.vmap(lambda r, s, k, m=make: train(m(r), key, scale=s, spike=k))
    went, losses = map(np.asarray, jax.jit(run)(*jnp.float32(lanes).T))
    went, unscaled = went[: len(SCALES)], went[list(SCALES).index(1)]
    away[label] = np.linalg.norm(went - unscaled, axis=1) / np.linalg.norm(unscaled)
    runs[label] = losses[len(SCALES) :].reshape(2, len(RATES), -1)
    print(f"{label:6s} distance by scale {away[label]}")

# %% [markdown]
# ## The picture
# Left: the distance between the final weights of a scaled and the unscaled run, over
# how far the unscaled run went.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="tight")
ends = {label: losses[:, :, -20:].mean(-1) for label, losses in runs.items()}
tuned = {label: end[0].argmin() for label, end in ends.items()}
for color, label in enumerate(OPTIMIZERS):
    best = f"{label}, rate {RATES[tuned[label]]:.2g}"
    left.plot(SCALES, np.maximum(away[label], 1e-9), f"C{color}.-", label=label)
    middle.plot(runs[label][1, tuned[label]], f"C{color}", label=best)
    right.plot(RATES, ends[label][0], f"C{color}.-", label=label)
    right.plot(RATES, ends[label][1], f"C{color}.:", label=f"{label}, one broken batch")
left.set(title="distance from the unscaled run\n(0 drawn at 1e-9)", xlabel="loss scale")
middle.set(title="training loss, broken batch at 100", xlabel="step")
right.set(title="final training loss", xlabel="learning rate")
left.set(xscale="log", yscale="log")
middle.set(yscale="log")
right.set(xscale="log", yscale="log")
for axis in (left, middle, right):
    axis.legend()
plt.show()

# %%
jump = {
    label: losses[1, tuned[label], 101:].max() / losses[0, tuned[label], 101:].max()
    for label, losses in runs.items()
}
wide = {
    label: np.sum(end[0] <= 2 * end[0].min()) * np.log10(RATES[1] / RATES[0])
    for label, end in ends.items()
}
down = (SCALES < 1) & (SCALES >= 2.0**-32)  # below, squares underflow float32
small, large = away["FAdam"][down].max(), away["FAdam"][SCALES > 1].max()
print(
    f"Seen: with the loss scaled by 2^-8 to 2^-32 FAdam's weights end a relative"
    f" {small:.1g} from where they would, Adam's up to {away['Adam'][down].max():.2f};"
    f" up to 2^16 FAdam's {large:.1g}. The invariance"
    f" {'agrees' if max(small, large) < 1e-3 else 'disagrees'} with the paper, until at"
    f" 2^-40 squared gradients underflow float32 ({away['FAdam'][0]:.1f}). After a"
    f" broken batch the worst loss is {jump['FAdam']:.1f}x what it would be under FAdam"
    f" and {jump['Adam']:.1f}x under Adam, each at its best rate: robust steps"
    f" {'agree' if jump['FAdam'] < jump['Adam'] else 'disagree'}. Rates within twice"
    f" the best loss span {wide['FAdam']:.1f} and {wide['Adam']:.1f} decades."
)
