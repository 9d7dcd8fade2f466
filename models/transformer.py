"""A decoder-only transformer for next-token prediction."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.kernels import Implementation
from gnomon.models.blocks import Block
from gnomon.models.dot_product import Attend, documents_of
from gnomon.models.examples import by_example
from gnomon.models.initialization import Kernel, Scheme, gaussian
from gnomon.models.layers import ACTIVATIONS, check_choice, check_positive
from gnomon.models.logits import LazyLogits
from gnomon.models.normalization import RMSNorm
from gnomon.models.parts import Norm, part
from gnomon.models.placements import Placement, pre
from gnomon.models.remat import NONE, call, check_remat, rematerialized


class TransformerLM(nnx.Module):
    r"""Decoder-only transformer language model.

    Residual blocks of causal attention with rotary positions and a two-layer
    feed-forward, no biases; by default RMS-normalized before each branch:

    $$x \leftarrow x + \mathrm{Attention}(\mathrm{norm}(x)), \qquad
      x \leftarrow x + W_{down}\,\phi(W_{up}\,\mathrm{norm}(x))$$

    Initialization. Kernels are normal with variance 1 / fan-in; the two kernels that
    write to the residual stream (`attention/out`, `mlp/down`) have their variance
    divided by 2 `depth`, so that the stream's variance does not grow with depth.
    Embeddings are normal with variance 1 / `width`, tied or not: logits start with
    about unit variance. The same key gives the same values scanned or not.

    Parameters lie at `embed/embedding` [vocab, width],
    `blocks/<i>/attention/{query,key,value}/kernel` [width, heads, head_dim],
    `blocks/<i>/attention/out/kernel` [heads, head_dim, width],
    `blocks/<i>/mlp/{up,down}/kernel`, `blocks/<i>/{attention_norm,mlp_norm}/scale`,
    `final_norm/scale` and, untied, `head/kernel` [width, vocab]. Scanned layers are
    `blocks/stacked/...`, their arrays stacked on a leading axis of length `depth`: a
    name by which optimizers and probes keep layers apart
    (`gnomon.parameters.stacks`).

    Args:
      vocab: number of token values. Default 256, bytes.
      width: features of the residual stream. Default 64.
      depth: number of blocks. Default 2.
      head_dim: features of one attention head; there are `width // head_dim` heads.
        Default `min(32, width)`.
      mlp_ratio: hidden features of the feed-forward over `width`. Default 4.
      activation: "relu2" (squared ReLU, the default), "relu" or "gelu".
      tied: whether the embedding is also the output layer. Default True.
      qk_norm: whether queries and keys are normalized per head. Default False.
      scan: whether the blocks run as one `jax.lax.scan` over stacked parameters: the
        compile time no longer grows with depth. Default False.
      dtype: compute dtype. Norms, softmax and logits stay in float32. Default
        float32.
      param_dtype: dtype of the parameters. Default float32.
      norm: what normalizes, under the contract of `gnomon.models.normalization`: a
        class or a `gnomon.models.part` of one. Default `RMSNorm`.
      norm_implementation: `implementation=` of the norms that have a kernel, "xla",
        "tpu", "gpu", or None, the default, for what `gnomon.kernels.rms_norm.explain`
        says.
      placement: where the norms of a block stand: a function as in
        `gnomon.models.placements`, or one for each of "attention" and "mlp". Default
        `pre`. The final norm is there with each.
      init: what fills the kernels, a scheme of `gnomon.models.initialization`. Default
        `gaussian`, the initialization above.
      base_width: the width at which this model is standard, for the maximal update
        parameterization (muP): the embedding and the head start with variance
        1 / `base_width`, and logits are multiplied by `base_width` / `width`. With the
        learning rates of `gnomon.optimizers.mup(..., output_multiplier=True)` a
        learning rate tuned at `base_width` holds at others of the same `head_dim`.
        Default None, `width` itself.
      attention: what computes attention, "xla", "cudnn", "tpu", or None, the default,
        for what `gnomon.models.dot_product.explain` says. The two kernels keep no
        array of [batch, heads, length, length].
      remat: what a block computes again for its gradient, rather than keep it: "none",
        the default, "full", "dots", "projections", or a policy of JAX's
        (`gnomon.models.remat`).
      separator: the token that ends a document. Attention then stays within documents,
        the separator in the one that it ends. Default None, one document a sequence.
      logits_chunk: positions of a sequence whose logits are computed at a time. With it
        the model returns `gnomon.models.LazyLogits`, which the task `next_token` knows,
        so that no array of [batch, length, vocab] is made. Default None, an array.
      rngs: source of the initial values.

    Raises:
      ValueError: if `width` is not a multiple of `head_dim`, `head_dim` is odd, a
        size is not positive, the activation is unknown, or `placement` is none.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gnomon.models import functional, parameter_count
      >>> lm = functional(TransformerLM, vocab=256, width=64, depth=2)
      >>> params, stats = lm.init(jax.random.key(0))
      >>> parameter_count(params)
      115008
      >>> tokens = jnp.zeros((4, 16), jnp.uint8)
      >>> logits, _ = lm.apply(params, stats, tokens, train=True)
      >>> logits.shape, logits.dtype
      ((4, 16, 256), dtype('float32'))

      Other parts:

      >>> from gnomon.models import normalization, placements
      >>> parts = dict(norm=normalization.LayerNorm, placement=placements.sandwich)
      >>> lm = functional(TransformerLM, width=64, depth=2, **parts)
      >>> sorted(lm.init(jax.random.key(0))[0]["blocks"]["0"])
      ['attention', 'attention_norm', 'attention_out_norm', 'mlp', 'mlp_norm',
       'mlp_out_norm']

    References:
      Vaswani et al., Attention Is All You Need, 2017
      (https://arxiv.org/abs/1706.03762).
      Radford et al., Language Models are Unsupervised Multitask Learners, 2019: the
      residual scaling.
      So et al., Primer, 2021 (https://arxiv.org/abs/2109.08668): squared ReLU.
      Dehghani et al., Scaling Vision Transformers to 22 Billion Parameters, 2023
      (https://arxiv.org/abs/2302.05442): query-key normalization.
    """

    def __init__(
        self,
        vocab: int = 256,
        width: int = 64,
        depth: int = 2,
        *,
        head_dim: int | None = None,
        mlp_ratio: int = 4,
        activation: str = "relu2",
        tied: bool = True,
        qk_norm: bool = False,
        scan: bool = False,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        norm: Norm = RMSNorm,
        norm_implementation: Implementation | None = None,
        placement: Placement | Mapping[str, Placement] = pre,
        init: Scheme = gaussian,
        base_width: int | None = None,
        attention: Attend | None = None,
        remat: str = NONE,
        separator: int | None = None,
        logits_chunk: int | None = None,
        rngs: nnx.Rngs,
    ):
        head_dim = min(32, width) if head_dim is None else head_dim
        base_width = width if base_width is None else base_width
        check_positive(
            vocab=vocab,
            width=width,
            base_width=base_width,
            depth=depth,
            head_dim=head_dim,
            mlp_ratio=mlp_ratio,
            logits_chunk=1 if logits_chunk is None else logits_chunk,
        )
        check_choice("activation", activation, ACTIVATIONS)
        check_remat(remat)
        if separator is not None and not 0 <= separator < vocab:
            raise ValueError(f"separator: {separator} is no token below vocab={vocab}")
        if width % head_dim:
            raise ValueError(
                f"width: {width} is not a multiple of head_dim={head_dim}; choose "
                f"width={width - width % head_dim or head_dim} or a head_dim that "
                "divides it"
            )
        if head_dim % 2:
            raise ValueError(
                f"head_dim: {head_dim} is odd, and rotary positions turn pairs of "
                "features; choose an even head_dim"
            )

        if norm_implementation is not None:
            norm = part(norm, implementation=norm_implementation)

        def block(key: Array) -> Block:
            return Block(
                width,
                head_dim,
                mlp_ratio * width,
                activation=activation,
                qk_norm=qk_norm,
                depth=depth,
                norm=norm,
                placement=placement,
                init=init,
                attention=attention,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=nnx.Rngs(key),
            )

        self.embed = nnx.Embed(
            vocab,
            width,
            embedding_init=init(Kernel("embed", "embedding", 1 / base_width, depth)),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        keys = jax.random.split(rngs.params(), depth)
        self.blocks: Any = (
            nnx.Dict(stacked=nnx.vmap(block)(keys))
            if scan
            else nnx.List([block(key) for key in keys])
        )
        self.final_norm = norm(width, param_dtype=param_dtype, rngs=rngs)
        if not tied:
            self.head = nnx.Linear(
                width,
                vocab,
                use_bias=False,
                kernel_init=init(Kernel("head", "head", width / base_width, depth)),
                param_dtype=param_dtype,
                rngs=rngs,
            )
        self.output_multiplier = base_width / width
        self.logits_chunk = logits_chunk
        self.remat = remat
        self.separator = separator
        self.tied = tied
        self.scan = scan
        self.depth = depth

    def __call__(self, inputs: Array, *, train: bool = False) -> Array | LazyLogits:
        """Returns next-token logits.

        Args:
          inputs: [batch, length] integer tokens of any width, each below `vocab`.
          train: for the norms, where they look at the batch.

        Returns:
          [batch, length, vocab] float32 logits; position t sees tokens 0..t alone. With
          `logits_chunk` they are not yet computed.
        """
        tokens = inputs.astype(jnp.int32)
        documents = None
        if self.separator is not None:
            documents = documents_of(tokens, self.separator)
        x = by_example(self.embed(tokens))
        if self.scan:
            graphdef, stacked = nnx.split(self.blocks.stacked)

            def step(x: Array, layer: Any) -> tuple[Array, Any]:
                index, state = layer
                block = nnx.merge(graphdef, state)
                x = by_example(block(x, index, documents, train=train))
                return x, nnx.state(block, nnx.BatchStat)

            layers = (jnp.arange(1, self.depth + 1), stacked)
            step = rematerialized(step, self.remat, scanned=True)
            x, stats = jax.lax.scan(step, x, layers)
            nnx.update(self.blocks.stacked, stats)
        else:
            for index, block in enumerate(self.blocks, 1):
                x = call(block, self.remat, x, index, documents, train=train)
                x = by_example(x)
        x = self.final_norm(x, train=train)
        kernel = self.embed.embedding[...] if self.tied else self.head.kernel[...]
        logits = LazyLogits(
            x, kernel, self.output_multiplier, self.tied, self.logits_chunk or 1
        )
        return logits.dense() if self.logits_chunk is None else logits

    @staticmethod
    def forward_flops(
        shape: tuple[int, ...],
        *,
        vocab: int = 256,
        width: int = 64,
        depth: int = 2,
        mlp_ratio: int = 4,
        **_: Any,
    ) -> float:
        """FLOPs of the matrix products of one sequence's forward pass.

        Attention counts the full square of positions: the masked half is computed
        too. The embedding is a lookup and costs none; norms, softmax and activations
        are left out, as is usual. A training step costs three times as much.

        Args:
          shape: `(length,)`, the shape of one sequence of tokens.
          vocab: as the model's, like the rest; arguments that change no matrix
            product (`head_dim`, `activation`, `tied`, ...) are accepted and ignored.
          width: features of the residual stream.
          depth: number of blocks.
          mlp_ratio: hidden features of the feed-forward over `width`.

        Returns:
          FLOPs, a multiply-add being two.

        Example:
          >>> TransformerLM.forward_flops((64,), width=64, depth=2)
          16777216.0
        """
        (length,) = shape
        kernels = (4 + 2 * mlp_ratio) * width**2
        attention = 2 * length * width
        return 2.0 * length * (depth * (kernels + attention) + width * vocab)
