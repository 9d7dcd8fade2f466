"""The baseline's law of loss in size and length, with the checklist filled in."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.cells import Table
from gnomon.scaling.checklist import Item, checklist
from gnomon.scaling.chinchilla import fit_chinchilla
from gnomon.scaling.comparison.scale import related
from gnomon.scaling.compute import fit_compute
from gnomon.scaling.fit import Fit
from gnomon.scaling.holdout import Holdout, holdout

DRAWS = 300
# The first that the runs allow is taken.
FORMS: Mapping[Callable[..., Fit], tuple[str, ...]] = {
    fit_chinchilla: ("params", "tokens"),
    fit_compute: ("compute",),
}
HELD = 0.2  # share of the runs, the most expensive ones, that check the law


class NoLaw(NamedTuple):
    """Why runs that might have followed a law are given none.

    Attributes:
      reason: In words that follow the optimizer's name.
    """

    reason: str


class Law(NamedTuple):
    """A law fitted to the baseline's tuned runs.

    Attributes:
      fit: L(N, D) where sizes and lengths both vary enough, else L(C).
      held: how well the cheaper runs predict the most expensive; None where too few
        are left.
      items: the (Mis)Fitting checklist.
    """

    fit: Fit
    held: Holdout | None
    items: list[Item]


def baseline_law(
    table: Table, analysis: Analysis, config: Mapping[str, Any]
) -> Law | NoLaw | None:
    """Fits the law that the baseline's tuned runs follow.

    Args:
      table: the run table the analysis was made from.
      analysis: the numbers of the report.
      config: the config of any of the trials.

    Returns:
      The law; None where the runs are too few or too alike for one; or why none is
      given: its models are no sizes of one architecture, or the runs do not determine
      it (`Fit.undetermined`).
    """
    cells = [cell for cell in analysis.cells if cell.label == analysis.baseline]
    if len({cell.scale.data for cell in cells}) > 1:
        return None  # losses of other data follow other laws
    if not related(cell.scale for cell in cells):
        return NoLaw("ran on models that are not sizes of one architecture")
    tuned = [cell.tuned for cell in cells if cell.tuned is not None]
    ids = {trial for setting in tuned for trial in setting.trials}
    rows = np.array([str(trial) in ids for trial in table["id"]])
    runs = {
        "params": table["parameters"][rows],
        "tokens": table["units"][rows],
        "compute": table["compute"][rows],
        "loss": table[f"final.{analysis.metric}"][rows],
    }
    undetermined = ""
    for law, inputs in FORMS.items():
        columns = {name: runs[name] for name in (*inputs, "loss")}
        try:
            fit = law(**columns, bootstrap=DRAWS)
        except ValueError:
            continue
        if fit.undetermined:
            undetermined = undetermined or (
                f"ran in a way that does not determine {fit.form.formula}: not"
                f" {', and not '.join(fit.undetermined)}"
            )
            continue
        try:
            held = holdout(law, runs, by="compute", share=HELD, bootstrap=DRAWS)
        except ValueError:
            held = None
        stated = _stated(analysis, config, len(cells) - len(tuned))
        return Law(fit, held, checklist(fit, held=held, stated=stated))
    return NoLaw(undetermined) if undetermined else None


def _stated(
    analysis: Analysis, config: Mapping[str, Any], untuned: int
) -> dict[str, str]:
    """What the config says of a study."""

    def name(part: str) -> str:
        return str(config.get(part, {}).get("name", "not named")).rpartition(".")[2]

    varied = sorted(
        {field for scale in analysis.scales for field, _ in scale.model if field}
    )
    cells = [cell for cell in analysis.cells if cell.label == analysis.baseline]
    counts = sorted({len(cell.settings) for cell in cells})
    rates = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    widened = config.get("tuning", {}).get("widen", 0)
    grown = ", widened until the best lies inside" if widened else ""
    selection = f"tuned settings of {analysis.baseline}, each seed a run;"
    selection += f" {untuned} scales left out as untuned"
    if not analysis.source.swept:
        # A table tells no more than this; the rest stays open, and is a reservation.
        told = {"compute": analysis.source.counted, "selection": selection}
        if "name" in config.get("data", {}):
            told["training data"] = name("data")
        if "name" in config.get("model", {}):
            told["architecture"] = f"{name('model')}; varied: {', '.join(varied)}"
        return told
    how = f"grid of {rates} learning rates at each scale{grown}"
    if cells[0].searched:
        how = f"search of {rates} points at each scale"
    return {
        "architecture": f"{name('model')}; varied: {', '.join(varied) or 'nothing'}",
        "tuning": f"{how}; {len(cells[0].seeds)} seeds",
        "schedule": f"{name('schedule')}, over the whole of each run; none cut short",
        "parameters": "all trained numbers, embeddings among them",
        "compute": "the model's forward FLOPs, times three; the optimizer not counted",
        "training data": name("data"),
        "evaluation": f"final {analysis.metric.replace('_', ' ')}",
        "selection": selection,
    }


def sentence(law: Law | NoLaw, baseline: str) -> str:
    """The law with its intervals, or why there is none, as a sentence."""
    if isinstance(law, NoLaw):
        return f"No law is given: {baseline} {law.reason}."
    fit = law.fit
    parts = []
    for name, value in fit.parameters.items():
        low, high = fit.interval(name)
        parts.append(f"{name} {value:.3g} [{low:.3g}, {high:.3g}]")
    said = f"{baseline}'s tuned losses follow {fit.form.formula}: {', '.join(parts)}."
    if law.held is not None:
        said += (
            f" Fitted to its cheaper runs it predicts the {len(law.held.rows)} most"
            f" expensive, up to {law.held.reach:.2g} times the compute, with an error"
            f" of {law.held.rms:.2%}."
        )
    concerns = sum(bool(item.concern) for item in law.items)
    if concerns:
        plural = "" if concerns == 1 else "s"
        said += f" The checklist below has {concerns} reservation{plural}."
    return said
