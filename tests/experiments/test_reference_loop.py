"""The trainer beside a loop that shares nothing of its step.

The loop is plain jax, numpy and optax: its own transformer, loss, schedule and update.
From gnomon it has the text, the indices of its batches and the initial parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.experiments.data import load
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.train import train
from gnomon.models import TransformerLM, functional

pytestmark = pytest.mark.usefixtures("optax_promotion")
STEPS, BATCH, EVERY, SEED = 60, 4, 6, 3
RATE, WARMUP, FINAL, DECAY = 2e-2, 0.2, 0.1, 0.3


def normed(x, scale):
    return (
        x * scale[None, None] / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
    )


def turned(x):
    """Rotary positions of [batch, length, heads, features], as complex numbers."""
    length, features = x.shape[1], x.shape[3]
    pace = 10_000.0 ** (-np.arange(features // 2) * 2 / features)
    turn = np.exp(1j * np.arange(length)[:, None] * pace).astype(np.complex64)
    z = (x[..., : features // 2] + 1j * x[..., features // 2 :]) * turn[None, :, None]
    return jnp.concatenate([z.real, z.imag], axis=-1)


def attended(x, kernels):
    q, k, v = (
        jnp.tensordot(x, kernels[name]["kernel"], 1)
        for name in ("query", "key", "value")
    )
    length, features = q.shape[1], q.shape[3]
    scores = jnp.einsum("bihd,bjhd->bhij", turned(q), turned(k)) / np.sqrt(features)
    future = np.triu(np.full((length, length), -1e30, np.float32), 1)
    weights = jax.nn.softmax(scores + future[None, None], axis=-1)
    out = jnp.einsum("bhij,bjhd->bihd", weights, v)
    return jnp.tensordot(out, kernels["out"]["kernel"], 2)


def loss_of(params, tokens):
    embedding = params["embed"]["embedding"]
    x = embedding[tokens[:, :-1]]
    for _, block in sorted(params["blocks"].items()):
        x = x + attended(
            normed(x, block["attention_norm"]["scale"]), block["attention"]
        )
        y = normed(x, block["mlp_norm"]["scale"])
        y = jax.nn.relu(y @ block["mlp"]["up"]["kernel"]) ** 2
        x = x + y @ block["mlp"]["down"]["kernel"]
    logits = normed(x, params["final_norm"]["scale"]) @ embedding.T
    rows = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - rows)


def rate_at(step):
    """Linear warm-up, then half a cosine to a tenth of the peak."""
    warmup = WARMUP * STEPS
    rising = min(1.0, (step + 1) / (warmup + 1))
    done = max(0.0, (step - warmup) / (STEPS - warmup))
    return RATE * rising * (FINAL + (1 - FINAL) * (1 + np.cos(np.pi * done)) / 2)


def test_the_loss_curve_is_that_of_a_plain_loop(tiny, tmp_path):
    config = tiny(
        steps=STEPS,
        batch=BATCH,
        seed=SEED,
        model={"name": "gnomon.models.TransformerLM", "vocab": 256, "width": 16}
        | (size := {"depth": 2, "head_dim": 8}),
        optimizer__learning_rate=RATE,
        optimizer__weight_decay=DECAY,
        schedule={"warmup": WARMUP, "final": FINAL}
        | {"name": "gnomon.experiments.schedules.warmup_cosine"},
        evaluate__every=0,
        log_every=EVERY,
        checkpoint_every=STEPS,
    )
    train(config, tmp_path)
    found = np.array([row["train_loss"] for row in read_metrics(tmp_path)])

    data = load(config["data"])
    text, order = data.train["tokens"], data.order(BATCH, SEED)
    batches = np.stack([text[order.next()] for _ in range(STEPS)]).astype(np.int32)
    rates = jnp.asarray([rate_at(t) for t in range(STEPS)], jnp.float32)
    key, _ = jax.random.split(jax.random.key(SEED))
    params, _ = functional(TransformerLM, width=16, **size).init(key)
    rule = optax.adamw(lambda count: rates[count], 0.9, 0.999, weight_decay=DECAY)

    def step(carry, tokens):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params, tokens)
        updates, state = rule.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    def run(params, batches):
        return jax.lax.scan(step, (params, rule.init(params)), batches)[1]

    losses = np.asarray(jax.jit(run)(params, batches)).reshape(-1, EVERY).mean(axis=1)
    assert losses[-1] < 0.75 * losses[0], "it learns"
    np.testing.assert_allclose(found, losses, rtol=1e-4)
