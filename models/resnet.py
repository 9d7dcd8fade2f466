"""A small residual network for images, with batch normalization."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.models.layers import check_positive, fan_in, wide
from gnomon.models.normalization import BatchNorm

Padding = Literal["SAME", "even"]


def _conv(
    inputs: int,
    outputs: int,
    size: int,
    stride: int,
    padding: Padding = "SAME",
    **options: Any,
) -> Any:
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=(stride, stride),
        padding=size // 2 if padding == "even" else "SAME",
        use_bias=False,
        kernel_init=fan_in(2.0),
        **options,
    )


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions around a shortcut, each followed by batch norm.

    The shortcut is the identity, or a strided 1x1 convolution with batch norm where
    the shape changes.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        padding: Padding = "SAME",
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        conv: dict[str, Any] = {
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        norm: dict[str, Any] = {"param_dtype": param_dtype, "rngs": rngs}
        self.conv1 = _conv(inputs, outputs, 3, stride, padding, **conv)
        self.norm1 = BatchNorm(outputs, **norm)
        self.conv2 = _conv(outputs, outputs, 3, 1, padding, **conv)
        self.norm2 = BatchNorm(outputs, **norm)
        self.project = inputs != outputs or stride != 1
        if self.project:
            self.shortcut = _conv(inputs, outputs, 1, stride, **conv)
            self.shortcut_norm = BatchNorm(outputs, **norm)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [batch, H, W, inputs] to [batch, H/stride, W/stride, outputs]."""
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = self.norm2(self.conv2(y), train=train)
        if self.project:
            x = self.shortcut_norm(self.shortcut(x), train=train)
        return jax.nn.relu(x + y)


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
    the running statistics `{mean,var}` beside each `{scale,bias}`.

    Args:
      width: channels of the first stage. Default 16.
      blocks: residual blocks of each stage. Default `(1, 1, 1)`.
      classes: number of outputs. Default 10.
      channels: channels of the images. Default 1.
      padding: `"SAME"`, XLA's: where a convolution of stride 2 meets an even image, all
        of its border lies below and to the right, so that its windows are centered half
        a pixel off. `"even"`: one pixel on every side, as other frameworks pad, for
        comparisons with them. Sizes and parameters are the same. Default `"SAME"`.
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
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_positive(width=width, classes=classes, channels=channels)
        check_positive(**{f"blocks[{i}]": count for i, count in enumerate(blocks)})
        if padding not in get_args(Padding):
            raise ValueError(f"padding={padding!r}: must be 'SAME' or 'even'")
        options: dict[str, Any] = {
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.stem = _conv(channels, width, 3, 1, padding, **options)
        self.stem_norm = BatchNorm(width, param_dtype=param_dtype, rngs=rngs)
        layout = _layout(width, blocks)
        self.blocks = nnx.List(
            [ResidualBlock(*shape, padding=padding, **options) for shape in layout]
        )
        features = layout[-1][1] if layout else width
        self.head = nnx.Linear(features, classes, kernel_init=fan_in(), **options)

    def __call__(self, inputs: Array, *, train: bool) -> Array:
        """Returns class scores.

        Args:
          inputs: [batch, H, W, channels] floats. Integer images are the caller's to
            scale.
          train: whether to normalize by the batch and update the statistics.

        Returns:
          [batch, classes] float32 logits.
        """
        x = jax.nn.relu(self.stem_norm(self.stem(inputs), train=train))
        for block in self.blocks:
            x = block(x, train=train)
        pooled = jnp.mean(x, axis=(1, 2), dtype=wide(x.dtype)).astype(x.dtype)
        return self.head(pooled).astype(wide(x.dtype))

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
