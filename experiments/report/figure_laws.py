"""The baseline's law, and performance profiles, as pictures."""

from typing import Any

import numpy as np

from gnomon.experiments.drawing.canvas import canvas, log_ticks, set_ticks, to_svg
from gnomon.experiments.drawing.colors import COLORS
from gnomon.experiments.drawing.ticks import flops
from gnomon.experiments.report.look import WIDE, looks, words_of
from gnomon.experiments.report.profiles import Profiles
from gnomon.scaling.comparison.profiles import LIMIT, profile
from gnomon.scaling.fit import Fit


def law(fit: Fit, baseline: str, metric: str) -> str:
    """The baseline's law with its band, through the runs it was fitted to."""
    by = "tokens" if "tokens" in fit.columns else "compute"
    sizes = np.unique(fit.columns.get("params", np.zeros(1)))
    span = fit.columns[by]
    with canvas(*WIDE) as (figure, axes):
        axes.set_xscale("log")
        x = np.geomspace(span.min() / 1.3, 2 * span.max(), 60)
        for i, size in enumerate(sizes):
            color = COLORS[i % len(COLORS)]
            at: dict[str, Any] = {by: x}
            if by == "tokens":
                at["params"] = np.full_like(x, size)
            found = fit.predict_interval(**at)
            axes.fill_between(x, found.low, found.high, color=color, alpha=0.15, lw=0)
            axes.plot(x, found.value, color=color, linewidth=1.3)
            mine = fit.columns.get("params", np.zeros(len(span))) == size
            axes.scatter(span[mine], fit.measured[mine], s=13, color=color, lw=0)
            if by == "tokens":
                axes.annotate(
                    f"{size:,.0f} parameters",
                    (x[-1], found.value[-1]),
                    xytext=(-2, 4),
                    textcoords="offset points",
                    ha="right",
                    color=color,
                    fontsize=10,
                )
        axes.margins(x=0)
        ticks = log_ticks(*axes.get_xlim())
        unit = "FLOP" if by == "compute" else ""
        set_ticks(axes.xaxis, ticks, [f"{flops(t)}{unit}" for t in ticks])
        axes.set_xlabel("training compute" if by == "compute" else "tokens or examples")
        axes.set_ylabel(f"tuned final {words_of(metric)}")
        return to_svg(figure, "law", f"{baseline}'s law of {words_of(metric)}")


def performance_profiles(found: Profiles) -> str:
    """Share of workloads within a factor of the fastest, a line an optimizer."""
    look = looks(found.labels)
    factors = np.geomspace(1.0, LIMIT, 200)
    shares = profile(found.times, factors)
    with canvas(*WIDE) as (figure, axes):
        axes.set_xscale("log")
        for i, label in enumerate(found.labels):
            # Lines that lie on each other stay visible beside each other.
            offset = 0.008 * (i - (len(found.labels) - 1) / 2)
            axes.step(
                factors, shares[i] + offset, where="post", color=look[label].color
            )
        axes.set_xlim(1.0, LIMIT)
        axes.set_ylim(-0.05, 1.05)
        ticks = [1.0, 1.5, 2.0, 3.0, 4.0]
        set_ticks(
            axes.xaxis, ticks, [f"{tick:g}\N{MULTIPLICATION SIGN}" for tick in ticks]
        )
        axes.set_xlabel("steps, over those of the fastest")
        axes.set_ylabel("share of workloads")
        return to_svg(figure, "profiles", "Performance profiles over the workloads")
