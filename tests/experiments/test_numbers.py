"""Numbers that are missing, infinite or not numbers, through every stage."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.experiments import sweep
from gnomon.experiments.config import override, validate
from gnomon.experiments.config.fields import digest
from gnomon.experiments.config.grid import over
from gnomon.experiments.config.ranges import FIELDS, OPTIMIZER, Number, Switch, Whole
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.configs.optimizers import OPTIMIZERS
from gnomon.experiments.drawing.ticks import short
from gnomon.experiments.records.files import from_json, jsonable, read_json
from gnomon.experiments.records.metrics import MetricsWriter, read_metrics
from gnomon.experiments.records.runs import Run, flatten, load_runs, table
from gnomon.experiments.records.tables import read, store
from gnomon.experiments.report import write_report
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.cells import cells
from gnomon.experiments.report.knob import knob, knob_of
from gnomon.experiments.report.text import tuned_rows
from gnomon.experiments.schedules import constant, warmup_cosine, warmup_linear
from gnomon.experiments.train import load_state, train
from gnomon.experiments.tuning.widen import additions, next_value

NAN, INF = math.nan, math.inf
ODD = [None, NAN, INF, -INF, 1e300, -1e300, 5e-324, -0.0, 0.0, 2**70, 1, 1.0, True]


def strict(text):
    """JSON as another language reads it."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


words = st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\NaN", "nan"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text()
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(trees)
def test_what_is_written_as_json_reads_back(value):
    back = from_json(strict(json.dumps(jsonable(value), allow_nan=False)))
    # In full: repr tells NaN, the sign of zero, and an integer from a float.
    assert repr(back) == repr(value)


def test_ids_tell_every_number_from_every_other():
    ids = {digest({"x": value}) for value in ODD}
    assert len(ids) == len(ODD)
    for value in ODD:
        assert digest({"x": from_json(jsonable(value))}) == digest({"x": value})


@pytest.mark.parametrize("value", ODD[:-1])
def test_metrics_round_trip(tmp_path, value):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"loss": value})
    # A resumed run writes the rows that it keeps anew.
    MetricsWriter(tmp_path, tensorboard=False, resume_step=1).close()
    (row,) = read_metrics(tmp_path)
    assert repr(row) == repr({"step": 1, "loss": value})
    strict((tmp_path / "metrics.jsonl").read_text())
    run = Run("a", "a", 0, {}, None, tmp_path)
    wanted = NAN if value is None else float(value)
    np.testing.assert_array_equal(run.metrics()["loss"], [wanted])


GRIDS = {
    "learning_rate": (1e-3, 1e-2, 1e-1),
    "max_learning_rate": (0.1, 1.0, INF),
    "momentum": (0.0, 0.5, 0.9),
    "c": (0.25, 0.5, 1.0),
    "preconditioner.eps": (0.0, 1e-8, 1.0),
}


def nested(field, value):
    first, _, rest = field.partition(".")
    return {first: {"name": "p", rest: value} if rest else value}


@pytest.mark.parametrize("field", GRIDS)
@pytest.mark.parametrize("named", [False, True])
def test_every_knob_goes_from_the_folder_to_table_tuning_and_picture(
    folder_of, tmp_path, field, named
):
    rows = [
        {
            "label": "A",
            "optimizer": nested(field, value),
            "loss": loss,
            "tuning": {"field": field} if named else {},
        }
        for value, loss in zip(GRIDS[field], (3.0, 2.0, 2.5), strict=True)
    ]
    workdir = folder_of(rows)
    columns = table(load_runs(workdir))
    stored = read(store(workdir, tmp_path, "mine"))
    for one in (columns, stored.columns):
        np.testing.assert_array_equal(one[f"optimizer.{field}"], GRIDS[field])
        (cell,) = cells(one, "validation_loss", interpolate=True)
        assert cell.knob == knob(f"optimizer.{field}")
        assert tuple(s.learning_rate for s in cell.settings) == GRIDS[field]
        assert cell.status == "tuned"
        assert GRIDS[field][0] <= cell.lowest[0] <= GRIDS[field][-1]
    write_report(workdir)
    found = strict((workdir / "report.json").read_text())["cells"][0]
    assert found["knob"] == f"optimizer.{field}"
    values = [s["values"][f"optimizer.{field}"] for s in found["grid"]]
    assert from_json(values) == list(GRIDS[field])
    page = (workdir / "report.html").read_text()
    assert f"loss by {cell.knob.words}" in page
    assert ("∞" in page) == (INF in GRIDS[field])


# What a grid tunes may be no number at all: a choice by name, or a bound left out.
ODD_GRIDS = {
    "kind": ("a", "b", "c"),
    "clip": (None, 0.1, 1.0),
    "threshold": (INF, INF, INF),
    "": (0.0, 0.0, 0.0),
}


def test_a_report_is_written_wherever_the_best_of_any_grid_lies(folder_of):
    rows, best = [], {}
    for field, values in {**GRIDS, **ODD_GRIDS}.items():
        for at in range(3):
            label = f"{field} {at}"
            best[label] = field, values[at]
            for i in (0, 1, 2) if len(set(values)) > 1 else (at,):
                rows += [
                    {
                        "label": label,
                        "optimizer": nested(field, values[i]) if field else {},
                        "loss": 2.0 + (i - at) ** 2 + 0.01 * seed,
                        "seed": seed,
                        "tuning": {"field": field if at == 1 else ""},
                    }
                    for seed in (0, 1)
                ]
    workdir = folder_of(rows)
    text = write_report(workdir)
    found = strict((workdir / "report.json").read_text())
    for cell in found["cells"]:
        field, value = best[cell["label"]]
        if field:
            assert (
                from_json(cell["optimum"]["values"]).get(f"optimizer.{field}", INF)
                == value
            )
        shown = next(
            line for line in text.splitlines() if line.startswith(f"{cell['label']} ")
        )
        if isinstance(value, float) and cell["knob"]:
            assert f" {short(value)} " in shown
        else:
            assert " none " in shown
            assert not isinstance(value, str) or f"{field} {value} " in shown
    between = analyze(table(load_runs(workdir)), interpolate=True)
    assert len(tuned_rows(between)) == len(best) + 1


@pytest.mark.parametrize("loss", [None, NAN, INF, -INF])
def test_a_loss_that_is_no_number_is_a_diverged_trial_at_every_stage(
    folder_of, tmp_path, loss
):
    rates = (1e-3, 1e-2, 1e-1)
    rows = [
        {"label": "A", "optimizer": {"learning_rate": rate}, "loss": found}
        for rate, found in zip(rates, (1e300, 2.0, loss), strict=True)
    ]
    workdir = folder_of(rows)
    for columns in (
        table(load_runs(workdir)),
        read(store(workdir, tmp_path, "mine")).columns,
    ):
        (cell,) = cells(columns, "validation_loss")
        assert [s.statuses for s in cell.settings] == [
            ("finished",),
            ("finished",),
            ("diverged",),
        ]
        assert cell.tuned.learning_rate == 1e-2
    assert "1 diverged" in write_report(workdir) + (workdir / "report.html").read_text()


@pytest.mark.parametrize("value", [NAN, INF, -INF, -1.0, 0.0, None, "x", True, 1e300])
def test_a_rate_that_cannot_be_meant_is_refused_by_name(tiny, value):
    config = tiny()
    config["optimizer"]["learning_rate"] = value
    with pytest.raises(ConfigError, match=r"config.optimizer.learning_rate"):
        make_trials(config, [{}])


def outside(allowed):
    """Values that a range does not have, from its own ends."""
    if isinstance(allowed, Whole):
        return [allowed.least - 1, allowed.most + 1, 1.5, NAN, INF, None, "x", True]
    if isinstance(allowed, Number):
        ends = [
            end
            for end, closed in zip(allowed[:2], allowed.closed, strict=True)
            if not closed
        ]
        return [*ends, allowed.low - 1, -INF, NAN, "x", True]
    return [None, 3, NAN] if isinstance(allowed, Switch) else [3, None, "\x1b[2J"]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_refuses_what_is_outside_its_range_by_name(tiny, field):
    for value in outside(FIELDS[field]):
        config = tiny()
        section, _, last = field.rpartition(".")
        (config[section] if section else config)[last] = value
        with pytest.raises(ConfigError, match=rf"config\.{field}"):
            validate(config)


@pytest.mark.parametrize("field", OPTIMIZER)
def test_every_hyperparameter_refuses_what_is_outside_its_range_by_name(tiny, field):
    for value in outside(OPTIMIZER[field]):
        spec = {"name": "optax.adamw", "learning_rate": 0.1, field: value}
        with pytest.raises(ConfigError, match=rf"config\.optimizer.*{field}"):
            validate(tiny() | {"optimizer": spec})


@pytest.mark.parametrize("schedule", [warmup_cosine, warmup_linear])
@pytest.mark.parametrize("field", ["warmup", "final"])
@pytest.mark.parametrize("value", [2.0, -0.1, NAN, INF, -INF])
def test_a_fraction_that_is_none_is_refused_by_name(tiny, schedule, field, value):
    spec = {"name": f"{schedule.__module__}.{schedule.__name__}", field: value}
    with pytest.raises(ConfigError, match=rf"config\.schedule.*{field}"):
        validate(tiny() | {"schedule": spec})
    assert constant(1.0, 10)(0) == 1.0


@pytest.mark.parametrize("line", OPTIMIZERS)
def test_every_line_is_valid_and_its_scale_is_widened(tiny, tmp_path, line):
    """Whatever a line has to tune: found by itself, and widened past the best."""
    config = tiny() | {"optimizer": dict(OPTIMIZERS[line])}
    validate(config)
    knobs = ("learning_rate", "max_learning_rate", "momentum", "c")
    knobs += ("inner.learning_rate", "preconditioner.eps")
    field = next(f for f in knobs if f"optimizer.{f}" in flatten(config))
    trials = make_trials(config, over(f"optimizer.{field}", [0.25, 0.5]))
    runs = [
        Run(t.id, "A", 0, t.config, {"status": "finished", "final": {"loss": -i}}, "")
        for i, t in enumerate(trials)
    ]
    columns = table(runs)
    assert knob_of(columns, np.arange(2)) == knob(f"optimizer.{field}")
    # Named, it is the same, however deep it lies.
    named = override(trials[0].config, {"tuning.field": field})
    assert make_trials(named, [{}])[0].id == trials[0].id
    assert "0.5" in " ".join(tuned_rows(analyze(columns, metric="loss"))[1])
    ((added, _),) = additions(trials, columns, "loss")
    value = next_value(knob(f"optimizer.{field}"), 0.5, 0.25)
    assert added.config == override(trials[0].config, {f"optimizer.{field}": value})


PYTHON = """
import optax
from gnomon.experiments.tasks import next_token

def task(apply, batch):
    return next_token(apply, batch)[0], {"n": 3, "x": 0.5, "yes": True}

def optimizer(learning_rate):
    inner = optax.sgd(learning_rate)
    return optax.GradientTransformation(
        lambda p: (inner.init(p), {"n": 0, "x": 0.5}),
        lambda g, s, p=None: (inner.update(g, s[0], p)[0], s),
    )
"""


def test_python_numbers_in_a_metric_and_in_a_state_train_and_read_back(
    tiny, tmp_path, monkeypatch, optax_promotion
):
    (tmp_path / "with_numbers.py").write_text(PYTHON)
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"name": "with_numbers.optimizer", "learning_rate": 0.1}
    config = tiny(optimizer=spec, steps=2, task="with_numbers.task")
    final = train(config, tmp_path / "w")["final"]
    for stage in ("train", "validation"):
        found = [final[f"{stage}_{name}"] for name in ("n", "x", "yes")]
        assert found == [3.0, 0.5, 1.0]
    assert load_state(tmp_path / "w").opt_state[1] == {"n": 0, "x": 0.5}


def test_an_infinite_bound_sweeps_and_the_same_command_goes_on(
    sweep_file, tmp_path, monkeypatch, capsys, optax_promotion
):
    monkeypatch.setattr("gnomon.experiments.config.cli.configure_jax", lambda: None)
    config = sweep_file(
        "product([{'optimizer': {'name': 'gnomon.optimizers.sps'}}],"
        " over('optimizer.max_learning_rate', [0.1, float('inf')]))",
        steps=3,
    )
    argv = ["sweep", f"--config={config}", f"--workdir={tmp_path / 'w'}"]
    sweep.run(argv)
    assert "max learning rate" in capsys.readouterr().out
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("w/trials/*/*")}
    sweep.run(argv)
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.glob("w/trials/*/*")}
    bounds = [
        read_json(path)["optimizer"]["max_learning_rate"]
        for path in tmp_path.glob("w/trials/*/config.json")
    ]
    assert sorted(bounds) == [0.1, INF]
