"""The panels of a cockpit page: which quantities each draws, and in what words."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gnomon.dynamics.layers import ALL
from gnomon.dynamics.names import QUANTITIES, name_of
from gnomon.experiments.cockpit.heat import heat_map
from gnomon.experiments.cockpit.layers import Look
from gnomon.experiments.cockpit.lines import Trace, lines
from gnomon.experiments.drawing.colors import COLORS, WARN
from gnomon.experiments.drawing.sheet import key

Columns = Mapping[str, tuple[np.ndarray, np.ndarray]]  # steps and values by key

# The fields of a config by which the trainer records a panel's keys.
FREE = "config.dynamics.free=True"
CHEAP = "config.dynamics.cheap_every=50"
FULL = "config.dynamics.full_every=500"
ADAM = f"{FULL}, with an optimizer that keeps Adam's second moment,"

UNPREDICTED = (
    "no equilibrium is predicted: not every part of the optimizer says where it holds"
    " the weights"
)
TRAINER = {
    "train_loss": "loss of the step's batch",
    "validation_loss": "loss of the validation data",
    "learning_rate": "learning rate of the step",
}


class Panel(NamedTuple):
    """One picture of the page.

    Attributes:
      title: its heading.
      keys: the quantities, or metrics of the trainer, that it draws.
      field: the config field by which they are recorded.
      dashed: a quantity that is drawn dashed, where it is present.
      edge: the ratio to 2 / learning rate, which gives that line, dashed.
      error: the standard error of the first quantity, drawn as a band.
      log_x: whether the steps lie on a logarithmic axis.
      log_y: whether the values do.
      marked: whether loss spikes are marked on it.
      heat: whether it is a heat map of layers and steps.
      words: the explanation, where the quantities' own words need their neighbors.
    """

    title: str
    keys: tuple[str, ...]
    field: str
    dashed: str = ""
    edge: str = ""
    error: str = ""
    log_x: bool = False
    log_y: bool = True
    marked: bool = False
    heat: bool = False
    words: str = ""


SECTIONS: Mapping[str, Sequence[Panel]] = {
    "The run": (
        Panel(
            "Loss",
            ("train_loss", "validation_loss"),
            "config.log_every",
            log_y=False,
            marked=True,
        ),
        Panel("Learning rate", ("learning_rate",), "config.log_every", log_y=False),
        Panel("Outputs", ("logit_norm", "logit_maximum"), FREE),
    ),
    "How the weights move": (
        Panel("Weight norm", ("weight_norm",), FREE, dashed="equilibrium_norm"),
        Panel("Angle of a step", ("angle",), FREE, dashed="equilibrium_angle"),
        Panel("Distance from the start", ("distance",), FREE, log_x=True, log_y=False),
        Panel("Effective learning rate", ("effective_rate",), FREE),
        Panel("Effective learning rate, Adam", ("effective_rate_adam",), FREE),
        Panel("Standard deviation", ("weight_std",), FREE),
        Panel("Radial share of the gradient", ("radial_gradient",), FREE),
        Panel("Radial share of the update", ("radial_update",), FREE),
        Panel("Update and gradient", ("descent_cosine",), FREE, log_y=False),
        Panel("Update-to-weight ratio", ("update_ratio",), FREE, heat=True),
    ),
    "What flows forward": (
        Panel("Dead units", ("dead_units",), CHEAP, log_y=False),
        Panel("Largest activation", ("activation_maximum",), CHEAP),
    ),
    "Noise and curvature": (
        Panel(
            "Noise scale",
            ("noise_scale",),
            CHEAP,
            error="noise_scale_error",
            words=f"{QUANTITIES['gradient_noise']}, over the"
            f" {QUANTITIES['gradient_signal']}, in examples",
        ),
        Panel(
            "Sharpness",
            ("sharpness",),
            FULL,
            edge="edge_ratio",
            error="sharpness_error",
        ),
        Panel(
            "Preconditioned sharpness",
            ("preconditioned_sharpness",),
            ADAM,
            edge="preconditioned_edge_ratio",
        ),
    ),
    "Spectra": (
        Panel("Spectral norm", ("spectral_norm",), CHEAP),
        Panel("Nuclear norm", ("nuclear_norm",), CHEAP),
        Panel("Effective rank", ("effective_rank",), CHEAP, log_y=False),
    ),
}


def traces_of(
    quantity: str, columns: Columns, look: Mapping[str, Look], style: str = ""
) -> list[Trace]:
    """The lines of a quantity: by layer, the whole model on top, or a single one."""
    key = quantity if quantity in TRAINER else name_of(quantity)
    if key in columns:
        step, value = columns[key]
        return [Trace(quantity.replace("_", " "), step, value, style=style)]
    found = []
    for layer, (color, dotted, opacity) in look.items():
        if (key := name_of(quantity, layer)) in columns:
            step, value = columns[key]
            both = f"{dotted} {style}".strip()
            found.append(Trace(layer, step, value, color, both, opacity))
    if (key := name_of(quantity, ALL)) in columns:
        step, value = columns[key]
        found.append(Trace("whole model", step, value, style=f"whole {style}".strip()))
    return found


def _edge(panel: Panel, columns: Columns) -> Trace | None:
    """The line at 2 / learning rate: the measured value over its ratio to the line."""
    keys = name_of(panel.keys[0]), name_of(panel.edge)
    if not panel.edge or not all(key in columns for key in keys):
        return None
    (step, value), (at, ratio) = (columns[key] for key in keys)
    both, mine, other = np.intersect1d(step, at, return_indices=True)
    line = np.full(len(both), np.nan)
    np.divide(value[mine], ratio[other], out=line, where=ratio[other] != 0)
    return Trace("2 / learning rate", both, line, WARN, "dashed")


def _with_error(trace: Trace, columns: Columns, quantity: str) -> Trace:
    """Puts the band around the line of the whole model, or the only one."""
    key = name_of(quantity, ALL if "whole" in trace.style else None)
    if key not in columns:
        return trace
    by_step = dict(zip(*columns[key], strict=True))
    error = np.array([by_step.get(step, np.nan) for step in trace.step])
    return trace._replace(error=error)


def picture(
    panel: Panel,
    columns: Columns,
    look: Mapping[str, Look],
    steps: tuple[float, float],
    marks: Sequence[float] = (),
) -> str | None:
    """The picture with its own legend, or None where there is nothing to draw."""
    marks = marks if panel.marked else ()
    groups = [traces_of(key, columns, look) for key in panel.keys]
    traces = [trace for group in groups for trace in group]
    if not traces:
        return None
    if panel.heat:
        return heat_map(panel.title, traces)
    if panel.error:
        traces = [_with_error(trace, columns, panel.error) for trace in traces]
    named = [group[0] for group in groups if len(group) == 1 and not group[0].style]
    if len(named) > 1:
        colors = {trace.name: COLORS[n] for n, trace in enumerate(named)}
        traces = [t._replace(color=colors[t.name]) for t in traces]
    lined = [_edge(panel, columns)] if panel.edge else []
    behind = [
        trace._replace(name=f"{trace.name}, predicted", opacity=0.6 * trace.opacity)
        for trace in (
            traces_of(panel.dashed, columns, look, "dashed far") if panel.dashed else []
        )
    ]
    if len(behind) == 1:  # one prediction for all layers stands out
        lined.append(behind.pop()._replace(color=WARN, opacity=1.0, name="predicted"))
    above = [trace for trace in lined if trace is not None]
    svg = lines(
        panel.title,
        [*behind, *traces, *above],
        steps,
        log_x=panel.log_x,
        log_y=panel.log_y,
        marks=marks,
    )
    keys = [
        key(trace.name, trace.color, trace.style)
        for trace in [*(traces if len(named) > 1 else []), *above]
    ]
    keys += [key("loss spike", WARN)] * bool(marks)
    return svg and "".join(keys) + svg


def explanation(panel: Panel, columns: Columns) -> str:
    """What is drawn, in the words of the probes' names."""

    def present(quantity: str) -> bool:
        return any(
            key == name_of(quantity) or key.startswith(name_of(quantity) + "/")
            for key in columns
        )

    words = {**QUANTITIES, **TRAINER}
    parts = [panel.words or "; ".join(words[key] for key in panel.keys)]
    if panel.dashed and present(panel.dashed):
        parts.append(f"dashed: {words[panel.dashed]}")
    elif panel.dashed:
        parts.append(UNPREDICTED)
    if panel.edge and present(panel.edge):
        parts.append("dashed: 2 / learning rate")
    if panel.error and present(panel.error):
        parts.append(f"band: {words[panel.error]}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
