"""What an optimizer says of its own steps: a panel a diagnostic, a line a state."""

from collections.abc import Iterator, Mapping

import numpy as np

from gnomon.experiments.cockpit.lines import Trace, brief, lines
from gnomon.experiments.cockpit.panels import Columns
from gnomon.experiments.drawing.colors import COLORS
from gnomon.experiments.drawing.sheet import key
from gnomon.experiments.trial.probes import TOLD

SPAN = 20.0  # positive values that lie this far apart are drawn on a logarithmic axis


def told(
    columns: Columns, words: Mapping[str, str], steps: tuple[float, float]
) -> Iterator[tuple[str, str, str]]:
    """Draws every diagnostic that the rows have.

    Args:
      columns: steps and values by key.
      words: what diagnostics are, by name; one that is not among them is drawn without.
      steps: first and last step of the page.

    Yields:
      Its title, its explanation, its picture. One that never is a number is left out.
    """
    found: dict[str, dict[str, str]] = {}
    for column in columns:
        if column.startswith(TOLD):
            path, _, name = column.removeprefix(TOLD).rpartition("/")
            found.setdefault(name, {})[path] = column
    for name, states in sorted(found.items()):
        title = name.replace("_", " ").capitalize()
        several = len(states) > 1
        traces = [
            Trace(path or title, *columns[column], color=COLORS[n % len(COLORS)])
            if several
            else Trace(title, *columns[column])
            for n, (path, column) in enumerate(sorted(states.items()))
        ]
        values = np.concatenate([trace.value for trace in traces])
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        low, high = float(values.min()), float(values.max())
        svg = lines(title, traces, steps, log_y=low > 0 and high > SPAN * low)
        keys = [key(trace.name, trace.color, trace.style) for trace in traces]
        ends = f"between {brief(low)} and {brief(high)}" if low < high else brief(low)
        text = words.get(name, "as the optimizer's state tells it")
        about = f"{text[0].upper()}{text[1:]}; {ends}."
        yield title, about, "".join(keys if several else ()) + (svg or "")
