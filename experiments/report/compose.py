"""From runs of any origin to the page, its numbers, and its words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gnomon.experiments.records.files import write_json, write_text
from gnomon.experiments.records.provenance import Provenance
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.budgets import sizes_of
from gnomon.experiments.report.cells import Table
from gnomon.experiments.report.curves import Recorded, best_curves
from gnomon.experiments.report.differences import differences
from gnomon.experiments.report.law import baseline_law
from gnomon.experiments.report.own_laws import own_laws
from gnomon.experiments.report.page import page
from gnomon.experiments.report.profiles import profiles
from gnomon.experiments.report.record import record
from gnomon.experiments.report.source import SWEEP, Source
from gnomon.experiments.report.text import terminal


class Material(NamedTuple):
    """What a report is made of.

    Attributes:
      columns: The runs, as `gnomon.experiments.records.runs.table` gives them.
      recorded: By run, what gives its metrics by step.
      provenance: Where the runs come from.
      config: What their configs have in common.
      baseline: The label to compare with; "" for the first.
      metric: The final metric to compare.
      interpolate: Whether tuned losses are read between the points of the grids.
      source: What is known of the runs besides.
      power: Whether speedups are read off a power law through the baseline's lengths.
    """

    columns: Table
    recorded: Mapping[str, Recorded]
    provenance: Provenance
    config: Mapping[str, Any]
    baseline: str
    metric: str
    interpolate: bool
    source: Source = SWEEP
    power: bool = False


def compose(material: Material, folder: Path) -> str:
    """Writes `report.html` and `report.json` into a folder; returns plain text.

    Raises:
      UserError: No run has the baseline or the metric.
    """
    columns, _, provenance, config, baseline, metric, *_ = material
    how = material.interpolate, material.source, material.power
    analysis = analyze(columns, baseline, metric, *how)
    law = baseline_law(columns, analysis, config)
    recorded = material.recorded
    curves = best_curves(analysis.cells, recorded, metric) if recorded else {}
    found = profiles(analysis, curves) if recorded else None
    sizes, joint = sizes_of(analysis), differences(columns, analysis)
    # One figure shows one metric: if a run lacks evaluations, all show training loss.
    if any(curve is not None and curve.name != metric for curve in curves.values()):
        curves = best_curves(analysis.cells, recorded, metric, "train_loss")
    said = record(analysis, provenance, law, found, sizes, joint)
    write_json(folder / "report.json", said)
    laws = own_laws(columns, analysis) if sizes else ()
    html = page(analysis, provenance, curves, law, found, sizes, joint, laws)
    write_text(folder / "report.html", html)
    words = terminal(analysis, provenance, found, sizes, joint)
    return f"{words}\n\nreport: {folder / 'report.html'}"
