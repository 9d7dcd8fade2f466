"""Normalizations of activations, all under one contract.

A normalization is an `nnx.Module`, built as `Norm(features, *, param_dtype, rngs)` and
called as `norm(x, *, train)` on [..., features]:

* Its sums are float32 (float64 for float64), and the result has the input's dtype.
* `train` says whether it may look at the batch; one that looks at its own row alone
  ignores it. What it learns of a batch stands in `nnx.BatchStat` variables, which
  change where `train` is true and nowhere else.
* A zero input gives finite values and derivatives.

Every model takes one as `norm=`: a class, or `gnomon.models.part` of a class. With a
normalization over the batch all positions of all sequences are its examples: a causal
model then sees, in training, the mean of what it shall predict.
"""

from gnomon.models.normalization.batch import BatchNorm
from gnomon.models.normalization.layer import LayerNorm
from gnomon.models.normalization.mean_only import MeanOnlyBatchNorm
from gnomon.models.normalization.rms import RMSNorm

__all__ = ["BatchNorm", "LayerNorm", "MeanOnlyBatchNorm", "RMSNorm"]
