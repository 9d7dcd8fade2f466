"""IsoFLOP curves and the joint law in a report: what was planted is said, no more."""

import functools
import json

import numpy as np
import pytest
from flax import nnx

from gnomon.experiments.config.resolve import resolve
from gnomon.experiments.configs import bpe, isoflop, scaling_law
from gnomon.experiments.configs.budgets import sized, steps_for
from gnomon.experiments.records.provenance import Provenance
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.budgets import sentence, sizes_of
from gnomon.experiments.report.differences import differences
from gnomon.experiments.report.differences_words import check, verdict
from gnomon.experiments.report.own_laws import own_laws
from gnomon.experiments.report.page import page
from gnomon.experiments.report.record import record
from gnomon.experiments.trial.cost import flops_of
from gnomon.scaling import fit_power

WORTH = {"AdamW": 1.0, "Muon": 1.5, "Twin": 1.0}
WHERE = Provenance(dict(planned=9, finished=9, diverged=0, unfinished=0), {}, [])
PACE = {"AdamW": 1e-3, "Muon": 1.25e-3, "Twin": 1e-3}


def table(budgets=(1e10, 2e10, 4e10, 8e10), sizes=(3e3, 6e3, 12e3, 24e3, 48e3)):
    """Runs that follow 1.8 + 30 N^-0.4 + 60 (worth D)^-0.35."""
    rng = np.random.default_rng(1)
    rows = []
    for budget in budgets:
        for size in sizes:
            luck = 0.01 * rng.standard_normal(2)
            for label, worth in WORTH.items():
                steps = round(budget / (6 * size * 512))
                for rate in (1e-3, 2e-3, 4e-3):
                    for seed in range(2):
                        tokens = 512.0 * steps
                        loss = 1.8 + 30 * size**-0.4 + 60 * (worth * tokens) ** -0.35
                        loss += 0.1 * (rate != 2e-3) + luck[seed]
                        loss += 0.002 * rng.standard_normal()
                        seconds = 2.0 + PACE[label] * steps
                        rows.append(
                            (label, size, steps, rate, seed, tokens, seconds, loss)
                        )
    label, size, steps, rate, seed, tokens, seconds, loss = zip(*rows, strict=True)
    size, steps, tokens = (np.array(x, float) for x in (size, steps, tokens))
    return {
        "id": np.array([str(i) for i in range(len(rows))], dtype=object),
        "label": np.array(label, dtype=object),
        "status": np.array(["finished"] * len(rows), dtype=object),
        "seed": np.array(seed, float),
        "steps": steps,
        "model.width": np.sqrt(size / 24),
        "optimizer.learning_rate": np.array(rate),
        "parameters": size,
        "units": tokens,
        "seconds": np.array(seconds),
        "compute": 6 * size * tokens,
        "final.validation_loss": np.array(loss),
    }


@pytest.fixture(scope="module")
def runs():
    return table()


@pytest.fixture(scope="module")
def analysis(runs):
    return analyze(runs, "AdamW")


@pytest.fixture(scope="module")
def joint(runs, analysis):
    return differences(runs, analysis)


def test_parabolas_find_the_best_sizes(analysis):
    found = sizes_of(analysis)
    assert list(found) == ["AdamW", "Muon", "Twin"]
    for sizes in found.values():
        assert len(sizes.budgets) == len(sizes.frontier.compute) == 4
        value, low, high = sizes.exponent
        # beta / (alpha + beta), and what a parabola of few sizes is off by.
        assert low <= value <= high
        assert value == pytest.approx(0.35 / 0.75, abs=0.12)
    assert "AdamW as compute to the 0." in sentence(found)
    # Vertices that follow no power: no exponent is given.
    at = found["AdamW"].frontier
    off = at.params * np.array([1.0, 30.0, 0.1, 20.0])
    law = fit_power("params", params=off, compute=at.compute)
    shaken = found["AdamW"]._replace(frontier=at._replace(law=law))
    said = sentence({"AdamW": shaken})
    assert "AdamW by a power that is not determined" in said


def test_the_joint_law_says_what_was_planted(joint):
    assert [one.label for one in joint.standings] == ["Muon", "Twin"]
    muon, twin = joint.standings
    assert muon.worth.tokens.low < 1.5 < muon.worth.tokens.high
    assert muon.worth.tokens.low > 1.2
    assert muon.time == pytest.approx(1.25, abs=0.2)
    said = verdict(muon, "AdamW")
    assert said.startswith("Muon makes of tokens 1.")
    assert "shows no difference in parameters" in said
    assert "No change of its gain with length or size is shown" in said
    assert "shows no difference in tokens" in verdict(twin, "AdamW")
    assert set(joint.held.params * joint.held.tokens >= 0.9 * 8e10 / 6) == {True}
    assert joint.held.error < 0.02
    assert f"foretells {len(joint.held.label)} gaps" in check(joint)


def test_the_page_and_the_record_hold_it(runs, analysis, joint):
    sizes = sizes_of(analysis)
    written = record(analysis, WHERE, None, None, sizes, joint)
    again = json.loads(json.dumps(written, allow_nan=False))
    assert again["joint_law"]["optimizers"]["Muon"]["time_per_step"] > 1
    assert again["isoflop"]["AdamW"]["inside"] == [True] * 4
    heading, *laws = own_laws(runs, analysis)
    assert [row[0] for row in laws] == list(WORTH)
    assert {row[-1] for row in laws} == {str(5 * 4 * 2)}
    assert laws[0][2].startswith("0.4") or laws[0][1].startswith("not determined")
    html = page(analysis, WHERE, {}, None, None, sizes, joint, [heading, *laws])
    assert html.count('id="isoflop-') >= 3
    for words in (
        "Best size for a budget",
        "One law for all",
        "speedup in time",
        "of each by itself",
    ):
        assert words in html


def test_too_few_lengths_or_sizes_give_none(runs):
    for field, most in (("units", 1), ("parameters", 2)):
        values = np.unique(runs[field])[:most]
        some = np.isin(runs[field], values)
        few = {name: column[some] for name, column in runs.items()}
        assert differences(few, analyze(few, "AdamW")) is None


def test_budgets_become_steps():
    model = {"name": "gnomon.models.TransformerLM", "vocab": 256, "width": 16}
    one = flops_of({**model, "depth": 2}, 8, (64,))
    assert one == pytest.approx(flops_of({**model, "depth": 2}, 16, (64,)) / 2)
    assert steps_for(100.4 * one, {**model, "depth": 2}, 8, (64,)) == 100
    assert steps_for(0.1 * one, {**model, "depth": 2}, 8, (64,)) == 1
    assert sized(64, "aspect")["model.depth"] == 4
    with pytest.raises(ValueError, match="did you mean"):
        sized(64, "aspekt")


@pytest.mark.parametrize(
    ("config", "arg", "trials", "spent"),
    [
        (isoflop, "", 5 * 4 * 3 * 3, isoflop.BUDGETS),
        (isoflop, "tiny,rule=aspect", 3 * 2 * 3, isoflop.BUDGETS[:2]),
        (scaling_law, "", 5 * 4 * 3 * 3 * 4, isoflop.BUDGETS),
        (bpe, "", 4 * 4 * 3, bpe.BUDGETS),
        (bpe, "tiny", 3 * 3 * 3 * 2, (5e8, 1e9, 2e9)),
    ],
)
def test_every_cell_spends_its_budget(config, arg, trials, spent):
    base, found = config.get_config(arg), config.sweep(arg)
    assert len(found) == trials
    for size in {(trial["model.width"], trial["model.depth"]) for trial in found}:
        model = {**base.model, "width": size[0], "depth": size[1]}
        build = functools.partial(resolve(model.pop("name")), **model)
        nnx.eval_shape(lambda build=build: build(rngs=nnx.Rngs(0)))
    for trial in found:
        model = {**base.model, "width": trial["model.width"]}
        model["depth"] = trial["model.depth"]
        compute = trial["steps"] * flops_of(model, base.batch, (base.data.length,))
        assert min(abs(np.log(compute / budget)) for budget in spent) < 0.025
