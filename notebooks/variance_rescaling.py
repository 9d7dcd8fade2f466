# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Variance rescaling: activations and the variance of layers
#
# [![Open in Colab][badge]](https://colab.research.google.com/)
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# **The claim** (Owen et al., *Variance Control via Weight Rescaling in LLM
# Pre-training*, 2025, [arXiv:2503.17500](https://arxiv.org/abs/2503.17500)). In
# pre-training the variance of weights grows, deep layers most of all in what they add,
# and activations become extreme. Two simple remedies: draw layer $l$ with variance
# $\sigma^2 / l$ (layer index rescaling, LIR), and every so many steps shrink a kernel
# whose deviation exceeds its target by a fifth (target variance rescaling, TVR). Their
# 1B model's largest activation fell from 1,856 to 948 with a narrow start and to 164
# with TVR to that deviation as well; with TVR to 0.01, benchmarks improved too.
#
# Below: what of a transformer this is about, pre-norm residual blocks, here without
# attention and on digits, three ways. Deviations are the paper's times
# $\sqrt{2048 / width}$, so that they mean the same relative to the width.

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

from gnomon.experiments.data import load
from gnomon.experiments.schedules import warmup_cosine
from gnomon.optimizers import layer_index_rescaling, target_variance_rescaling

# These networks train in less time than a fully optimized program takes to compile.
jax.config.update("jax_disable_most_optimizations", True)

WIDTH, DEPTH, BATCH, STEPS, EVERY = 32, 6, 32, 150, 10
SCALE = (2048 / WIDTH) ** 0.5
SETTINGS = {  # initial deviation, whether LIR, target of TVR
    "start 0.02": (0.02, False, np.inf),
    "start 0.006, LIR": (0.006, True, np.inf),
    "start 0.006, LIR, TVR 0.006": (0.006, True, 0.006),
}

# %% [markdown]
# ## The network
# Six blocks, their kernels stacked along a first axis.

# %%
data = load({"name": "digits"})


def pixels(images):
    """[n, 28, 28, 1] bytes to [n, 196] floats."""
    small = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)
    return jnp.float32(small / 255)


inputs, labels = pixels(data.train["image"]), jnp.asarray(data.train["label"])
held_out = pixels(data.validation["image"]), jnp.asarray(data.validation["label"])
SHAPES = {
    "embed": {"kernel": (196, WIDTH)},
    "blocks": {
        "up": {"kernel": (DEPTH, WIDTH, 4 * WIDTH)},
        "down": {"kernel": (DEPTH, 4 * WIDTH, WIDTH)},
    },
    "head": {"kernel": (WIDTH, 10)},
}


def normalize(x):
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def loss(params, x, y):
    """The loss, and [depth] the largest activation after every block."""

    def block(x, layer):
        hidden = jax.nn.relu(normalize(x) @ layer["up"]["kernel"])
        x = x + hidden @ layer["down"]["kernel"]
        return x, jnp.abs(x).max()

    x, largest = jax.lax.scan(block, x @ params["embed"]["kernel"], params["blocks"])
    logits = normalize(x) @ params["head"]["kernel"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return losses.mean(), largest


def start(key, std, lir):
    """Initial weights; without LIR its narrowing of deep layers is undone."""
    empty = jax.tree.map(jnp.zeros, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    params = layer_index_rescaling(key, empty, std=SCALE * std, stacked="blocks")
    wider = jnp.where(lir, 1, jnp.sqrt(jnp.arange(1, DEPTH + 1)))[:, None, None]
    return {**params, "blocks": jax.tree.map(lambda w: w * wider, params["blocks"])}


def train(std, lir, target, key):
    """Held-out loss and largest activations; deviations by step and block."""
    optimizer = target_variance_rescaling(
        optax.adamw(warmup_cosine(0.01, STEPS), b2=0.95, weight_decay=0.1),
        target_std=SCALE * target,
        every=EVERY,
        stacked="blocks",
    )
    init_key, order_key = jax.random.split(key)
    params = start(init_key, std, lir)

    def step(carry, chosen):
        params, state = carry
        grads, _ = jax.grad(loss, has_aux=True)(params, inputs[chosen], labels[chosen])
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        kernels = params["blocks"]["up"]["kernel"]
        return (params, state), jnp.std(kernels, axis=(1, 2))

    order = jax.random.randint(order_key, (STEPS, BATCH), 0, len(labels))
    carry = params, optimizer.init(params)
    (params, _), deviations = jax.lax.scan(step, carry, order)
    return *loss(params, *held_out), deviations / SCALE


# %%
settings = jnp.float32(list(SETTINGS.values())).T
keys = jax.random.split(jax.random.key(0), 2)
lanes = jax.vmap(jax.vmap(train, (None, None, None, 0)), (0, 0, 0, None))
final, largest, deviations = (
    np.asarray(x).mean(1) for x in jax.jit(lanes)(*settings, keys)
)  # means over two seeds
for i, label in enumerate(SETTINGS):
    print(
        f"{label:27s} held-out loss {final[i]:.3f}, largest activation"
        f" {largest[i].max():.1f}, deviation"
        f" {deviations[i, 0].mean():.4f} -> {deviations[i, -1].mean():.4f}"
    )

# %% [markdown]
# ## The picture
# Deviations are of the kernels `up`.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="tight")
blocks = np.arange(1, DEPTH + 1)
for i, label in enumerate(SETTINGS):
    left.plot(deviations[i].mean(1), label=label)
    middle.plot(blocks, deviations[i, -1], f"C{i}.-", label=label)
    middle.plot(blocks, deviations[i, 0], f"C{i}:")
    right.plot(blocks, largest[i], ".-", label=label)
left.set(title="mean deviation of the kernels", xlabel="step")
middle.set(title="deviation by block: dotted start, solid end", xlabel="block")
right.set(title="largest activation after each block", xlabel="block", yscale="log")
for axis in (left, middle, right):
    axis.legend(fontsize=8)
plt.show()

# %%
peak, end = largest.max(1), deviations[:, -1].mean(1)
calmer, capped = peak[2] < peak[1] < peak[0], end[2] < min(end[0], end[1])
print(
    f"Seen: largest activation {peak[0]:.1f} from a start at 0.02, {peak[1]:.1f} from a"
    f" narrow one with LIR and {peak[2]:.1f} with TVR (the paper, at 1B parameters:"
    f" 1856, 948, 164), which {'agrees' if calmer else 'disagrees'}; the kernels'"
    f" deviation ends at {end[0]:.4f}, {end[1]:.4f} and {end[2]:.4f}, which"
    f" {'agrees' if capped else 'disagrees'}; the held-out loss is {final[0]:.3f},"
    f" {final[1]:.3f} and {final[2]:.3f}, which"
    f" {'agrees' if final[2] < final[0] else 'disagrees'} with a better model."
)
