r"""Laws as data: a sum of terms with nonnegative coefficients.

.. math:: \hat y(x) = \sum_{j=1}^{m} c_j \, \phi_j(\theta, x), \qquad c_j \ge 0

For given :math:`\theta` (exponents, mostly) the law is linear in its coefficients.
That is what `gnomon.scaling.solver` lives on, so a new law is a function
that evaluates :math:`\phi`, the grid its :math:`\theta` is looked for on, and the
names its numbers go by. Made of functions of modules (and `functools.partial`), a form
can be pickled, and so can a fit of it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Columns = Mapping[str, np.ndarray]
# theta [..., q] and columns of n rows -> phi [..., m, n], its slopes [..., q, m, n].
Basis = Callable[[np.ndarray, Columns], tuple[np.ndarray, np.ndarray]]
# theta [..., q], real or complex, and columns of n rows -> phi [..., m, n].
Terms = Callable[[np.ndarray, Columns], np.ndarray]
# theta [..., q] and coefficients [..., m] -> named parameters, each [...].
Naming = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
# theta [..., q] and coefficients [..., m] -> an array [..., *axes of its own].
Quantity = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Form(NamedTuple):
    """A law, ready to be fitted.

    Attributes:
      basis: Evaluates the terms and their slopes along theta.
      grid: For each entry of theta, the values that the search starts from.
      bounds: ``[q, 2]`` lowest and highest values of theta.
      parameters: Names what was fitted, in the units of the data.
      logarithmic: Names of parameters whose logarithm is the natural scale of their
        errors (coefficients, mostly).
      formula: The law in one line, for reports.
    """

    basis: Basis
    grid: Sequence[np.ndarray]
    bounds: np.ndarray
    parameters: Naming
    logarithmic: frozenset[str]
    formula: str


def power_terms(
    terms: Sequence[Mapping[int, tuple[str, float]]], exponents: int
) -> Basis:
    r"""Products of powers, :math:`\phi_j = \prod_k (x_k / s)^{-\theta_k}`.

    Args:
      terms: for each term, by the number k of the exponent: the column it belongs to
        and the scale s that the column is divided by. A scale near the column's
        center keeps coefficients and exponents nearly uncorrelated. ``{}`` is a
        constant.
      exponents: how many exponents there are.

    Returns:
      The basis.

    Example:
      >>> basis = power_terms([{}, {0: ("tokens", 10.0)}], exponents=1)
      >>> phi, slope = basis(np.array([0.5]), {"tokens": np.array([10.0, 1000.0])})
      >>> print(phi)
      [[1.  1. ]
       [1.  0.1]]
      >>> print(slope[0].round(3) + 0.0)
      [[ 0.    0.  ]
       [ 0.   -0.461]]
    """

    return functools.partial(_powers, tuple(dict(term) for term in terms), exponents)


def _powers(
    terms: Sequence[Mapping[int, tuple[str, float]]],
    exponents: int,
    theta: np.ndarray,
    columns: Columns,
) -> tuple[np.ndarray, np.ndarray]:
    rows = len(next(iter(columns.values())))
    logs = np.zeros((exponents, len(terms), rows))
    for j, term in enumerate(terms):
        for k, (name, scale) in term.items():
            logs[k, j] = np.log(columns[name] / scale)
    phi = np.exp(-np.einsum("...k,kjn->...jn", theta, logs))
    return phi, -logs * phi[..., None, :, :]


def complex_step(function: Terms) -> Basis:
    r"""A basis from terms alone, with slopes by the complex step.

    :math:`\partial \phi / \partial \theta_k = \Im\, \phi(\theta + i h e_k) / h` has
    no cancellation, so with :math:`h = 10^{-30}` it is exact to rounding for
    functions made of analytic pieces.

    Args:
      function: from theta ``[..., q]``, real or complex, and columns to
        ``[..., m, n]``.

    Returns:
      The basis.

    Example:
      >>> basis = complex_step(lambda t, x: np.exp(-t[..., :1, None] * x["t"]))
      >>> print(basis(np.array([2.0]), {"t": np.array([1.0])})[1].round(4))
      [[[-0.1353]]]

    References:
      Squire, W. and Trapp, G. (1998). Using Complex Variables to Estimate Derivatives
      of Real Functions. SIAM Review 40(1).
    """

    return functools.partial(_stepped, function)


def _stepped(
    function: Terms, theta: np.ndarray, columns: Columns
) -> tuple[np.ndarray, np.ndarray]:
    slopes = []
    for k in range(theta.shape[-1]):
        shifted = theta.astype(complex)
        shifted[..., k] += 1e-30j
        slopes.append(function(shifted, columns).imag / 1e-30)
    return function(theta, columns), np.stack(slopes, axis=-3)


def center(column: np.ndarray) -> float:
    """The geometric mean, the scale that `power_terms` wants.

    >>> round(center(np.array([1.0, 100.0])), 6)
    10.0
    """
    return float(np.exp(np.mean(np.log(column))))
