"""The residual block of a transformer."""

from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax import Array

from gnomon.models.attention import Attention
from gnomon.models.dot_product import Attend
from gnomon.models.initialization import Kernel, Scheme
from gnomon.models.layers import ACTIVATIONS
from gnomon.models.parts import Norm
from gnomon.models.placements import Connection, Placement


class FeedForward(nnx.Module):
    """`down(activation(up(x)))`, without biases.

    Args:
      width: features in and out.
      hidden: features between.
      activation: a key of `ACTIVATIONS`.
      depth: number of blocks of the model; `down` starts with its variance divided by
        twice as much.
      init: the scheme of initialization.
      dtype: compute dtype.
      param_dtype: dtype of the kernels.
      rngs: source of the initial values.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: str,
        depth: int,
        init: Scheme,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = {
            "use_bias": False,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        up = init(Kernel("mlp/up", "hidden", 1.0, depth))
        down = init(Kernel("mlp/down", "residual", 1 / (2 * depth), depth))
        self.up = nnx.Linear(width, hidden, kernel_init=up, **options)
        self.down = nnx.Linear(hidden, width, kernel_init=down, **options)
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [..., width] to [..., width]; alike in training and evaluation."""
        return self.down(self.activation(self.up(x)))


class Block(nnx.Module):
    """Residual block: attention, then feed-forward, each normalized as it is placed.

    Args:
      width: features of the stream.
      head_dim: features of an attention head.
      hidden: features between the feed-forward's layers.
      activation: a key of `ACTIVATIONS`.
      qk_norm: whether queries and keys are normalized.
      depth: number of blocks of the model.
      norm: what normalizes.
      placement: where, for both branches or by the branch's name.
      init: the scheme of initialization.
      attention: what computes it, see `gnomon.models.dot_product.explain`.
      dtype: compute dtype.
      param_dtype: dtype of the parameters.
      rngs: source of the initial values.
    """

    def __init__(
        self,
        width: int,
        head_dim: int,
        hidden: int,
        *,
        activation: str,
        qk_norm: bool,
        depth: int,
        norm: Norm,
        placement: Placement | Mapping[str, Placement],
        init: Scheme,
        attention: Attend | None = None,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = {
            "depth": depth,
            "init": init,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.attention = Attention(
            width,
            head_dim,
            qk_norm=qk_norm,
            norm=norm,
            implementation=attention,
            **options,
        )
        self.mlp = FeedForward(width, hidden, activation=activation, **options)
        self.connections = tuple(
            (branch, Connection.of(function))
            for branch, function in by_branch(placement).items()
        )
        for branch, connection in self.connections:
            connection.build(
                self, branch, lambda: norm(width, param_dtype=param_dtype, rngs=rngs)
            )
        self.depth = depth

    def __call__(
        self, x: Array, index: Any, documents: Array | None = None, *, train: bool
    ) -> Array:
        """Maps [batch, length, width] to the same shape.

        Args:
          x: the stream.
          index: the block's place in the stack, from 1.
          documents: the document of each position, for attention; None is one for all.
          train: for the norms.
        """
        facts = {"index": index, "depth": self.depth}
        given = {} if documents is None else {"attention": {"documents": documents}}
        for branch, connection in self.connections:
            seen = given.get(branch, {})
            x = connection(self, branch, x, train=train, seen=seen, **facts)
        return x


BRANCHES = ("attention", "mlp")


def by_branch(placement: Placement | Mapping[str, Placement]) -> dict[str, Placement]:
    """The placement of every branch of a block, in the order in which they run.

    Raises:
      ValueError: if a mapping names other branches than a block has.
    """
    if not isinstance(placement, Mapping):
        return dict.fromkeys(BRANCHES, placement)
    if placement.keys() != set(BRANCHES):
        raise ValueError(
            f"placement: a mapping names {sorted(placement)}; give one function, or "
            f"one for each of {', '.join(BRANCHES)}"
        )
    return {branch: placement[branch] for branch in BRANCHES}
