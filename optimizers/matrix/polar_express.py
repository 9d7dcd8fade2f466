"""Polar Express: the best polynomial at every step of a Newton-Schulz iteration."""

import functools
import math

import numpy as np

from gnomon.parameters.checks import require_within

__all__ = ["polar_express"]

_HIDDEN = {"ref": "gnomon.optimizers.hidden_matrices"}
_MUON = dict(
    name="optax.contrib.muon",
    learning_rate=3e-3,
    beta=0.95,
    weight_decay=0.01,
    consistent_rms=0.2,
    adam_b1=0.9,
    adam_b2=0.99,
    adam_weight_decay=0.01,
    ns_coeffs=dict(name="gnomon.optimizers.polar_express", steps=5),
)
# Muon of optax, as in the line `muon`, with these polynomials; and with a matrix a head
# where attention has several.
RECOMMENDED = {
    "muon_polar_express": dict(**_MUON, muon_weight_dimension_numbers=_HIDDEN),
    "muon_per_head": dict(
        **_MUON,
        muon_weight_dimension_numbers={"ref": "gnomon.optimizers.head_matrices"},
    ),
}

# The minimax problem is solved when its error moves by less.
_SOLVED = 1e-15
# They converge quadratically; rounding may keep them from standing still.
_EXCHANGES = 60
# An interval so narrow is a point, and the polynomial the one that is flat there.
_NARROW = 5e-6


@functools.cache
def polar_express(
    steps: int = 5,
    smallest: float = 1e-3,
    *,
    cushion: float = 0.02407327424182761,
    safety: float = 1.01,
) -> tuple[tuple[float, float, float], ...]:
    r"""Coefficients of the steps that bring singular values to 1 the fastest.

    With singular values in :math:`[\ell_t, u_t]`, from :math:`[\ell, 1]` on, step
    :math:`t` is the odd polynomial :math:`p(x) = a x + b x^3 + c x^5` of

    .. math::
      \min_p \max_{\ell_t \le x \le u_t} |1 - p(x)|

    and the next interval is its image. The composition of the best steps is the best
    composition. They are computed once, in float64, by Remez' exchange.

    Args:
      steps: how many, a whole number, default 5.
      smallest: :math:`\ell`, the smallest singular value after division by the norm
        that counts, default 1e-3. What is smaller grows as well, and less far.
      cushion: intervals start no lower than this part of their end, default 0.024;
        steeper polynomials, which push values apart, are left out.
      safety: the polynomials, apart from the last, are those of values divided by this,
        default 1.01, so that values that rounding put above the interval come back.

    Returns:
      A row :math:`a, b, c` a step: ``ns_coeffs`` of ``optax.contrib.muon``, and
      ``coefficients`` of `gnomon.parameters.spectral.polar`.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> for row in polar_express(3):
      ...     print(*(f"{x:.4f}" for x in row))
      8.2052 -22.9019 16.4607
      4.0664 -2.8612 0.5184
      3.9487 -2.9089 0.5518

    References:
      Amsel et al., `The Polar Express: Optimal Matrix Sign Methods and Their
      Application to the Muon Algorithm <https://arxiv.org/abs/2505.16932>`_, 2025

    Differences:
      The paper's text was not read; the problem, the cushion and the safety are those
      of its published code as noted, and the coefficients were compared with those it
      prints.
    """
    require_within("[1, inf)", steps=steps, whole=True)
    require_within("(0, 1]", smallest=smallest, cushion=cushion)
    require_within("[1, inf)", safety=safety)
    low, high, found = float(smallest), 1.0, []
    for step in range(steps):
        a, b, c = _best(max(low, cushion * high), high)
        # The cushion made the image lopsided: put its middle at 1 again.
        ends = [a * x + b * x**3 + c * x**5 for x in (low, high)]
        a, b, c = (2 / sum(ends) * x for x in (a, b, c))
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
        s = safety if step < steps - 1 else 1.0
        found.append((a / s, b / s**3, c / s**5))
    return tuple(found)


def _best(low: float, high: float) -> tuple[float, float, float]:
    """The odd quintic nearest to 1 on an interval: its error has four extremes."""
    if low / high > 1 - _NARROW:
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    inner = [(3 * low + high) / 4, (low + 3 * high) / 4]
    before = math.inf
    for _ in range(_EXCHANGES):
        at = np.array([low, *inner, high])
        powers = np.stack([at, at**3, at**5, [1, -1, 1, -1]], axis=1)
        a, b, c, error = np.linalg.solve(powers, np.ones(4))
        if abs(before - error) <= _SOLVED:
            break
        before = error
        root = math.sqrt(9 * b**2 - 20 * a * c)
        inner = [math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1)]
    return float(a), float(b), float(c)
