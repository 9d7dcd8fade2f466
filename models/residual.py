"""Residual blocks of images: two convolutions around a shortcut."""

from typing import Any, Literal

import jax
from flax import nnx
from jax import Array

from gnomon.models.initialization import Kernel, Scheme, gaussian
from gnomon.models.normalization import BatchNorm
from gnomon.models.parts import Norm

Padding = Literal["SAME", "even"]


def conv(
    inputs: int,
    outputs: int,
    kernel: Kernel,
    *,
    size: int = 3,
    stride: int = 1,
    padding: Padding = "SAME",
    init: Scheme,
    **options: Any,
) -> nnx.Conv:
    """A convolution without bias.

    Args:
      inputs: channels in.
      outputs: channels out.
      kernel: what `init` is told of it.
      size: side of the window. Default 3.
      stride: of both axes. Default 1.
      padding: see `gnomon.models.ResNet`.
      init: the scheme of initialization.
      **options: of `nnx.Conv`.

    Returns:
      The layer.
    """
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=(stride, stride),
        padding=size // 2 if padding == "even" else "SAME",
        use_bias=False,
        kernel_init=init(kernel),
        **options,
    )


class ResidualBlock(nnx.Module):
    """Each convolution is followed by its norm, and the sum by a rectifier.

    `relu(shortcut(x) + norm2(conv2(relu(norm1(conv1(x))))))`. The shortcut is the
    identity, or a strided 1x1 convolution with a norm where the shape changes.

    Args:
      inputs: channels in.
      outputs: channels out.
      stride: of the first convolution.
      depth: number of blocks of the model, for `init`.
      norm: what normalizes.
      init: the scheme of initialization.
      padding: see `gnomon.models.ResNet`.
      dtype: compute dtype.
      param_dtype: dtype of the parameters.
      rngs: source of the initial values.
    """

    # Whether the stream of the blocks is normalized: the model has a norm behind its
    # stem then, and else one before its head.
    normalized = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        depth: int = 1,
        norm: Norm = BatchNorm,
        init: Scheme = gaussian,
        padding: Padding = "SAME",
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = {
            "init": init,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        first = Kernel("conv1", "hidden", 2.0, depth)
        second = Kernel("conv2", "residual", 2.0, depth)
        self.conv1 = conv(
            inputs, outputs, first, stride=stride, padding=padding, **options
        )
        self.conv2 = conv(outputs, outputs, second, padding=padding, **options)
        normed = {"param_dtype": param_dtype, "rngs": rngs}
        self.norm1 = norm(outputs if self.normalized else inputs, **normed)
        self.norm2 = norm(outputs, **normed)
        self.project = inputs != outputs or stride != 1
        if self.project:
            third = Kernel("shortcut", "hidden", 2.0, depth)
            self.shortcut = conv(
                inputs, outputs, third, size=1, stride=stride, **options
            )
            if self.normalized:
                self.shortcut_norm = norm(outputs, **normed)

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [batch, H, W, inputs] to [batch, H/stride, W/stride, outputs]."""
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = self.norm2(self.conv2(y), train=train)
        if self.project:
            x = self.shortcut_norm(self.shortcut(x), train=train)
        return jax.nn.relu(x + y)


class PreActivationBlock(ResidualBlock):
    """Norm and rectifier come before each convolution, and nothing behind the sum.

    `x + conv2(relu(norm2(conv1(relu(norm1(x))))))`. Where the shape changes the
    shortcut is a strided 1x1 convolution of `relu(norm1(x))`. The arguments are those
    of `ResidualBlock`.

    References:
      He et al., Identity Mappings in Deep Residual Networks, 2016
      (https://arxiv.org/abs/1603.05027).
    """

    normalized = False

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [batch, H, W, inputs] to [batch, H/stride, W/stride, outputs]."""
        y = jax.nn.relu(self.norm1(x, train=train))
        if self.project:
            x = self.shortcut(y)
        y = jax.nn.relu(self.norm2(self.conv1(y), train=train))
        return x + self.conv2(y)
