"""A small residual network for images, with batch normalization."""

from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.models.initialization import Kernel, Scheme, gaussian
from gnomon.models.layers import check_positive
from gnomon.models.normalization import BatchNorm
from gnomon.models.parts import Norm
from gnomon.models.remat import NONE, call, check_remat
from gnomon.models.residual import Padding, ResidualBlock, conv
from gnomon.parameters.trees import compute_dtype


class ResNet(nnx.Module):
    """CIFAR-style residual network.

    A 3x3 convolution, then stages of residual blocks; each stage after the first
    halves the image and doubles the channels; a global average and an affine head.
    `blocks=(1, 1, 1)` is ResNet-8 and `(3, 3, 3)` ResNet-20. Convolution kernels
    (HWIO, no biases) are normal with variance 2 / fan-in, the head's with variance
    1 / fan-in.

    Batched over models by `vmap`, a convolution becomes a grouped one, several times
    slower a model on CPU; loop over models there with `jax.lax.map`.

    Parameters lie at `stem/kernel`, `stem_norm/{scale,bias}`,
    `blocks/<i>/{conv1,conv2,shortcut}/kernel`,
    `blocks/<i>/{norm1,norm2,shortcut_norm}/{scale,bias}` and `head/{kernel,bias}`;
    the running statistics `{mean,var}` beside each `{scale,bias}`. Where the stream
    is not normalized, `final_norm` takes the place of `stem_norm`.

    Args:
      width: channels of the first stage. Default 16.
      blocks: residual blocks of each stage. Default `(1, 1, 1)`.
      classes: number of outputs. Default 10.
      channels: channels of the images. Default 1.
      padding: `"SAME"`, XLA's: where a convolution of stride 2 meets an even image, all
        of its border lies below and to the right, so that its windows are centered half
        a pixel off. `"even"`: one pixel on every side, as other frameworks pad, for
        comparisons with them. Sizes and parameters are the same. Default `"SAME"`.
      norm: what normalizes, under the contract of `gnomon.models.normalization`: a
        class or a `gnomon.models.part` of one. Default `BatchNorm`.
      placement: where the norms of a block stand: `ResidualBlock`, the default, or
        another class of `gnomon.models.residual`, or one that extends them.
      init: what fills the kernels, a scheme of `gnomon.models.initialization`. Default
        `gaussian`, the initialization above.
      remat: what a block computes again for its gradient, rather than keep it: "none",
        the default, "full", or a policy of JAX's (`gnomon.models.remat`).
      dtype: compute dtype; statistics and outputs are float32. Default float32.
      param_dtype: dtype of the parameters. Default float32.
      rngs: source of the initial values.

    Raises:
      ValueError: if a size is not positive, or `padding` is neither.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gnomon.models import functional, parameter_count
      >>> net = functional(ResNet, width=16)
      >>> params, stats = jax.jit(net.init)(jax.random.key(0))
      >>> parameter_count(params), parameter_count(stats)
      (77754, 672)
      >>> apply = jax.jit(net.apply, static_argnames="train")
      >>> apply(params, stats, jnp.zeros((2, 28, 28, 1)), train=False)[0].shape
      (2, 10)

    References:
      He et al., Deep Residual Learning for Image Recognition, 2015
      (https://arxiv.org/abs/1512.03385), section 4.2.

    Differences:
      Where a block changes the shape, the paper's CIFAR networks pad the identity
      with zero channels; here, as is now usual, the shortcut is a 1x1 convolution.
      The paper does not say how borders are padded at stride 2; see `padding`.
    """

    def __init__(
        self,
        width: int = 16,
        blocks: Sequence[int] = (1, 1, 1),
        classes: int = 10,
        channels: int = 1,
        *,
        padding: Padding = "SAME",
        norm: Norm = BatchNorm,
        placement: type[ResidualBlock] = ResidualBlock,
        init: Scheme = gaussian,
        remat: str = NONE,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_positive(width=width, classes=classes, channels=channels)
        check_positive(**{f"blocks[{i}]": count for i, count in enumerate(blocks)})
        check_remat(remat)
        if padding not in get_args(Padding):
            raise ValueError(f"padding={padding!r}: must be 'SAME' or 'even'")
        layout = _layout(width, blocks)
        depth = len(layout)
        norms: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        options: dict[str, Any] = {"dtype": dtype, **norms}
        parts: dict[str, Any] = {"padding": padding, "init": init, **options}
        stem = Kernel("stem", "hidden", 2.0, depth)
        self.stem = conv(channels, width, stem, **parts)
        features = layout[-1][1] if layout else width
        self.normalized = placement.normalized
        if self.normalized:
            self.stem_norm = norm(width, **norms)
        else:
            self.final_norm = norm(features, **norms)
        self.remat = remat
        self.blocks = nnx.List(
            [placement(*shape, depth=depth, norm=norm, **parts) for shape in layout]
        )
        head = init(Kernel("head", "head", 1.0, depth))
        self.head = nnx.Linear(features, classes, kernel_init=head, **options)

    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Returns class scores.

        Args:
          inputs: [batch, H, W, channels] floats. Integer images are the caller's to
            scale.
          train: whether to normalize by the batch and update the statistics.

        Returns:
          [batch, classes] float32 logits.
        """
        x = self.stem(inputs)
        if self.normalized:
            x = jax.nn.relu(self.stem_norm(x, train=train))
        for block in self.blocks:
            x = call(block, self.remat, x, train=train)
        if not self.normalized:
            x = jax.nn.relu(self.final_norm(x, train=train))
        pooled = jnp.mean(x, axis=(1, 2), dtype=compute_dtype(x.dtype)).astype(x.dtype)
        return self.head(pooled).astype(compute_dtype(x.dtype))

    @staticmethod
    def forward_flops(
        shape: tuple[int, ...],
        *,
        width: int = 16,
        blocks: Sequence[int] = (1, 1, 1),
        classes: int = 10,
        **_: Any,
    ) -> float:
        """FLOPs of the convolutions and the head of one image's forward pass.

        Args:
          shape: `(H, W, channels)` of one image.
          width: as the model's, like the rest; arguments that change no product are
            accepted and ignored.
          blocks: residual blocks of each stage.
          classes: number of outputs.

        Returns:
          FLOPs, a multiply-add being two. Products with the border's zero padding are
          counted, as is usual; norms and activations are left out.

        Example:
          >>> ResNet.forward_flops((28, 28, 1), width=16)
          18691840.0
        """
        height, breadth, channels = shape
        total = height * breadth * 9 * channels * width
        features = width
        for inputs, outputs, stride in _layout(width, blocks):
            height, breadth = -(-height // stride), -(-breadth // stride)
            kernels = 9 * inputs * outputs + 9 * outputs**2
            if inputs != outputs or stride != 1:
                kernels += inputs * outputs
            total += height * breadth * kernels
            features = outputs
        return 2.0 * (total + features * classes)


def _layout(width: int, blocks: Sequence[int]) -> list[tuple[int, int, int]]:
    """(channels in, channels out, stride) of every residual block, in order."""
    layout = []
    channels = width
    for stage, count in enumerate(blocks):
        for index in range(count):
            outputs = width * 2**stage
            layout.append((channels, outputs, 2 if stage and not index else 1))
            channels = outputs
    return layout
