"""The law of a report: the planted one, checked by hold-out, with its reservations."""

import numpy as np
import pytest

from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.law import baseline_law, sentence

CONFIG = {
    "model": {"name": "gnomon.models.TransformerLM"},
    "data": {"name": "stdlib_text"},
    "schedule": {"name": "gnomon.experiments.schedules.warmup_cosine"},
    "tuning": {"widen": 2, "interpolate": True},
}


def table(widths=(16, 32, 64, 128), lengths=(100, 200, 400, 800), seeds=3):
    """Runs of A that follow 1.5 + 40 N^-0.4 + 90 D^-0.35, with noise of 0.2 %."""
    rng = np.random.default_rng(0)
    rows = []
    for width in widths:
        for steps in lengths:
            for rate in (1e-3, 2e-3, 4e-3):
                for seed in range(seeds):
                    size, tokens = 24.0 * width**2, 1e3 * steps
                    loss = 1.5 + 40 * size**-0.4 + 90 * tokens**-0.35
                    loss += 0.1 * (rate != 2e-3)
                    loss *= np.exp(0.002 * rng.standard_normal())
                    rows.append((width, steps, rate, seed, size, tokens, loss))
    width, steps, rate, seed, size, tokens, loss = map(
        np.array, zip(*rows, strict=True)
    )
    return {
        "id": np.array([str(i) for i in range(len(rows))], dtype=object),
        "label": np.array(["A"] * len(rows), dtype=object),
        "status": np.array(["finished"] * len(rows), dtype=object),
        "seed": seed.astype(float),
        "steps": steps.astype(float),
        "model.width": width.astype(float),
        "optimizer.learning_rate": rate,
        "parameters": size,
        "units": tokens,
        "compute": 6 * size * tokens,
        "final.validation_loss": loss,
    }


def test_the_planted_law_is_found_with_its_checklist():
    runs = table()
    law = baseline_law(runs, analyze(runs), CONFIG)
    for name, planted in {"E": 1.5, "alpha": 0.4, "beta": 0.35}.items():
        low, high = law.fit.interval(name)
        assert low <= planted <= high, name
    assert len(law.fit.measured) == 4 * 4 * 3  # tuned settings, a run a seed
    assert law.held.rms < 0.01
    answers = {item.topic: item for item in law.items}
    assert not answers["tuning"].concern
    assert "widened" in answers["tuning"].answer
    assert answers["parameters"].answer != "not stated"
    assert "A's tuned losses follow L = E + A / N^alpha" in sentence(law, "A")


def test_one_length_a_model_gives_a_law_in_compute():
    runs = table(widths=(8, 16, 32, 64, 128), lengths=(200,))
    assert baseline_law(runs, analyze(runs), CONFIG).fit.inputs == ("compute",)


@pytest.mark.parametrize("sizes", [{"lengths": (100,)}, {"widths": (16,)}])
def test_too_few_runs_give_none(sizes):
    runs = table(**({"widths": (16, 32), "lengths": (100, 200)} | sizes), seeds=1)
    assert baseline_law(runs, analyze(runs), CONFIG) is None
