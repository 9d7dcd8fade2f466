"""The law of loss in size and length of each optimizer by itself, as rows."""

from collections.abc import Sequence

import numpy as np

from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.cells import Table
from gnomon.scaling.chinchilla import fit_chinchilla

DRAWS = 200
HEADING = ("optimizer", "E", "alpha", "beta", "best size grows by", "error", "runs")


def own_laws(table: Table, analysis: Analysis) -> Sequence[Sequence[str]]:
    """L = E + A / N^alpha + B / D^beta of each optimizer's tuned runs.

    Args:
      table: the run table the analysis was made from.
      analysis: the numbers of the report.

    Returns:
      A heading, and a row for each optimizer whose runs allow a fit. Numbers that they
      do not determine are said to be so. Such laws do not rank optimizers: the joint
      law does.
    """
    ids = np.array([str(trial) for trial in table["id"]])
    rows = [list(HEADING)]
    for label in analysis.labels:
        tuned = [
            cell.tuned
            for cell in analysis.cells
            if cell.label == label and cell.tuned is not None
        ]
        mine = np.isin(ids, [str(trial) for each in tuned for trial in each.trials])
        try:
            fit = fit_chinchilla(
                params=table["parameters"][mine],
                tokens=table["units"][mine],
                loss=table[f"final.{analysis.metric}"][mine],
                bootstrap=DRAWS,
            )
        except ValueError:
            continue
        if fit.undetermined:
            words = f"not determined: {', '.join(fit.undetermined)}"
            rows.append([label, words, "", "", "", "", str(len(fit.measured))])
            continue
        grows = fit.quantity(lambda p: p["beta"] / (p["alpha"] + p["beta"]))
        numbers = [
            f"{fit.parameters[name]:.3f} [{low:.3f}, {high:.3f}]"
            for name in ("E", "alpha", "beta")
            for low, high in (fit.interval(name),)
        ]
        error = float(np.sqrt(np.mean(fit.residuals**2)))
        rows.append(
            [
                label,
                *numbers,
                f"{grows.value:.2f} [{grows.low:.2f}, {grows.high:.2f}]",
                f"{error:.2%}",
                str(len(fit.measured)),
            ]
        )
    return rows
