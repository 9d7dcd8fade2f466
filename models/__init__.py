"""Flax NNX models, each usable as pure functions through `functional`."""

from gnomon.models.factorization import Factorization
from gnomon.models.flops import parameter_count
from gnomon.models.functional import Functional, functional
from gnomon.models.logits import LazyLogits
from gnomon.models.mlp import MLP
from gnomon.models.normalization import MeanOnlyBatchNorm
from gnomon.models.parts import part
from gnomon.models.resnet import ResNet
from gnomon.models.shapes import parameter_shapes
from gnomon.models.transformer import TransformerLM

__all__ = [
    "MLP",
    "Factorization",
    "Functional",
    "LazyLogits",
    "MeanOnlyBatchNorm",
    "ResNet",
    "TransformerLM",
    "functional",
    "parameter_count",
    "parameter_shapes",
    "part",
]
