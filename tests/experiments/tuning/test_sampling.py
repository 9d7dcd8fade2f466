"""Searches: their points are trials like any other, and a kill changes nothing."""

import json
import math

import optuna
import pytest

from gnomon.experiments.config.grid import chain, over, product
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.search import (
    loguniform,
    near_one,
    read_sweep,
    search,
    uniform,
)
from gnomon.experiments.fleet import plan
from gnomon.experiments.records.files import read_json, write_json
from gnomon.experiments.records.runs import Run, load_runs, table
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.cells import cells
from gnomon.experiments.report.text import tuned_rows
from gnomon.experiments.report.verdict import notes
from gnomon.experiments.sweep import run as sweep_command
from gnomon.experiments.tuning import rounds
from gnomon.experiments.tuning.sampling import JOURNAL, Sampler

RATE, B1 = "optimizer.learning_rate", "optimizer.b1"
SPACE = {RATE: loguniform(1e-4, 1e-1), B1: near_one(0.5, 0.99)}


class Killed(Exception):
    pass


class Planned:
    """A sweep as far as its rounds look at it."""

    programs = None

    def __init__(self, trials, max_lanes=0, programs=None):
        self.trials, self.max_lanes, self.groups, self.names = trials, 0, {}, {}


# Learns from its second point on, where TPE takes ten.
OWN = """
import optuna

def learner(seed):
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=2)
"""


CONFIG = """
from gnomon.experiments.config.grid import over, product
from gnomon.experiments.config.search import loguniform, search

def get_config():
    return {}

def sweep():
    searched = search({{"optimizer.learning_rate": loguniform(1e-4, 1e-1)}}, trials=2)
    return product(searched, over("seed", [0, 1]))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_samplers.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory, own):
    """Runs two searches, whose losses are a formula; returns what it trained where."""
    place = tmp_path_factory.mktemp("studies")

    def prepare(sweep, workdir, about, earlier=()):
        ids = [trial.id for trial in [*earlier, *sweep.trials]]
        write_json(workdir / "sweep.json", {"trials": ids})
        for trial in sweep.trials:
            write_json(workdir / "trials" / trial.id / "config.json", trial.config)

    def start(name, best=1e-2, die_after=math.inf, **tuning):
        config = tiny(tuning__trials=5, tuning__at_once=2)
        config["tuning"] |= {"sampler": "own_samplers.learner"} | tuning
        labels = over("label", ["A", "B"])
        overrides = product(labels, search(SPACE), over("seed", [0, 1]))
        _, searches = read_sweep(config, overrides)
        folder, trained = place / name, []

        def run(sweep, workdir):
            for trial in sweep.trials:
                path = workdir / "trials" / trial.id / "result.json"
                if path.exists():
                    continue
                if len(trained) >= die_after:
                    raise Killed
                optimizer = trial.config["optimizer"]
                loss = 1 + math.log(optimizer["learning_rate"] / best) ** 2
                loss += (optimizer["b1"] - 0.9) ** 2 + 0.1 * trial.config["seed"]
                bad = optimizer["learning_rate"] > 0.02
                final = {"validation_loss": None if bad else loss}
                status = "diverged" if bad else "finished"
                write_json(path, {"status": status, "final": final})
                trained.append(trial.id)

        folder.mkdir(exist_ok=True)
        asked = Sampler(searches, folder).asked
        first = Planned([one.trial for one in asked()])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rounds, "Sweep", Planned)
            patch.setattr(rounds, "prepare", prepare)
            rounds.run_widening(first, folder, {}, run, asked)
        return folder, trained

    return start


@pytest.fixture(scope="module")
def whole(study):
    return study("whole")


def told(folder):
    """What the journal says was told, as losses; each point once."""
    found = {}
    for line in (folder / JOURNAL).read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == 6 and entry["state"] == 1:
            assert entry["trial_id"] not in found, "told twice"
            found[entry["trial_id"]] = entry["values"][0]
    return sorted(found.values())


def test_every_point_is_a_trial_with_all_its_seeds_and_is_told_once(whole):
    folder, trained = whole
    listed = read_json(folder / "sweep.json")["trials"]
    assert len(listed) == len(set(trained)) == 2 * 5 * 2
    assert sorted(listed) == sorted(trained)
    points = {}
    for run in load_runs(folder):
        (rate, low, high, scale), _ = run.config["tuning"]["search"]
        assert (rate, low, high, scale) == (RATE, *SPACE[RATE])
        assert low <= run.config["optimizer"]["learning_rate"] <= high
        assert 0.5 <= run.config["optimizer"]["b1"] <= 0.99
        key = run.label, *run.config["optimizer"].values()
        points.setdefault(key, []).append(run.result["final"]["validation_loss"])
    # What is told is the mean over the seeds.
    means = [math.inf if None in pair else sum(pair) / 2 for pair in points.values()]
    assert math.inf in means, "a point that diverged"
    assert told(folder) == pytest.approx(sorted(means))


@pytest.mark.parametrize("when", ["asking", "training", "writing", "lost"])
def test_killed_at_any_moment_a_search_ends_as_if_it_had_not_been(
    study, whole, monkeypatch, when
):
    if when == "asking":  # in the second round, within a point
        suggest, calls = optuna.Trial._suggest, []

        def dies(*arguments):
            calls.append(0)
            if len(calls) == 2 * 2 * 2 + 3:
                raise Killed
            return suggest(*arguments)

        monkeypatch.setattr(optuna.Trial, "_suggest", dies)
    with pytest.raises(Killed):
        study(when, die_after=math.inf if when == "asking" else 11)
    monkeypatch.undo()
    journal = whole[0].parent / when / JOURNAL
    before = {path.parent.name for path in journal.parent.glob("trials/*/result.json")}
    assert len(before) == (8 if when == "asking" else 11)
    if when == "writing":  # of the journal's last line, half reached the disk
        journal.write_bytes(journal.read_bytes()[:-9])
    if when == "lost":
        journal.unlink()
    killed, later = study(when)
    assert not before & set(later), "trained twice"
    assert before | set(later) == set(whole[1])
    assert told(killed) == told(whole[0])


def test_a_larger_budget_goes_on_with_the_search(study):
    folder, trained = study("more", trials=3)
    _, added = study("more")
    assert len(added) == 2 * 2 * 2
    assert not set(added) & set(trained)
    _, none = study("more", trials=1)
    assert not none
    assert len(read_json(folder / "sweep.json")["trials"]) == 2 * 1 * 2


@pytest.mark.parametrize(
    ("best", "status", "words"),
    [
        (1e-2, "tuned", "best of 5 points searched"),
        (1e-6, "edge", "best of 5 points searched at an end of the interval"),
    ],
)
def test_the_report_judges_a_search(study, whole, best, status, words):
    folder, _ = whole if status == "tuned" else study("low", best=best)
    columns = table(load_runs(folder))
    for cell in cells(columns, "validation_loss"):
        assert (cell.status, len(cell.settings)) == (status, 5)
        assert cell.searched == {RATE: (1e-4, 1e-1), B1: (0.5, 0.99)}
    analysis = analyze(columns, "A")
    assert all(words in row[-1] for row in tuned_rows(analysis)[1:])
    said = [note for note in notes(analysis) if "learning rate, " in note]
    assert len(said) == (2 if status == "edge" else 0)


def test_a_search_ends_in_a_report_by_one_command(
    workplace, tiny, capsys, monkeypatch, optax_promotion
):
    config = tiny(
        task="gnomon.experiments.tasks.classification",
        model={"name": "gnomon.models.MLP", "inputs": 13, "widths": [4], "classes": 3},
        data={"name": "wine"},
        steps=2,
        evaluate={"every": 0, "batches": 1, "batch": 8},
    )
    (workplace / "searched.py").write_text(CONFIG.format(config))
    compiled, compile_lanes = [], plan.compile_lanes
    monkeypatch.setattr(
        plan, "compile_lanes", lambda *a: compiled.append(a) or compile_lanes(*a)
    )
    words = ["sweep", "--config=searched.py", "--workdir=w"]
    sweep_command([*words, "--config.tuning.at_once=1"])
    out = capsys.readouterr().out
    assert "searched: adamw adds" in out
    assert "best of 2 points searched" in out
    assert len(list((workplace / "w").glob("trials/*/result.json"))) == 4
    assert len(compiled) == 1, "rounds share a program"


def test_intervals_take_the_type_of_their_field(tiny):
    config = tiny(optimizer={"name": "optax.adamw", "learning_rate": 1e-3, "b1": 0.9})
    space = {"optimizer.b1": uniform(0, 0.5), "model.depth": uniform(1, 4)}
    trials, (one,) = read_sweep(config, chain(over("seed", [7]), search(space)))
    assert [trial.config["seed"] for trial in trials] == [7]
    assert [type(one.intervals[field].low) for field in space] == [float, int]
    depths = [trial.config["model"]["depth"] for trial in one.drafts()]
    assert set(depths) == {1, 2, 3, 4}


def test_what_stands_around_the_optimizer_is_searched_as_its_numbers_are(tiny):
    config = tiny(
        clip={"name": "optax.clip_by_global_norm", "max_norm": 1.0},
        parameter_groups=[{"where": "", "multiplier": 1.0}],
        tuning__trials=9,
    )
    field = "parameter_groups.0.multiplier"
    space = {field: uniform(0.1, 1.0), "clip.max_norm": loguniform(0.1, 10.0)}
    _, (one,) = read_sweep(config, search(space))
    drafts = one.drafts()
    final = {"validation_loss": 1.0}
    runs = [
        Run(trial.id, "A", 0, trial.config, {"status": "finished", "final": final}, "")
        for trial in drafts
    ]
    (cell,) = cells(table(runs), "validation_loss")
    assert (cell.knob.field, len(cell.settings)) == (field, 9)
    assert cell.optimum.values.keys() == cell.searched.keys() == space.keys()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            search({RATE: uniform(-1.0, 1.0)}),
            "learning_rate=-1.0: needs a number above",
        ),
        (search({"optimizer.b3": uniform(0.1, 0.9)}), "unknown field"),
        (2 * search(SPACE), "a search twice"),
        ([], "yields no trials"),
    ],
)
def test_a_search_that_cannot_run_is_refused(tiny, overrides, said):
    with pytest.raises(ConfigError, match=said):
        read_sweep(tiny(), overrides)


@pytest.mark.parametrize("ends", [(1.0, 0.1), (0.1, math.nan), (0, 1)])
def test_an_interval_has_two_ends(ends):
    with pytest.raises(ConfigError, match="an interval needs 0 < low < high"):
        loguniform(*ends)


def test_a_sampler_takes_a_seed(tiny, tmp_path):
    _, searches = read_sweep(tiny(**{"tuning.sampler": "optuna.Study"}), search(SPACE))
    with pytest.raises(ConfigError, match=r"tuning\.sampler"):
        Sampler(searches, tmp_path)
    assert not list(tmp_path.iterdir())
