"""A report says no more than it knows: a sweep of each kind, through all it writes."""

import html
import re
from types import SimpleNamespace

import numpy as np
import pytest

from gnomon.experiments import leaderboard
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.leaderboard import study
from gnomon.experiments.records.direction import LARGER
from gnomon.experiments.records.provenance import Provenance
from gnomon.experiments.records.runs import Run
from gnomon.experiments.records.runs import table as tabulated
from gnomon.experiments.records.tables import Stored
from gnomon.experiments.report import verdict
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.curves import Curve
from gnomon.experiments.report.factors import estimate
from gnomon.experiments.report.figure_losses import _lines
from gnomon.experiments.report.figure_rates import learning_rates
from gnomon.experiments.report.figure_speedups import speedups
from gnomon.experiments.report.law import NoLaw, baseline_law
from gnomon.experiments.report.page import page
from gnomon.experiments.report.record import record
from gnomon.experiments.report.text import comparison_rows, terminal
from gnomon.experiments.trial.preflight import check_metric
from gnomon.scaling.comparison.scale import family

LENGTHS = (70, 100, 140)
RATES = (1e-3, 2e-3, 4e-3)


def sweep(
    gains,
    seeds=4,
    models=(("mlp", 16), ("mlp", 64)),
    lengths=LENGTHS,
    fall=0.3,
    size=0.3,
    noise=0.001,
):
    """A run table: A at several lengths, others at one, each with a planted gain."""
    rng = np.random.default_rng(0)
    rows = []
    for label, gain in {"A": 1.0, **gains}.items():
        for name, width in models:
            for steps in lengths if label == "A" else (100,):
                own = noise * rng.standard_normal(seeds)
                for rate in RATES:
                    for seed in range(seeds):
                        loss = 9 - fall * np.log(steps * gain) - size * np.log(width)
                        loss += 0.5 * np.log(rate / 2e-3) ** 2 + own[seed]
                        rows.append((label, name, width, steps, rate, seed, loss))
    label, name, *numbers = zip(*rows, strict=True)
    width, steps, rate, seed, loss = (np.array(x, float) for x in numbers)
    params = 100 * width + 7 * (np.array(name) == "cnn")
    return {
        "id": np.array([str(i) for i in range(len(rows))], dtype=object),
        "label": np.array(label, dtype=object),
        "status": np.array(["finished"] * len(rows), dtype=object),
        "seed": seed,
        "steps": steps,
        "model.name": np.array(name, dtype=object),
        "model.width": width,
        "optimizer.learning_rate": rate,
        "parameters": params,
        "units": 64 * steps,
        "compute": 6 * params * 64 * steps,
        "final.validation_loss": loss,
    }


REPORT = {"baseline": "A", "metric": "validation_loss", "interpolate": False}
NOWHERE = Provenance(dict(planned=9, finished=9, diverged=0, unfinished=0), {}, [])


def everything(table, curves=None, fit=False):
    """All that is written of a sweep: page, JSON, terminal, leaderboard."""
    analysis = analyze(table, "A")
    law = baseline_law(table, analysis, {}) if fit else None
    where = NOWHERE
    return (
        analysis,
        law,
        page(analysis, where, curves or {}, law),
        record(analysis, where, law),
        terminal(analysis, where),
        study(Stored("s", table, REPORT, {}), page=False)[0],
    )


# Gains and whether a length from 70 to 140 holds what 100 steps times the gain reach.
GAINS = {"inside": 1.2, "above": 1.8, "below": 0.5, "far": 4.0, "equal": 1.0}


@pytest.fixture(scope="module")
def told():
    return everything(sweep(GAINS))


@pytest.mark.parametrize("label", GAINS)
def test_what_is_extrapolated_says_so_wherever_its_number_is(told, label):
    _, _, html, written, text, board = told
    board = board.replace("\\", "")
    outside = not 0.7 <= GAINS[label] <= 1.4
    overall = next(one for one in written["overall"] if one["label"] == label)
    assert overall["extrapolated"] is outside
    assert overall["scales_extrapolated"] == 2 * outside
    for one in written["comparisons"]:
        if one["label"] == label:
            assert one["extrapolated"] is outside
            assert ("extrapolated beyond A's own lengths" in one["verdict"]) is outside
    headline = next(line for line in written["verdicts"] if line.startswith(label))
    number = re.search(r"[\d.]+x\*?", headline)[0]
    assert number.endswith("*") is outside
    assert ("extrapolated beyond A's own lengths at 2 of 2" in headline) is outside
    assert any(note.startswith(f"{label}: *") for note in written["notes"]) is outside
    # In every row of every table the number has its star, and no other has.
    places = [line for line in text.splitlines() if line.startswith(f"{label} ")]
    places += [line for line in board.splitlines() if line.startswith(f"| {label} ")]
    rows = re.findall(rf"<tr[^>]*><td>{label}</td>.*?</tr>", html)
    places += [row for row in rows if re.search(r"\d×", row)]
    checked = 0
    for place in places:
        for found in re.findall(r"[\d.]+[x×]\*?", place):
            assert found.endswith("*") is outside, place
            checked += 1
    assert checked >= 3 + 3 + 2  # terminal and page by scale and overall; leaderboard
    assert headline in text


# What the truth is to what runs of 70 to 140 steps can tell of 100: a factor 2 beyond.
REACH = (70 / 100 / 2, 140 / 100 * 2)


def claims(words):
    """Each speedup and each interval in a text, as what it allows the truth to be."""
    number = r"(more than |less than )?([\d.]+)[x×]"
    for sign, value in re.findall(number, words):
        value = float(value)
        low = -np.inf if sign.startswith("less") else value - 0.005
        high = np.inf if sign.startswith("more") else value + 0.005
        yield low, high
    for ends in re.findall(r"\[([^\[\]]*\d[^\[\]]*)\]", words):
        low, high = (end.strip().rstrip("*") for end in ends.split(", "))
        open_low, open_high = low[0] == "<", high[0] == ">"
        low, high = (float(end.lstrip("<>")) for end in (low, high))
        yield (
            -np.inf if open_low else low - 0.01,
            np.inf if open_high else high + 0.01,
        )


@pytest.mark.parametrize("noise", [1e-5, 0.02])
@pytest.mark.parametrize("gain", [0.1, 0.5, 1.0, 2.0, 2.7, 5.0, 50.0])
def test_nothing_that_is_said_excludes_the_truth(gain, noise):
    """Over scales of one gain, or of this gain beside one of 1.3, in every place."""
    for gains in ((gain, gain), (gain, 1.3), (gain, 1 / gain)):
        parts = [
            sweep({"C": g}, models=(m,), noise=noise)
            for g, m in zip(gains, (("mlp", 16), ("mlp", 64)), strict=True)
        ]
        table = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        table["id"] = np.array([str(i) for i in range(len(table["id"]))], object)
        analysis = analyze(table, "A")
        (one,) = analysis.summaries
        truth = np.exp(np.mean(np.log(gains)))
        outside = [g for g in gains if not REACH[0] <= g <= REACH[1]]
        assert one.bounded == (bool(outside) and not one.reason)
        rows = comparison_rows(analysis)
        board = html.unescape(leaderboard._table(analysis)).replace("\\", "")
        places = [" ".join(row[2:4]) for row in rows if row[1].startswith("all")]
        places += [verdict.headline(one, "A").split(" at one scale")[0]]
        lines = [line for line in board.splitlines() if line.startswith("| C ")]
        places += [" ".join(line.split(" | ")[1:3]) for line in lines]
        if one.reason:
            assert min(outside) < 1 < max(outside)
            assert not any(list(claims(place)) for place in places)
            continue
        for place in places:
            said = list(claims(place))
            assert said, place
            for low, high in said[: 1 + (noise == 1e-5)]:
                slack = 1 + (3 * noise / 0.3)
                assert low / slack <= truth <= high * slack, (place, truth)
            assert ("more than" in place) == (max(gains) > REACH[1]), place
            assert ("less than" in place) == (min(gains) < REACH[0]), place
        written = record(analysis, NOWHERE)["overall"][0]
        assert (written["speedup"] is None) == one.bounded
        called = rows[-1][-1]
        assert "faster" not in called or truth > 0.99
        assert "slower" not in called or truth < 1.01


def no_bounds():
    """A baseline whose loss falls less than its seeds scatter."""
    return sweep({"B": 1.1}, seeds=3, fall=0.004, noise=0.02)


@pytest.mark.parametrize(
    "table",
    [sweep({"B": 1.2}, seeds=1), sweep({"B": 3.0}, seeds=1), no_bounds()],
    ids=["one seed", "one seed, extrapolated", "no bounds"],
)
def test_no_number_stands_out_beside_no_verdict(table):
    analysis, _, html, written, text, board = everything(table)
    assert not analysis.summaries[0].decided
    header = re.search(r"<header>.*?</header>", html, re.S)[0]
    sentences = re.findall(r"<(?:h1|p class=second)>.*?</(?:h1|p)>", header, re.S)
    assert "verdict" in sentences[0]
    assert not any("<b>" in one or "class=interval" in one for one in sentences)
    assert not re.match(r"B is [\d.]+x", written["verdicts"][0])
    assert "no verdict" in written["verdicts"][0]
    for form in (text, board):
        assert "no verdict" in form
    assert not re.search(r"\*\*", board)
    decided = everything(sweep({"B": 1.2}))[2]
    assert "<b>1.20×</b>" in decided


ARCHITECTURES = (("mlp", 16), ("mlp", 32), ("mlp", 64), ("cnn", 16), ("cnn", 64))


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (sweep({"B": 1.2}, models=ARCHITECTURES), "not sizes of one architecture"),
        (
            sweep({"B": 1.2}, models=ARCHITECTURES, lengths=(100,)),
            "not sizes of one architecture",
        ),
        (
            sweep({"B": 1.2}, size=0.0, models=(("mlp", 8), ("mlp", 16), ("mlp", 64))),
            "does not determine",
        ),
    ],
    ids=["two architectures", "two at one length", "size tells nothing"],
)
def test_a_law_is_given_only_where_runs_determine_one(table, why):
    analysis, law, html, written, _, _ = everything(table, fit=True)
    assert isinstance(law, NoLaw)
    assert why in law.reason
    assert written["law"] == {"reason": law.reason}
    assert why in html
    assert "Fitted to its cheaper runs" not in html
    cells = [cell for cell in analysis.cells if cell.label == "A"]
    for _, line in _lines(cells):
        assert len({family(cell.scale) for cell in line}) == 1
    for one in analysis.comparisons:
        assert (
            one.curve != "scales"
            or len({family(c.scale) for c in cells}) == 1
            or (
                one.reason
                or sum(family(c.scale) == family(one.scale) for c in cells) > 1
            )
        )


def test_a_curve_that_is_not_drawn_is_named():
    table = sweep({"B": 1.2})
    cells = analyze(table, "A").cells
    steps = np.arange(5.0)
    curve = Curve("validation_loss", steps, 3 - steps, 3 - steps, 3 - steps)
    curves = {(cell.label, cell.scale): curve for cell in cells}
    first = next(key for key in curves if key[1].steps == 100)
    shown = everything(table, {**curves, first: None})[2]
    assert f"{first[0]} at {first[1].name} (fewer than 4 values recorded)" in shown
    assert "Not drawn" in everything(table, dict.fromkeys(curves))[2]
    named = everything(table, curves)[2]
    # The baseline's other lengths have nothing beside them.
    for cell in cells:
        alone = f"A at {cell.scale.name} (alone there)" in named
        assert alone == (cell.scale.steps != 100)


def recording(table, **metrics):
    """The table of runs that recorded other metrics, each a function of the loss."""
    runs = []
    for i, loss in enumerate(table["final.validation_loss"]):
        row = {name: column[i] for name, column in table.items()}
        config = {k: v for k, v in row.items() if not k.startswith("final.")}
        final = {name: float(metric(loss)) for name, metric in metrics.items()}
        result = {k: row[k] for k in ("parameters", "units", "compute")}
        result |= {"status": "finished", "final": final}
        runs.append(Run(row["id"], row["label"], int(row["seed"]), config, result, ""))
    return tabulated(runs)


@pytest.mark.parametrize(("gain", "split"), [(0.7, "validation"), (1.3, "train")])
def test_what_is_better_is_called_better_whichever_way_its_metric_goes(gain, split):
    table = recording(
        sweep({"C": gain}, seeds=3, models=(("mlp", 16),)),
        **{
            f"{split}_accuracy": lambda loss: 1 - loss / 20,
            f"{split}_mistakes": lambda loss: loss / 20,
            f"{split}_negative_reward": lambda loss: loss,
        },
    )
    recorded = [name[6:] for name in table if name.startswith("final.")]
    assert f"{split}_error" in recorded
    for metric in recorded:
        if metric.endswith("accuracy"):
            with pytest.raises(UserError, match=f"compare {split}_error, 1 - it"):
                analyze(table, "A", metric)
            continue
        analysis = analyze(table, "A", metric)
        assert ("faster" if gain > 1 else "slower") in comparison_rows(analysis)[-1][-1]
        (difference, *_) = [c.difference for c in analysis.comparisons]
        assert (difference < 0) == (gain > 1)
    where = analysis.metric.replace("train_", "training ").replace("_", " ")
    assert f"final {where}" in learning_rates(analysis)[0]


@pytest.mark.parametrize("name", sorted(LARGER))
def test_a_metric_that_should_be_large_is_refused_before_training_and_after(name):
    for metric in (f"validation_{name}", f"validation_top5_{name}"):
        state = SimpleNamespace(window={"count": 0, "loss": 0})
        evaluated = ["loss", metric.removeprefix("validation_")]
        config = {"report": {"metric": metric}}
        with pytest.raises(
            ConfigError, match=r"config\.report\.metric.*larger is better"
        ):
            check_metric(config, state, evaluated)
        with pytest.raises(
            UserError, match=r"config\.report\.metric.*larger is better"
        ):
            analyze({f"final.{metric}": np.zeros(1), "label": ["A"]}, "A", metric)
        if name == "accuracy":
            config["report"]["metric"] = metric.replace("accuracy", "error")
            check_metric(config, state, evaluated)


def test_an_accuracy_has_its_error_at_every_step(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train_accuracy": 0.75}\n')
    found = Run("a", "A", 0, {}, None, tmp_path).metrics()
    np.testing.assert_array_equal(found["train_error"], [0.25])


def test_any_label_is_drawn_without_a_word_on_the_terminal(capfd):
    """Warnings are errors here."""
    odd = ("優化器", "\N{PILE OF POO}", "مرحبا", "$a_{", "a\tb", "x" * 400)
    for labels in (odd[:-1], odd[-1:]):
        table = sweep(dict.fromkeys(labels, 1.2), seeds=2, models=(("mlp", 16),))
        analysis = analyze(table, "A")
        assert speedups(analysis)
    assert learning_rates(analysis)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("log", [0.0, 1e-4, 0.002, 0.003, 0.0049, 0.02, 0.5])
def test_a_number_lies_in_its_own_interval_as_written(log):
    for sign in (-1, 1):
        near = [sign * log + step for step in (-3e-3, -1e-4, 0.0, 1e-4, 3e-3)]
        for low, value, high in zip(near, near[1:], near[2:], strict=False):
            number, spread = estimate(value, (low, high))
            written = [number.rstrip("x"), *spread[1:-1].split(", ")]
            assert len({len(text.partition(".")[2]) for text in written}) == 1
            assert float(written[1]) <= float(written[0]) <= float(written[2])


def test_the_leaderboard_says_why_the_baseline_is_untuned():
    table = sweep({"C": 1.2}, seeds=2, models=(("mlp", 16),))
    kept = table["optimizer.learning_rate"] < 3e-3
    board = leaderboard._table(analyze({k: v[kept] for k, v in table.items()}, "A"))
    assert "| the baseline; untuned: optimum at grid edge at" in board
