"""IsoFLOP parabolas and what optimizers make of parameters and tokens, as pictures."""

import math
from collections.abc import Mapping

import numpy as np

from gnomon.experiments.drawing.canvas import canvas, log_ticks, set_ticks, to_svg
from gnomon.experiments.drawing.colors import CARD, COLORS, INK, SOFT
from gnomon.experiments.drawing.ticks import flops
from gnomon.experiments.report.budgets import Sizes
from gnomon.experiments.report.differences import Differences
from gnomon.experiments.report.look import PANEL, WIDE, looks, words_of


def isoflops(found: Mapping[str, Sizes], metric: str) -> list[str]:
    """Loss against size at each budget, a panel for each optimizer."""
    panels = []
    losses = np.concatenate([sizes.loss for sizes in found.values()])
    pad = 0.06 * np.ptp(losses)
    for i, (label, sizes) in enumerate(found.items()):
        with canvas(*PANEL) as (figure, axes):
            axes.set_title(label, loc="left")
            axes.set_xscale("log")
            for k, rows in enumerate(sizes.budgets):
                color = COLORS[k % len(COLORS)]
                size, loss = sizes.params[rows], sizes.loss[rows]
                axes.scatter(size, loss, s=22, color=color, zorder=3)
                if len(np.unique(size)) >= 3:
                    middle = np.log(size).mean()
                    curve = np.polyfit(np.log(size) - middle, loss, 2)
                    x = np.geomspace(size.min(), size.max(), 60)
                    axes.plot(x, np.polyval(curve, np.log(x) - middle), color=color)
                budget = float(sizes.compute[rows].mean())
                last = int(np.argmax(size))
                axes.annotate(
                    f"{flops(float(f'{budget:.2g}'))}FLOP",
                    (size[last], loss[last]),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    color=color,
                    fontsize=9.5,
                )
            best = sizes.frontier
            inside = (best.params >= sizes.params.min()) & (
                best.params <= sizes.params.max()
            )
            axes.scatter(
                best.params[inside],
                best.loss[inside],
                marker="*",
                s=95,
                color=INK,
                edgecolor=CARD,
                zorder=4,
            )
            low, high = sizes.params.min() / 1.15, sizes.params.max() * 2.2
            axes.set_xlim(low, high)
            axes.set_ylim(losses.min() - pad, losses.max() + pad)
            ticks = log_ticks(low, high)
            set_ticks(
                axes.xaxis, ticks, [flops(tick).replace(" ", "") for tick in ticks]
            )
            axes.set_xlabel("parameters")
            axes.set_ylabel(f"tuned {words_of(metric)}")
            panels.append(
                to_svg(figure, f"isoflop-{i}", f"{label}: loss against size by budget")
            )
    return panels


def worths(found: Differences, labels: list[str]) -> str:
    """What each optimizer makes of parameters (hollow) and of tokens (full)."""
    look = looks(labels)
    height = max(150, 70 + 52 * len(found.standings))
    ends = [0.0]
    for one in found.standings:
        for part in one.worth:
            ends += [math.log(end) for end in part if 0.1 < end < 10]
    pad = 0.08 * max(max(ends) - min(ends), 0.1)
    low, high = math.exp(min(ends) - pad), math.exp(max(ends) + pad)
    with canvas(WIDE[0], height) as (figure, axes):
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.axvline(1, color=INK, linewidth=1.1, zorder=1)
        axes.grid(False)
        axes.grid(True, axis="x")
        axes.spines["left"].set_visible(False)
        for y, one in enumerate(found.standings):
            color = look[one.label].color
            for offset, what, part in (
                (-0.16, "tokens", one.worth.tokens),
                (0.16, "parameters", one.worth.params),
            ):
                shown = np.clip([part.low, part.high], low, high)
                axes.plot(shown, [y + offset] * 2, color=color, lw=2.6, alpha=0.55)
                axes.plot(
                    np.clip(part.value, low, high),
                    y + offset,
                    look[one.label].marker,
                    markersize=7,
                    markerfacecolor=color if what == "tokens" else CARD,
                    markeredgecolor=color,
                    zorder=4,
                )
                axes.text(
                    1.02,
                    y + offset,
                    f"{what} {part.value:.2f}×",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    color=SOFT,
                    fontsize=10,
                )
        axes.set_ylim(len(found.standings) - 0.4, -0.6)
        axes.set_yticks(
            range(len(found.standings)), [one.label for one in found.standings]
        )
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        ticks = log_ticks(low, high)
        set_ticks(axes.xaxis, ticks, [f"{tick:g}×" for tick in ticks])
        axes.set_xlabel(f"what one is worth to {found.fit.baseline}")
        return to_svg(figure, "worth", "Efficiencies of parameters and tokens")
