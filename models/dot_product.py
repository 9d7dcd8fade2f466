"""Causal attention of given queries, keys and values, and what computes it.

The definition, ``"xla"``, has an array [batch, heads, length, length] in float32 for
the scores and another for the weights. ``"cudnn"`` and ``"tpu"`` are kernels that keep
none of it: `jax.nn.dot_product_attention` on cuDNN, and JAX's own Pallas kernel. Both
sum in float32, and their order of summation is another: results agree to rounding. A
kernel has no gradient of its gradient, which products with the Hessian need. Under a
mesh (`jax.set_mesh`, as the trainer does) each device runs the TPU's for its examples,
those of its part of an axis ``data``, and its heads, of an axis ``model``.
"""

import importlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from gnomon.parameters.trees import compute_dtype

Attend = Literal["xla", "cudnn", "tpu"]
# Kernels of TPUs work on tiles of so many lanes.
LANES = 128
PALLAS = "jax.experimental.pallas.ops.tpu.flash_attention"


class Choice(NamedTuple):
    """The implementation of one call."""

    implementation: Attend
    reason: str  # one clause, for people


def explain(
    shape: Sequence[int],
    dtype: Any,
    *,
    implementation: Attend | None = None,
    platform: str | None = None,
) -> Choice:
    """Which implementation attention takes, and why.

    Args:
      shape: of the queries, [batch, length, heads, head_dim].
      dtype: of the queries, the model's compute dtype.
      implementation: what the caller asks for, or None to let the platform decide.
      platform: ``"cpu"``, ``"gpu"`` or ``"tpu"``; default JAX's default backend.

    Returns:
      The choice. None gives cuDNN on GPUs where it takes the call, for no other form
      of it fits their memory, and else the definition: the Pallas kernel has not been
      measured here.

    Raises:
      ValueError: if ``implementation`` is not a known name, or names a kernel that does
        not support the call.

    Example:
      >>> explain((8, 1024, 12, 64), "bfloat16", platform="gpu")
      Choice(implementation='cudnn', reason='keeps no scores, on gpu')
      >>> explain((8, 1024, 12, 64), "float32", platform="gpu")
      Choice(implementation='xla', reason='cudnn does not take it: its dtype is float32,
      not bfloat16 or float16')
      >>> explain((8, 1024, 12, 64), "bfloat16", platform="tpu")
      Choice(implementation='xla', reason='the tpu kernel has not been measured faster
      than XLA')
      >>> explain((8, 1024, 12, 64), "bfloat16", implementation="tpu")
      Choice(implementation='tpu', reason='asked for')
    """
    if implementation is not None and implementation not in get_args(Attend):
        raise ValueError(
            f"attention must be None, 'xla', 'cudnn' or 'tpu', not {implementation!r}."
        )
    if implementation is not None:
        if reason := refusal(implementation, shape, dtype):
            raise ValueError(
                f"attention: {implementation} does not support this call: {reason}."
                " Pass None to fall back to XLA, or 'xla'."
            )
        return Choice(implementation, "asked for")
    platform = jax.default_backend() if platform is None else platform
    if platform == "tpu":
        return Choice("xla", "the tpu kernel has not been measured faster than XLA")
    if platform != "gpu":
        return Choice("xla", f"attention has no kernel for {platform}")
    if reason := refusal("cudnn", shape, dtype):
        return Choice("xla", f"cudnn does not take it: {reason}")
    return Choice("cudnn", "keeps no scores, on gpu")


def refusal(implementation: str, shape: Sequence[int], dtype: Any) -> str | None:
    """Why an implementation cannot take a call, or None."""
    _, length, _, head_dim = shape
    name = jnp.dtype(dtype).name
    if implementation == "cudnn":
        if name not in ("bfloat16", "float16"):
            return f"its dtype is {name}, not bfloat16 or float16"
        if head_dim % 8 or head_dim > 128:
            return f"head_dim={head_dim} is no multiple of 8 up to 128"
    if implementation == "tpu":
        if name not in ("bfloat16", "float32"):
            return f"its dtype is {name}, not bfloat16 or float32"
        if length % LANES:
            return f"the length {length} is no multiple of {LANES}"
        if head_dim > LANES and head_dim % LANES:
            return f"head_dim={head_dim} is above {LANES} and no multiple of it"
    return None


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    documents: Array | None = None,
    implementation: Attend | None = None,
) -> Array:
    r"""Causal attention, :math:`\mathrm{softmax}(QK^\top / \sqrt{D})\, V`.

    Args:
      query: [batch, length, heads, D].
      key: as well.
      value: as well.
      documents: [batch, length] integers; a position sees those before it that have its
        number. None: all before it.
      implementation: what computes it, see `explain`.

    Returns:
      [batch, length, heads, D], in the dtype of the values.

    Raises:
      ValueError: as `explain`.
    """
    chosen = explain(query.shape, query.dtype, implementation=implementation)
    function = {"xla": _plain, "cudnn": _cudnn, "tpu": _tpu}[chosen.implementation]
    return function(query, key, value, documents)


def documents_of(tokens: Array, separator: int) -> Array:
    """The document of each position, counted from 0; a separator ends its own.

    Args:
      tokens: [batch, length] integers.
      separator: the token that ends a document.

    Returns:
      [batch, length] int32.

    Example:
      >>> print(documents_of(jnp.array([[5, 0, 6, 7, 0, 8]]), 0))
      [[0 0 1 1 1 2]]
    """
    ends = (tokens == separator).astype(jnp.int32)
    return jnp.cumsum(ends, axis=1) - ends


def _same(documents: Array) -> Array:
    """Where two positions lie in one document, [batch, 1, length, length]."""
    return (documents[:, :, None] == documents[:, None, :])[:, None]


def _plain(query: Array, key: Array, value: Array, documents: Array | None) -> Array:
    dtype = compute_dtype(query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=dtype)
    length, head_dim = query.shape[1], query.shape[-1]
    visible: Any = np.tri(length, dtype=bool)[None, None]
    if documents is not None:
        visible = visible & _same(documents)
    scores = jnp.where(visible, scores * head_dim**-0.5, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _cudnn(
    query: Array,
    key: Array,
    value: Array,
    documents: Array | None,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> Array:
    # Documents cost an array of [batch, 1, length, length], one of all heads.
    mask = None if documents is None else _same(documents)
    return jax.nn.dot_product_attention(
        *(query, key, value),
        mask=mask,
        is_causal=True,
        implementation=implementation,
    )


def _tpu(query: Array, key: Array, value: Array, documents: Array | None) -> Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size <= 1 or mesh.manual_axes:  # no mesh, or one that is cut already
        return _flash(query, key, value, documents)
    # XLA cannot partition a Pallas kernel. Examples and heads do not meet in it.
    batch, _, heads, _ = query.shape
    examples, features = (
        name if size % mesh.shape.get(name, size + 1) == 0 else None
        for name, size in (("data", batch), ("model", heads))
    )
    rows = P(examples, None, features, None)
    return jax.shard_map(
        _flash,
        in_specs=(rows, rows, rows, P(examples)),
        out_specs=rows,
        check_vma=False,
    )(query, key, value, documents)


def _flash(query: Array, key: Array, value: Array, documents: Array | None) -> Array:
    # Pallas takes as long to import as JAX itself; only those who use it pay.
    pallas = importlib.import_module(PALLAS)
    length, head_dim = query.shape[1], query.shape[-1]
    # Of the tiles below the length: a gradient has arrays of [length, tile]. Those of
    # 128, its own default, leave the matrix unit idle between them.
    fitting = (n for n in (512, 256) if length % n == 0 and n < length)
    tile = next(fitting, LANES)
    names = pallas.BlockSizes.__dataclass_fields__
    tiles = {name: tile for name in names if name != "block_b"}
    heads_first = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    segments = None
    if documents is not None:
        segments = pallas.SegmentIds(q=documents, kv=documents)
    found = pallas.flash_attention(
        *heads_first,
        segment_ids=segments,
        causal=True,
        sm_scale=head_dim**-0.5,
        block_sizes=pallas.BlockSizes(block_b=1, **tiles),
    )
    return jnp.swapaxes(found, 1, 2)
