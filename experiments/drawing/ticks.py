"""Numbers on axes, as a person writes them."""

import numpy as np


def short(value: float, digits: int = 3, plain: float = 0.1) -> str:
    """A number as a person writes it on an axis; one below ``plain`` with a power.

    >>> [short(v) for v in (0.003, 1e-4, 0.03, 1.0, 30.0, 0.0031623)]
    ['3e-3', '1e-4', '3e-2', '1', '30', '3.16e-3']
    >>> [short(v) for v in (float("inf"), float("-inf"), float("nan"))]
    ['inf', '-inf', 'nan']
    """
    if not np.isfinite(value):
        return f"{value:g}"
    if plain <= abs(value) < 1e4 or value == 0:
        return f"{value:.{max(digits, 4) if abs(value) >= 1e3 else digits}g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def flops(value: float) -> str:
    """FLOPs with a metric prefix.

    >>> [flops(v) for v in (3e9, 1e12, 2.5e15, 50.0)]
    ['3 G', '1 T', '2.5 P', '50']
    """
    power = min(max(int(np.log10(max(value, 1))) // 3, 0), 6)
    return f"{value / 1000**power:.3g} {' kMGTPE'[power]}".strip()
