"""What a reader needs to judge a law fit, filled in from the fit itself.

References:
  Li, M., Kudugunta, S., Zettlemoyer, L. (2025). (Mis)Fitting: A Survey of Scaling Laws.
  Its checklist has four parts: form, setup, data, and optimization of the fit.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gnomon.scaling.fit import Fit
from gnomon.scaling.holdout import Holdout

# What only the author knows.
TO_STATE = {
    "setup": {
        "architecture": "What the models are, and what differs between sizes",
        "tuning": "How hyperparameters were chosen at each scale",
        "schedule": "Whether the schedule ended with each run, or runs were cut short",
        "parameters": "Whether embeddings count",
        "compute": "How FLOPs were counted",
    },
    "data": {
        "training data": "What was trained on, and whether it repeats",
        "evaluation": "What the loss was measured on",
        "selection": "Which runs were left out, and why",
    },
}


class Item(NamedTuple):
    """One line of the checklist.

    Attributes:
      part: ``form``, ``setup``, ``data`` or ``fit``.
      topic: What it is about.
      answer: What the fit or its author says; "not stated" if neither.
      concern: What speaks against trust here, or "".
    """

    part: str
    topic: str
    answer: str
    concern: str = ""


def checklist(
    law: Fit,
    *,
    held: Holdout | None = None,
    stated: Mapping[str, str] | None = None,
) -> list[Item]:
    """Fills in the checklist.

    Args:
      law: any fit.
      held: from `holdout` of the same law, when there is one.
      stated: answers to the topics of `TO_STATE` by topic.

    Returns:
      The items in order; those with a `concern` deserve a reader's doubt.

    Raises:
      ValueError: `stated` has a topic that is not on the list.

    Example:
      >>> from gnomon.scaling.compute import fit_compute
      >>> C = np.geomspace(1e15, 1e19, 9)
      >>> law = fit_compute(compute=C, loss=1.7 + 300 * C**-0.15)
      >>> for item in checklist(law, stated={"tuning": "none"})[:4]:
      ...     print(f"{item.part}: {item.topic}: {item.answer}")
      form: law: y = E + A / compute^alpha
      form: runs and unknowns: 9 runs, 3 unknowns
      form: range of compute: 1e+15 to 1e+19 (1e+04x)
      setup: architecture: not stated
    """
    stated = dict(stated or {})
    topics = [topic for part in TO_STATE.values() for topic in part]
    unknown = sorted(set(stated) - set(topics))
    if unknown:
        raise ValueError(
            f"stated: {', '.join(unknown)} not on the list; it has {', '.join(topics)}"
        )
    items = _form(law)
    for part, questions in TO_STATE.items():
        for topic, question in questions.items():
            answer = stated.get(topic, "not stated")
            items.append(Item(part, topic, answer, "" if topic in stated else question))
    return [*items, *_fit(law), *_extrapolation(held)]


def _form(law: Fit) -> list[Item]:
    unknowns, n = law.unknowns, law.unknowns + law.freedom
    few = "fewer than five runs an unknown" if n < 5 * unknowns else ""
    items = [
        Item("form", "law", law.form.formula),
        Item("form", "runs and unknowns", f"{n} runs, {unknowns} unknowns", few),
    ]
    for name in law.inputs:
        low, high = law.columns[name].min(), law.columns[name].max()
        narrow = "less than a factor 10" if high < 10 * low else ""
        spread = f"{low:.3g} to {high:.3g} ({high / low:.3g}x)"
        items.append(Item("form", f"range of {name}", spread, narrow))
    return items


def _fit(law: Fit) -> list[Item]:
    residual = law.residuals
    middle = np.median(np.abs(residual))
    reduced = law.conditioning.reduced
    near = "exponents hardly told apart by these runs" if reduced > 1e4 else ""
    intervals = "sandwich covariance"
    if law.bootstrap:
        intervals = f"{law.bootstrap} bootstrap draws of runs"
    items = [
        Item("fit", "objective", f"Huber loss of log residuals, delta = {law.delta:g}"),
        Item("fit", "start", "grid over exponents, coefficients solved for; no random"),
        Item("fit", "intervals", f"{intervals}, 95 %"),
        Item(
            "fit",
            "residuals",
            f"median {middle:.2%}, largest {np.abs(residual).max():.2%} of the loss",
            "some runs are far off" if np.abs(residual).max() > 10 * middle else "",
        ),
        Item("fit", "conditioning", f"{reduced:.3g} over the exponents", near),
    ]
    for name, value in law.parameters.items():
        low, high = law.interval(name)
        items.append(Item("fit", name, f"{value:.4g} [{low:.4g}, {high:.4g}]"))
    test = law.lack_of_fit
    if test is None:
        items.append(Item("fit", "lack of fit", "no replicates", "cannot be tested"))
    else:
        wrong = "runs contradict the law" if test.p_value < 0.05 else ""
        items.append(Item("fit", "lack of fit", f"p = {test.p_value:.3f}", wrong))
    return items + [Item("fit", "note", note, note) for note in law.notes]


def _extrapolation(held: Holdout | None) -> list[Item]:
    if held is None:
        return [Item("fit", "extrapolation", "not stated", "no hold-out was made")]
    off = abs(held.bias) > 0.02 or held.covered < 0.8
    return [
        Item(
            "fit",
            "extrapolation",
            f"{len(held.rows)} larger runs, up to {held.reach:.3g} times the scale:"
            f" error {held.rms:.2%}, bias {held.bias:+.2%}, {held.covered:.0%} inside"
            " their intervals",
            "predictions of larger runs failed" if off else "",
        )
    ]
