# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Polyak steps against the learning-rate grid
#
# [![Open in Colab][badge]](https://colab.research.google.com/)
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# **The claims.** Loizou et al. ([arXiv:2002.10542](https://arxiv.org/abs/2002.10542)):
# the loss says how long a step may be, $\gamma = (f - f^*) / (c \|g\|^2)$, so a model
# that can fit its data needs no learning-rate grid. Wang et al.
# ([arXiv:2305.12939](https://arxiv.org/abs/2305.12939)): putting such a step before
# momentum unchanged is wrong; rules derived for momentum (ALR-MAG, ALR-HB) are far less
# sensitive to the momentum parameter. Schaipp et al.
# ([arXiv:2305.07583](https://arxiv.org/abs/2305.07583)): MoMo makes momentum work over
# a wide range of learning rates.
#
# Below: an ill-conditioned least-squares problem over the momentum parameter, and a
# network on digits over the learning rate, which for Polyak methods is only a bound.

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
from gnomon.optimizers import alr_hb, alr_mag, alr_smag, momo, sps

# These networks train in less time than a fully optimized program takes to compile.
jax.config.update("jax_disable_most_optimizations", True)

# %% [markdown]
# ## The momentum parameter
# $f(w) = \frac12 \sum_i h_i w_i^2$ with twenty $h_i$ from 1 to 1,000, exact gradients,
# 300 steps. The two constant rates are safe without momentum ($1/h_{max}$) and the
# best of a grid at momentum 0.9.

# %%
CURVATURES = jnp.asarray(np.geomspace(1, 1e3, 20), jnp.float32)
MOMENTA = np.array([0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98])


def quadratic(w):
    return 0.5 * jnp.sum(CURVATURES * w**2)


def polyak_then_momentum(momentum):
    """A Polyak step, and heavy-ball momentum added as if it were not there."""
    return optax.chain(sps(c=1.0), optax.trace(momentum))


def descend(optimizer, steps=300):
    """The loss after the last step over the first loss."""

    def step(carry, _):
        w, state = carry
        value, grad = jax.value_and_grad(quadratic)(w)
        updates, state = optimizer.update(grad, state, w, value=value)
        return (optax.apply_updates(w, updates), state), None

    start = jnp.ones(20)
    (w, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=steps)
    return quadratic(w) / quadratic(start)


@functools.partial(jax.jit, static_argnums=0)
def over_momentum(make, rates):
    """[rates, momenta] final gaps of the optimizer that `make` returns."""
    one = jax.vmap(lambda r, b: descend(make(r, b)), (None, 0))
    return jax.vmap(one, (0, None))(rates, jnp.float32(MOMENTA))


def momentum_sgd(rate, momentum):
    return optax.with_extra_args_support(optax.sgd(rate, momentum=momentum))


constant = np.asarray(over_momentum(momentum_sgd, jnp.geomspace(1e-3, 8e-3, 10)))
best = np.nanargmin(constant[:, list(MOMENTA).index(0.9)])
gaps = {"rate 1 / h_max": constant[0], "best rate at 0.9": constant[best]}
for label, make in {
    "Polyak step, then momentum": lambda _, b: polyak_then_momentum(b),
    "ALR-MAG": lambda _, b: alr_mag(momentum=b),
    "ALR-HB": lambda _, b: alr_hb(momentum=b),
}.items():
    gaps[label] = np.asarray(over_momentum(make, jnp.zeros(1)))[0]
for label, gap in gaps.items():
    print(f"{label:27s}", " ".join(f"{g:8.1e}" for g in gap))

# %% [markdown]
# ## The learning rate
# A ReLU network on digits, momentum 0.9, 150 steps.

# %%
data = load({"name": "digits"})


def pixels(images):
    """[n, 28, 28, 1] bytes to [n, 196] floats."""
    small = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)
    return jnp.float32(small / 255)


inputs, labels = pixels(data.train["image"]), jnp.asarray(data.train["label"])
net = functional(MLP, inputs=196, widths=(32,))


def train(optimizer, key, steps=150, batch=64):
    """The losses of the steps, and the step sizes where the method has them."""
    first, second = jax.random.split(key)
    params, _ = net.init(first)

    def loss(params, x, y):
        scores, _ = net.apply(params, {}, x, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    def step(carry, chosen):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, inputs[chosen], labels[chosen])
        updates, state = optimizer.update(grads, state, params, value=value)
        size = getattr(state, "step_size", jnp.nan)
        return (optax.apply_updates(params, updates), state), (value, size)

    order = jax.random.randint(second, (steps, batch), 0, len(labels))
    return jax.lax.scan(step, (params, optimizer.init(params)), order)[1]


RATES = np.geomspace(1e-3, 1e3, 9)
METHODS = {
    "SGD, momentum 0.9": lambda r: momentum_sgd(r, 0.9),
    "SPS": lambda r: sps(r, variant="smooth", n_batches=62),
    "ALR-SMAG": lambda r: alr_smag(r, momentum=0.9),
    "MoMo": lambda r: momo(r, b1=0.9),
}
found = {}
for label, make in METHODS.items():
    lanes = jax.vmap(lambda r, m=make: train(m(r), jax.random.key(0)))
    losses, sizes = jax.jit(lanes)(jnp.float32(RATES))
    end = np.nan_to_num(np.asarray(losses[:, -20:].mean(1)), nan=np.inf)
    found[label] = end, np.asarray(sizes)
    print(f"{label:18s}", " ".join(f"{e:7.3f}" for e in end))

# %% [markdown]
# ## The picture

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="tight")
for label, gap in gaps.items():
    shown = np.clip(np.nan_to_num(gap, nan=1e3), 1e-13, 1e3)
    left.plot(MOMENTA, shown, marker=".", label=label)
left.set(
    title="least squares after 300 steps (1e3: diverged)",
    xlabel="momentum",
    yscale="log",
    ylim=(1e-14, 1e8),
)
left.set(ylabel="loss over first loss")
for color, (label, (end, sizes)) in enumerate(found.items()):
    middle.plot(RATES, np.minimum(end, 5), f"C{color}.-", label=label)
    if np.isfinite(sizes[-1]).all():
        right.plot(sizes[-1], f"C{color}", label=label)
middle.set(
    title="digits after 150 steps (5: diverged)", xlabel="learning rate or bound"
)
middle.set(xscale="log", yscale="log", ylabel="training loss")
right.set(title="step sizes the loss chose (bound 1,000)", xlabel="step", yscale="log")
left.legend(loc="upper left", fontsize=8)
middle.legend(loc="center right", fontsize=8)
right.legend(fontsize=8)
plt.show()

# %%
tuned = found["SGD, momentum 0.9"][0].min()
free = {label: found[label][0][-1] for label in list(METHODS)[1:]}
said = ", ".join(f"{label} {loss:.3f}" for label, loss in free.items())
close = [label for label, loss in free.items() if loss <= 2 * tuned]
typical = {
    label: np.exp(np.log(np.nan_to_num(gap, nan=1e3, posinf=1e3)).mean())
    for label, gap in gaps.items()
}  # geometric means over the momentum parameter; 1,000 where it diverged
naive = typical["Polyak step, then momentum"]
verdicts = {
    label: "agrees" if typical[label] < 0.5 * naive else "disagrees"
    for label in ("ALR-HB", "ALR-MAG")
}
print(
    f"Seen: with no bound to tune, training ends at {said}, and at {tuned:.3f} under"
    f" SGD with the best of {len(RATES)} rates; within twice of that:"
    f" {', '.join(close) or 'none'}. Over all momentum parameters the typical final gap"
    f" is {typical['ALR-HB']:.0e} under ALR-HB (which {verdicts['ALR-HB']} with the"
    f" paper), {typical['ALR-MAG']:.0e} under ALR-MAG ({verdicts['ALR-MAG']}),"
    f" {naive:.0e} under a Polyak step with momentum put after it, and"
    f" {typical['rate 1 / h_max']:.0e} and {typical['best rate at 0.9']:.0e} under"
    " constant rates."
)
