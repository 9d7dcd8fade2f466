"""Real parameter shapes, for the tests and the benchmarks of every kernel.

Kernels of dense layers are ``(in, out)`` and embeddings ``(rows, features)``, as Flax
stores them; a convolution is unfolded to ``(units, fan_in)``.
"""

from typing import NamedTuple

import jax


class Leaf(NamedTuple):
    """One parameter of a real model."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    # the axis inside one output unit; None for a leaf without units
    unit_axis: int | None

    @property
    def struct(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype without data, for tracing."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)


# A GPT-2 of 124 million parameters, one leaf of each shape it has.
GPT2_124M = (
    Leaf("gpt2/embedding", (50257, 768), "float32", 1),
    Leaf("gpt2/positions", (1024, 768), "float32", 1),
    Leaf("gpt2/qkv", (768, 2304), "float32", 0),
    Leaf("gpt2/attention_out", (768, 768), "float32", 0),
    Leaf("gpt2/mlp_in", (768, 3072), "float32", 0),
    Leaf("gpt2/mlp_out", (3072, 768), "float32", 0),
    Leaf("gpt2/scale", (768,), "float32", None),
)

# One layer of a transformer of 1.3 billion parameters, width 2048.
LLM_1_3B = (
    Leaf("1.3b/qkv", (2048, 6144), "bfloat16", 0),
    Leaf("1.3b/attention_out", (2048, 2048), "bfloat16", 0),
    Leaf("1.3b/mlp_in", (2048, 8192), "bfloat16", 0),
    Leaf("1.3b/mlp_out", (8192, 2048), "bfloat16", 0),
    Leaf("1.3b/scale", (2048,), "bfloat16", None),
)

# ResNet-50: the stem, a narrow and a wide 3x3, a wide 1x1 and the classifier.
RESNET50 = (
    Leaf("resnet50/stem", (64, 147), "float32", 1),
    Leaf("resnet50/conv3x3_narrow", (64, 576), "float32", 1),
    Leaf("resnet50/conv3x3_wide", (512, 4608), "float32", 1),
    Leaf("resnet50/conv1x1_wide", (2048, 512), "float32", 1),
    Leaf("resnet50/classifier", (2048, 1000), "float32", 0),
)

# Nothing here divides by the tile of any chip.
RAGGED = (
    Leaf("ragged/primes", (127, 131), "float32", 1),
    Leaf("ragged/tall", (5003, 3), "float32", 0),
    Leaf("ragged/flat", (3, 5003), "bfloat16", 1),
    Leaf("ragged/vector", (257,), "float32", None),
    Leaf("ragged/one", (1, 1), "float32", 1),
)

LEAVES = GPT2_124M + LLM_1_3B + RESNET50 + RAGGED


class Activations(NamedTuple):
    """What one normalization layer is given: tokens, or images, by features."""

    name: str
    shape: tuple[int, int]
    dtype: str

    @property
    def struct(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype without data, for tracing."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)


ACTIVATIONS = (
    Activations("gpt2/tokens", (8192, 768), "bfloat16"),
    Activations("1.3b/tokens", (16384, 2048), "bfloat16"),
    Activations("1.3b/queries", (262144, 128), "bfloat16"),
    Activations("8b/tokens", (8192, 4096), "bfloat16"),
    Activations("8b/tokens_f32", (8192, 4096), "float32"),
    Activations("ragged/primes", (5003, 131), "float32"),
    Activations("ragged/odd", (257, 1001), "bfloat16"),
    Activations("ragged/narrow", (100003, 3), "float32"),
    Activations("ragged/one", (1, 1), "float32"),
)
