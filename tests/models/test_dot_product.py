"""Attention: its implementations agree, and kernels make no array of all scores."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental.pallas import tpu as pltpu

from gnomon.models import TransformerLM, dot_product, functional
from gnomon.models.dot_product import attend, documents_of

BATCH, LENGTH, HEADS, HEAD_DIM = 2, 128, 2, 64
RNG = np.random.default_rng(0)
QKV = [
    jnp.asarray(RNG.normal(size=(BATCH, LENGTH, HEADS, HEAD_DIM)), jnp.float32)
    for _ in range(3)
]
ENDS = jnp.asarray(RNG.random((BATCH, LENGTH)) < 0.05, jnp.int32)
DOCUMENTS = np.asarray(documents_of(ENDS, 1))


def by_hand(query, key, value, documents):
    """Position by position."""
    query, key, value = map(np.asarray, (query, key, value))
    found = np.zeros(query.shape)
    for b, q, h in np.ndindex(*query.shape[:3]):
        seen = np.arange(LENGTH) <= q
        if documents is not None:
            seen &= documents[b] == documents[b, q]
        scores = key[b, seen, h] @ query[b, q, h]
        weights = np.exp(scores / HEAD_DIM**0.5)
        found[b, q, h] = weights @ value[b, seen, h] / weights.sum()
    return found


def slopes(implementation, documents):
    """Outputs and gradients of one implementation."""

    def loss(*qkv):
        found = implementation(*qkv, documents)
        return jnp.sum(jnp.sin(found)), found

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*QKV)


@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["causal", "documents"])
def test_implementations_agree(documents):
    wanted = slopes(dot_product._plain, documents)
    np.testing.assert_allclose(wanted[1], by_hand(*QKV, documents), atol=1e-5)

    def library(*arguments):  # what is asked of cuDNN, without its kernel
        return dot_product._cudnn(*arguments, implementation="xla")

    others = [slopes(library, documents)]
    if documents is not None:  # interpreted, a kernel takes seconds
        with pltpu.force_tpu_interpret_mode():
            others.append(slopes(dot_product._tpu, jnp.asarray(documents)))
    for found in others:
        for x, y in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            np.testing.assert_allclose(x, y, atol=2e-5)


@pytest.fixture
def cudnn(monkeypatch):
    """As where cuDNN is installed, and an H100."""
    module = fused_attention_stablehlo
    monkeypatch.setattr(module, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(module, "check_compute_capability", lambda *_: True)


@pytest.mark.parametrize(
    ("implementation", "platform", "kernel"),
    [
        ("cudnn", "cuda", r"@__cudnn\$fmhaSoftmaxBackward"),
        ("tpu", "tpu", "@tpu_custom_call"),
        ("xla", "cuda", None),
    ],
)
def test_the_gradient_of_a_model_has_no_array_of_scores(
    implementation, platform, kernel, cudnn
):
    sizes = dict(vocab=16, width=128, depth=2, head_dim=64, dtype="bfloat16", scan=True)
    net = functional(TransformerLM, **sizes, attention=implementation)
    params, _ = jax.eval_shape(net.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((3, 256), jnp.int32)

    def loss(params, tokens):
        return jnp.mean(net.apply(params, {}, tokens, train=True)[0])

    traced = jax.jit(jax.grad(loss)).trace(params, tokens)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    scores = re.findall(r"tensor<[0-9x]*256x256xf32>", text)
    if kernel is None:
        assert "tensor<3x2x256x256xf32>" in scores
    else:
        assert not scores
        assert re.search(kernel, text)


def test_on_a_mesh_each_device_runs_the_kernel_for_its_own():
    shape = jax.ShapeDtypeStruct((8, 128, 2, 64), jnp.bfloat16)
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
    documents = jax.ShapeDtypeStruct((8, 128), jnp.int32)

    def slope(x, documents):
        def loss(x):
            found = attend(x, x, x, documents=documents, implementation="tpu")
            return found.astype(jnp.float32).sum()

        return jax.grad(loss)(x)

    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(slope).trace(shape, documents)
    text = str(traced.jaxpr)
    assert text.count("pallas_call") >= 3, "forward, and the two of its gradient"
    assert "bf16[2,1,128,64]" in text, "two examples and a head on each device"
    assert "bf16[8,2,128,64]" not in text


def test_what_a_kernel_cannot_take_is_refused():
    with pytest.raises(ValueError, match="cudnn does not support this call: its dtype"):
        attend(*QKV, implementation="cudnn")
    with pytest.raises(ValueError, match="the length 3 is no multiple of 128"):
        dot_product.explain((1, 3, 1, 64), "float32", implementation="tpu")
    with pytest.raises(
        ValueError, match="must be None, 'xla', 'cudnn' or 'tpu', not 'x'"
    ):
        dot_product.explain((1, 3, 1, 64), "float32", implementation="x")
    explained = dot_product.explain((1, 8, 2, 192), "bfloat16", platform="gpu")
    assert explained.implementation == "xla"
    assert "head_dim=192" in explained.reason


def test_documents_stand_alone():
    net = functional(TransformerLM, vocab=8, width=8, depth=2, head_dim=4, separator=0)
    params, _ = net.init(jax.random.key(0))
    rows = np.array([[3, 4, 0, 5, 6, 7, 0], [1, 2, 0, 5, 6, 7, 0]])
    first, second = net.apply(params, {}, rows, train=False)[0]
    np.testing.assert_allclose(first[3:], second[3:], atol=1e-5)
    assert np.abs(first[2] - second[2]).max() > 0.01  # a separator sees its document
    whole = functional(TransformerLM, vocab=8, width=8, depth=2, head_dim=4)
    first, second = whole.apply(params, {}, rows, train=False)[0]
    assert np.abs(first[3:] - second[3:]).max() > 0.01
