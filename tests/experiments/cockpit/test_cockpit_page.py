"""The cockpit page shows what a run recorded, gaps and absences included."""

import functools
import html.parser
import json
import os
import re

import numpy as np
import pytest

from gnomon.dynamics.names import (
    CHEAP,
    FREE,
    FREE_SCALARS,
    FULL_SCALARS,
    QUANTITIES,
    name_of,
)
from gnomon.experiments.cockpit import cockpit, lines
from gnomon.experiments.cockpit.command import run as command
from gnomon.experiments.cockpit.command import run_folder
from gnomon.experiments.cockpit.panels import SECTIONS, TRAINER, UNPREDICTED, _edge
from gnomon.experiments.records.metrics import FILE

LAYERS = ("blocks/2/up", "blocks/10/up", "embed")
PANELS = [panel for panels in SECTIONS.values() for panel in panels]


def rows(count=6, without=(), only=QUANTITIES):
    """A run with every key, but for some quantities; each value is positive."""
    found = []
    for step in range(10, 10 * count + 1, 10):
        row = {"step": step, "train_loss": 30 / step, "learning_rate": 1 / step}
        for quantity in set(only) - set(without):
            if quantity in FREE_SCALARS or quantity in FULL_SCALARS:
                row[name_of(quantity)] = 0.1 * step
            else:
                row |= {name_of(quantity, layer): 1 / step for layer in LAYERS}
                row[name_of(quantity, "all")] = 2 / step
        found.append(row)
    return found


@functools.cache
def full_page():
    return cockpit(rows(), title="A <run>")


def article(page, title):
    """The panel under a heading."""
    panels = re.findall(r"<article.*?</article>", page, flags=re.DOTALL)
    (found,) = [panel for panel in panels if f"<h3>{title}</h3>" in panel]
    return found


def strokes(page, title, name):
    """The paths of one line of a panel: how many points each of its parts has."""
    group = re.search(
        rf"<title>{re.escape(name)}[:<].*?</g>", article(page, title), flags=re.DOTALL
    )
    paths = re.findall(r'<path d="([^"]*)"', group[0])
    counts = [part.count("L") + 1 for path in paths for part in path.split("M")[1:]]
    return [count for count in counts if count > 1]  # a lone point has no line


def test_a_full_run_has_every_panel_in_the_words_of_the_names():
    page = full_page()
    assert "<h1>A &lt;run&gt;</h1>" in page
    assert "Left out" not in page
    for panel in PANELS:
        text = html.unescape(article(page, panel.title))
        words = panel.words or (QUANTITIES | TRAINER)[panel.keys[0]]
        assert words[1:] in text, panel.title
        assert "<svg" in text, panel.title


def test_the_page_is_well_formed_and_loads_nothing():
    """Every element that opens closes in order; no address but that of an anchor."""
    page, stack, ids, anchors = full_page(), [], [], []

    class Balance(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag != "meta":
                stack.append(tag)
            self.handle_attributes(attrs)

        def handle_startendtag(self, tag, attrs):
            assert tag in ("path", "use", "g", "rect")
            self.handle_attributes(attrs)

        def handle_attributes(self, attrs):
            ids.extend(value for name, value in attrs if name == "id")
            links = {"src", "href", "xlink:href"}
            anchors.extend(value for name, value in attrs if name in links)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Balance().feed(page)
    assert not stack
    assert len(ids) == len(set(ids))
    assert set(anchors) <= {f"#{name}" for name in ids}
    assert "http" not in page
    assert "@import" not in page
    assert "nan" not in page


def test_every_key_of_a_panel_is_one_that_is_recorded():
    for panel in PANELS:
        assert set(panel.keys) <= QUANTITIES.keys() | TRAINER.keys()
        others = {panel.dashed, panel.edge, panel.error} - {""}
        assert others <= QUANTITIES.keys(), panel.title


@pytest.mark.parametrize("empty", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_a_gap(empty):
    """Six points with the third empty: a stretch of two and one of three."""
    run = rows(only=["weight_norm"])
    assert strokes(cockpit(run), "Weight norm", "embed") == [6]
    run[2][name_of("weight_norm", "embed")] = empty
    assert strokes(cockpit(run), "Weight norm", "embed") == [2, 3]


def test_a_value_between_gaps_is_a_dot():
    run = rows(only=["weight_norm"])
    for number in (0, 1, 3, 4, 5):
        run[number][name_of("weight_norm", "embed")] = None
    page = cockpit(run)
    assert strokes(page, "Weight norm", "embed") == []
    assert article(page, "Weight norm").count("-dots-trace-") == 1


def test_a_key_that_only_some_rows_have_is_one_line():
    """The cheap and full tiers have periods of their own: that is no gap."""
    run = rows(only=["spectral_norm"])
    for row in run[::2]:
        del row[name_of("spectral_norm", "embed")]
    assert strokes(cockpit(run), "Spectral norm", "embed") == [3]


@pytest.mark.parametrize(
    ("tier", "field"),
    [
        (FREE | FREE_SCALARS, "config.dynamics.free"),
        (CHEAP, "config.dynamics.cheap_every"),
        (FULL_SCALARS, "config.dynamics.full_every"),
    ],
)
def test_a_tier_that_was_off_is_left_out_with_its_field(tier, field):
    page = cockpit(rows(without=tier))
    gone = [panel.title for panel in PANELS if set(panel.keys) <= tier.keys()]
    assert gone
    for panel in PANELS:
        assert (f"<h3>{panel.title}</h3>" in page) == (panel.title not in gone)
    lines = re.findall(r"<li>(.*?)</li>", page)
    assert [line.split(":")[0] for line in lines] == gone
    assert all(field in line for line in lines)


def test_what_was_never_a_number_is_said_to_be():
    run = rows(only=["effective_rank"])
    for row in run:
        row |= {key: None for key in row if "/effective_rank/" in key}
    page = cockpit(run)
    assert "<li>Effective rank: recorded, but never a number" in page


def test_the_edge_is_two_over_the_learning_rate():
    """Sharpness over its ratio to the line, also where no learning rate was logged."""
    rate = np.array([0.5, 0.25, 0.0])
    sharp = np.array([3.0, 6.0, 7.0])
    columns = {
        name_of("sharpness"): (np.arange(3.0), sharp),
        name_of("edge_ratio"): (np.arange(3.0), sharp * rate / 2),
    }
    (panel,) = [panel for panel in PANELS if panel.title == "Sharpness"]
    np.testing.assert_allclose(_edge(panel, columns).value, [4.0, 8.0, np.nan])


def test_predictions_are_dashed_where_they_are_present():
    with_it = article(full_page(), "Weight norm")
    without = cockpit(rows(only=["weight_norm"]))
    without = article(without, "Weight norm")
    assert with_it.count("dashed far") == 1 + len(LAYERS)
    assert "dashed:" in with_it
    assert "dashed" not in without


def test_a_panel_without_its_prediction_says_so():
    page = html.unescape(cockpit(rows(only=["weight_norm", "angle"])))
    for title in ("Weight norm", "Angle of a step"):
        assert UNPREDICTED in article(page, title)
    assert UNPREDICTED not in html.unescape(full_page())


def test_what_the_optimizer_says_is_drawn_in_its_own_words():
    """A panel a name, a line a state, whether or not the name is explained."""
    heading = "What the optimizer says"
    assert heading not in full_page()
    run = rows(only=[])
    for row in run:
        row["diagnostics/step_size"] = 0.5
        row["diagnostics/0/<mine>"], row["diagnostics/1/<mine>"] = row["step"], -1.0
        row["diagnostics/never"] = None
    assert "<mine>" not in cockpit(run)
    page = html.unescape(cockpit(run))
    assert heading in page
    assert "Step size of the update, as the value" in article(page, "Step size")
    assert strokes(page, "Step size", "Step size") == [6]
    mine = article(page, "<mine>")
    assert "tells it; between -1 and 60." in mine
    assert mine.count('class="key"') == 2
    assert [strokes(page, "<mine>", name) for name in "01"] == [[6], [6]]
    assert "<h3>Never</h3>" not in page


def test_spikes_are_marked_on_the_loss_and_listed():
    """By their records; in no other panel, and on no page of a run without any."""
    assert "spike" not in re.sub(
        r"<style>.*?</style>", "", full_page(), flags=re.DOTALL
    )
    run = rows(only=[])
    bounds = {"loss_bound": 3.5, "gradient_norm_bound": 2.0}
    spike = {"step": 24, "batch": 26, "action": "skip", "loss": 88.0}
    spike |= bounds | {"gradient_norm": 777.0, "layers": {"<up>": 12.0, "embed": 1.5}}
    run[2]["spikes"] = [spike, {"step": 27, "action": "rewind", "back_to": 20}]
    page = cockpit(run)
    loss = article(page, "Loss")
    assert loss.count("<title>spike at step") == 2
    assert "spike" not in article(page, "Learning rate")
    group = re.search(r"<title>spike at step 24</title>.*?</g>", loss, flags=re.DOTALL)
    left, right, *_ = lines.MARGINS
    x = float(re.search(r'd="M ([\d.]+)', group[0])[1])
    width = lines.SIZE[0] - left - right
    np.testing.assert_allclose(x, left + width * (25 - 10) / 50, atol=0.1)
    listed = re.search(r'<table class="spikes">.*?</table>', page, flags=re.DOTALL)[0]
    cells = [re.findall("<td>(.*?)</td>", line) for line in listed.split("<tr>")[2:]]
    layers = "&lt;up&gt; 12x, embed 1.5x"
    assert cells[0] == ["24", "26", "88 (3.5)", "777 (2)", "skipped", layers]
    assert cells[1] == ["27", "", "", "", "back to step 20", ""]


def test_a_trace_lies_where_its_values_are():
    """On a log axis equal factors are equal lengths; more is further up."""
    trace = lines.Trace("t", np.arange(3.0), np.array([1.0, 10.0, 100.0]))
    svg = lines.lines("t", [trace], (0.0, 2.0), log_y=True)
    group = re.search(r"<title>t: 100 at the end</title>.*?</g>", svg, flags=re.DOTALL)
    path = re.search(r'<path d="M([^"]*)"', group[0])[1]
    x, y = np.array([p.split() for p in path.split("L")], float).T
    left, right, *_ = lines.MARGINS
    ends = [left, lines.SIZE[0] - right]
    np.testing.assert_allclose(x[[0, 2]], ends, atol=0.06)
    assert y[0] > y[1] > y[2]
    np.testing.assert_allclose(y[0] - y[1], y[1] - y[2], atol=0.11)


def test_a_long_trace_keeps_its_spike():
    value = np.ones(50_000)
    value[31_234] = 9.0
    assert 31_234 in lines.thin(np.arange(50_000), value)


def test_layers_go_by_depth_and_heat_by_value():
    """Block 10 is below block 2, and a cell that is null or absent has no color."""
    run = rows(only=["update_ratio"])
    run[0][name_of("update_ratio", "embed")] = None
    del run[3][name_of("update_ratio", "blocks/2/up")]
    heat = article(cockpit(run), "Update-to-weight ratio")
    names = re.findall(r'class="name" title="([^"]*)"', heat)
    assert names == ["blocks/2/up", "blocks/10/up", "embed", "whole model"]
    cells = [part.count("h1v1") for part in heat.split('class="name"')[1:]]
    assert cells == [5, 6, 5, 6]


@pytest.mark.parametrize(
    ("rows", "words"), [([], "rows is empty"), ([{"train_loss": 1.0}], "'step'")]
)
def test_rows_that_cannot_be_drawn_are_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        cockpit(rows)


def main(*words):
    command(["cockpit", *words])


def planted(folder, tail=""):
    folder.mkdir(parents=True, exist_ok=True)
    run = rows(only=["weight_norm"])
    text = "".join(json.dumps(row) + "\n" for row in run) + tail
    (folder / FILE).write_text(text)
    return folder


def test_the_command_writes_the_page_beside_the_metrics(tmp_path, capsys):
    """A line that a kill tore is dropped, and nothing else is left in the folder."""
    run = planted(tmp_path / "run", tail='{"step": 70, "train')
    main(f"--workdir={run}")
    assert capsys.readouterr().out.strip() == str(run / "cockpit.html")
    page = cockpit(rows(only=["weight_norm"]), title="run")
    assert (run / "cockpit.html").read_text() == page
    assert sorted(os.listdir(run)) == ["cockpit.html", FILE]


def test_a_sweep_is_asked_for_one_trial(tmp_path, capsys):
    nested = {"name": "lawn", "inner": {"name": "sgd", "learning_rate": 0.25}}
    for trial, optimizer in (("3f", nested), ("a0", {"name": "sps"})):
        folder = planted(tmp_path / "trials" / trial)
        config = {"optimizer": optimizer, "model": {"name": "a.MLP"}, "seed": 7}
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="2"):
        main(f"--workdir={tmp_path}")
    error = " ".join(capsys.readouterr().err.split())
    assert "--trial=ID" in error
    assert "3f (lawn · MLP · learning rate 0.25 · seed 7)" in error
    assert "a0 (sps · MLP · seed 7)" in error
    main(f"--workdir={tmp_path}", "--trial=a0", f"--output={tmp_path / 'p.html'}")
    assert (tmp_path / "p.html").exists()
    with pytest.raises(ValueError, match="no trial 'b'"):
        run_folder(tmp_path, "b")


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_a_folder_without_a_run_is_an_error_with_the_fix(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="2"):
        main(f"--workdir={tmp_path / name}")
    error = capsys.readouterr().err
    assert f"--workdir={tmp_path / name}" in error
    assert "give the folder of a run" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--workdir"),
        (["--workdir="], "--workdir: empty"),
        (["--workdir=."], "is a sweep: choose one by --trial=ID of 0"),
        (["--workdir=.", "--trial="], "no trial ''"),
        (["--workdir=.", "--trial=x\ny\x1b[2J"], "no trial 'x"),
        (["--workdir=trials/0", "--output="], "--output: empty"),
        (["--workdir=trials/0", "--output=absent/p.html"], "make its folder first"),
        (["--workdir=trials/0", "--output=trials"], "trials"),
        (["--workdir=broken"], "broken/metrics.jsonl, line 7"),
        (["--workdir=binary"], "binary/metrics.jsonl, line 1"),
        (["--work=trials/0"], "flag 'work'"),
        (["--workdir=trials/0", "--what"], "flag 'what'"),
        (["trials/0"], "unexpected arguments: trials/0"),
    ],
)
def test_every_error_of_the_command_is_one_line(
    tmp_path, monkeypatch, capsys, words, said
):
    monkeypatch.chdir(tmp_path)
    for trial in range(12):
        planted(tmp_path / "trials" / str(trial))
    planted(tmp_path / "broken", tail="oops\n")
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / FILE).write_bytes(b"\xff\xfe{]\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(*words)
    line = capsys.readouterr().err
    assert ended.value.code == 2
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch, capsys):
    run = planted(tmp_path / "run")
    path = run / "cockpit.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SystemExit, match="2"):
        main(f"--workdir={run}")
    assert "disk full" in capsys.readouterr().err
    assert path.read_text() == "old"
    assert sorted(os.listdir(run)) == ["cockpit.html", FILE]
