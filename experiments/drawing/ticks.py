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

    >>> [flops(v) for v in (3e9, 1e12, 2.5e15)]
    ['3 G', '1 T', '2.5 P']
    """
    for power, prefix in (
        (18, "E"),
        (15, "P"),
        (12, "T"),
        (9, "G"),
        (6, "M"),
        (3, "k"),
    ):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}"
    return f"{value:.3g}"


def log_ticks(low: float, high: float) -> list[float]:
    """Tick positions at 1 and 3 times powers of ten, or finer on short ranges.

    By hand: Matplotlib's `LogLocator` takes the digits as given, and leaves a range
    within a decade without a label.

    >>> [short(v) for v in log_ticks(2e-4, 2e-2)]
    ['3e-4', '1e-3', '3e-3', '1e-2']
    >>> [short(v) for v in log_ticks(1e-9, 1e3)]
    ['1e-9', '1e-7', '1e-5', '1e-3', '0.1', '10', '1000']
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        stride = -(-(len(decades) - 1) // 6)
        ticks = [float(f"{d}e{k}") for k in decades[:: stride or 1] for d in digits]
        ticks = [t for t in ticks if low <= t <= high]
        if len(ticks) >= 3:
            return ticks
    return ticks or [low, high]
