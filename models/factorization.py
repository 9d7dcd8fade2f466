"""Matrix factorization: a rating is what a person and a thing have in common."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.models.layers import check_positive, normal
from gnomon.parameters.trees import compute_dtype


class Factorization(nnx.Module):
    r"""Low-rank model of a table with row and column biases.

    .. math:: \hat r_{ij} = \mu + b_i + c_j + u_i \cdot v_j

    The factors are normal with standard deviation :math:`0.1 / \text{rank}^{1/4}`, so
    that their products start with one of 0.01; biases are zero. Parameters lie at
    `rows/embedding`, `columns/embedding`, `row_bias`, `column_bias` and `mean`.

    Args:
      rows: number of rows, people for instance.
      columns: number of columns, films for instance.
      rank: length of a factor. Default 16.
      mean: initial value of :math:`\mu`. Default 0.
      param_dtype: dtype of the parameters. Default float32.
      rngs: source of the initial values.

    Raises:
      ValueError: if a size is not positive.

    Example:
      >>> import jax
      >>> from gnomon.models import functional, parameter_count
      >>> net = functional(Factorization, rows=943, columns=1682, rank=8, mean=3.5)
      >>> params, stats = net.init(jax.random.key(0))
      >>> parameter_count(params)
      23626
      >>> pairs = jnp.array([[0, 3], [942, 1681]])
      >>> net.apply(params, stats, pairs, train=False)[0].round(1)
      Array([3.5, 3.5], dtype=float32)

    References:
      Koren, Y., Bell, R., Volinsky, C. (2009). Matrix Factorization Techniques for
      Recommender Systems. Computer 42(8).
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        rank: int = 16,
        *,
        mean: float = 0.0,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_positive(rows=rows, columns=columns, rank=rank)
        options: dict[str, Any] = {
            "embedding_init": normal(0.1 * rank**-0.25),
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.rows = nnx.Embed(rows, rank, **options)
        self.columns = nnx.Embed(columns, rank, **options)
        self.row_bias = nnx.Param(jnp.zeros((rows,), param_dtype))
        self.column_bias = nnx.Param(jnp.zeros((columns,), param_dtype))
        self.mean = nnx.Param(jnp.asarray(mean, param_dtype))

    def __call__(self, inputs: Array, *, train: bool = False) -> Array:
        """Returns predictions.

        Args:
          inputs: [batch, 2] integers, row and column of each entry.
          train: ignored: the model behaves alike in training and evaluation.

        Returns:
          [batch] float32.
        """
        row, column = inputs[:, 0], inputs[:, 1]
        u, v = self.rows(row), self.columns(column)
        dtype = compute_dtype(u.dtype)
        common = jnp.sum(u.astype(dtype) * v.astype(dtype), axis=-1)
        biases = self.row_bias[...][row] + self.column_bias[...][column]
        return common + biases.astype(dtype) + self.mean[...].astype(dtype)

    @staticmethod
    def forward_flops(shape: tuple[int, ...], *, rank: int = 16, **_: Any) -> float:
        """FLOPs of one entry's forward pass: a product of factors and three sums.

        Example:
          >>> Factorization.forward_flops((2,), rank=16)
          35.0
        """
        return 2.0 * rank + 3.0
