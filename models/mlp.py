"""A multilayer perceptron for classification."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.models.initialization import Kernel, Scheme, gaussian
from gnomon.models.layers import ACTIVATIONS, check_choice, check_positive
from gnomon.models.parts import Norm
from gnomon.parameters.trees import compute_dtype


class MLP(nnx.Module):
    """Multilayer perceptron: affine layers with an activation between them.

    Hidden kernels are normal with variance 2 / fan-in (He), the head's with variance
    1 / fan-in, biases zero. Parameters lie at `hidden/<i>/{kernel,bias}` and
    `head/{kernel,bias}`, those of norms, if any, at `norms/<i>`.

    Args:
      inputs: number of features of one example. Default 784.
      widths: features of each hidden layer; `()` is a linear model. Default
        `(256, 256)`.
      classes: number of outputs. Default 10.
      activation: "relu" (the default), "relu2" or "gelu".
      norm: what normalizes before each activation, as of
        `gnomon.models.normalization`. Default None, nothing.
      init: what fills the kernels, a scheme of `gnomon.models.initialization`. Default
        `gaussian`, the initialization above.
      dtype: compute dtype; the outputs are float32. Default float32.
      param_dtype: dtype of the parameters. Default float32.
      rngs: source of the initial values.

    Raises:
      ValueError: if a size is not positive or the activation is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gnomon.models import functional, parameter_count
      >>> net = functional(MLP, inputs=784, widths=(256, 256))
      >>> params, stats = net.init(jax.random.key(0))
      >>> parameter_count(params)
      269322
      >>> net.apply(params, stats, jnp.zeros((2, 28, 28, 1)), train=False)[0].shape
      (2, 10)

    References:
      He et al., Delving Deep into Rectifiers, 2015 (https://arxiv.org/abs/1502.01852).
    """

    def __init__(
        self,
        inputs: int = 784,
        widths: Sequence[int] = (256, 256),
        classes: int = 10,
        *,
        activation: str = "relu",
        norm: Norm | None = None,
        init: Scheme = gaussian,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_positive(inputs=inputs, classes=classes)
        check_positive(**{f"widths[{i}]": size for i, size in enumerate(widths)})
        check_choice("activation", activation, ACTIVATIONS)
        options: dict[str, Any] = {
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        sizes = (inputs, *widths)
        depth = len(widths)

        def affine(i: int) -> nnx.Linear:
            kernel = init(Kernel(f"hidden/{i}", "hidden", 2.0, depth))
            return nnx.Linear(sizes[i], sizes[i + 1], kernel_init=kernel, **options)

        self.hidden = nnx.List([affine(i) for i in range(depth)])
        self.norms = nnx.List(
            [norm(size, param_dtype=param_dtype, rngs=rngs) for size in widths]
            if norm is not None
            else []
        )
        head = init(Kernel("head", "head", 1.0, depth))
        self.head = nnx.Linear(sizes[-1], classes, kernel_init=head, **options)
        self.activation = ACTIVATIONS[activation]
        self.inputs = inputs

    def __call__(self, inputs: Array, *, train: bool = False) -> Array:
        """Returns class scores.

        Args:
          inputs: [batch, ...] floats; the trailing axes are flattened and must hold
            `inputs` features. Integer images are the caller's to scale.
          train: for the norms, where they look at the batch.

        Returns:
          [batch, classes] float32 logits.
        """
        features = math.prod(inputs.shape[1:])
        if features != self.inputs:
            raise ValueError(
                f"inputs: an example of shape {inputs.shape[1:]} has {features} "
                f"features; build the model with inputs={features}"
            )
        x = inputs.reshape(inputs.shape[0], features)
        for i, layer in enumerate(self.hidden):
            x = layer(x)
            if self.norms:
                x = self.norms[i](x, train=train)
            x = self.activation(x)
        x = self.head(x)
        return x.astype(compute_dtype(x.dtype))

    @staticmethod
    def forward_flops(
        shape: tuple[int, ...],
        *,
        widths: Sequence[int] = (256, 256),
        classes: int = 10,
        **_: Any,
    ) -> float:
        """FLOPs of the matrix products of one example's forward pass.

        Args:
          shape: shape of one example, such as `(28, 28, 1)`.
          widths: as the model's, like the rest; arguments that change no matrix
            product are accepted and ignored.
          classes: number of outputs.

        Returns:
          FLOPs, a multiply-add being two; biases and activations are left out.

        Example:
          >>> MLP.forward_flops((28, 28, 1))
          537600.0
        """
        sizes = (math.prod(shape), *widths, classes)
        return 2.0 * sum(a * b for a, b in pairwise(sizes))
