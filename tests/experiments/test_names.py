"""Names from configs and folders: never a path, never markup, never code."""

import html
import html.parser
import unicodedata

import jax
import numpy as np
import pytest
from markdown_it import MarkdownIt

from gnomon.experiments import leaderboard, report
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.shown import markdown, one_line, printable
from gnomon.experiments.leaderboard import add, build
from gnomon.experiments.records.files import read_json, write_json
from gnomon.experiments.records.runs import load_runs, table
from gnomon.experiments.records.tables import read
from gnomon.experiments.report import write_report
from gnomon.experiments.train import load_state, train
from gnomon.experiments.trial.arrays import load_arrays

HOSTILE = [
    "a|b",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "&lt;b&gt;",
    "[x](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "[x]: http://evil.example",
    "http://evil.example",
    "<http://evil.example>",
    "`code`",
    "**bold** _it_ ~~gone~~",
    "# heading",
    "- item",
    "1. item",
    "$\\frac{",
    "$x$",
    "back\\slash",
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "two\nlines",
    "tab\tand\rreturn",
    "\u202ereversed",
    "nul\0",
    "../../up",
]


def study(folder_of):
    """A study with the names as labels, as values of fields, and as facts."""
    rows = [
        {
            "label": label,
            "optimizer": {"learning_rate": rate, "kind": f"{label}{i}"},
            "seed": seed,
            "loss": loss + 0.01 * seed,
        }
        for label in ("base", *HOSTILE)
        for i, (rate, loss) in enumerate(((0.1, 3.0), (0.2, 2.0), (0.4, 3.0)))
        for seed in (0, 1)
    ]
    workdir = folder_of(rows, baseline="base")
    for path, name in zip(workdir.glob("trials/*/result.json"), HOSTILE, strict=False):
        about = {"device": name, "versions": {"python": name}}
        write_json(path, read_json(path) | about)
    return workdir


# What the pages are made of themselves.
OWN = "a code h1 h2 href img alt li p src table tbody td th thead tr ul"


class Tags(html.parser.HTMLParser):
    """The tags, attributes and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found |= {tag, *(name for name, _ in attrs)}
        for name, value in attrs:
            if name in ("href", "src", "xlink:href"):
                self.found.add(value)


def test_names_are_text_on_the_terminal_in_html_and_in_markdown(
    folder_of, tmp_path, capsys
):
    workdir = study(folder_of)
    report.main(workdir)
    shown = capsys.readouterr().out
    controls = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf")}
    assert controls <= {"\n"}
    page = Tags((workdir / "report.html").read_text())
    assert not page.found & {"script", "img", "onerror", "onload"}
    assert not any("evil" in one or "javascript" in one for one in page.found)
    docs = tmp_path / "docs"
    add(workdir, docs, "mine")
    text = build(docs).read_text()
    made = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    rendered = made.render(text)
    found = {one for one in Tags(rendered).found if not one.startswith("results/mine.")}
    assert found <= set(OWN.split())
    assert rendered.count("<tr>") == 2 + len(HOSTILE)
    stored = read(docs / "results" / "mine.json").columns
    for field, column in table(load_runs(workdir)).items():
        if field.startswith("optimizer."):
            np.testing.assert_array_equal(stored[field], column)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_the_text_itself(name):
    made = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    wanted = html.escape(printable(name), quote=False).replace('"', "&quot;")
    assert made.render(markdown(name)).strip() == f"<p>{wanted}</p>"
    cell = made.render(f"| h | i |\n| - | - |\n| {markdown(name)} | x |")
    assert f"<td>{wanted}</td>" in cell
    assert "\n" not in one_line(name)


BAD = ["../../x", "/abs/x", "a/b", "..", ".", "", ".hidden", "a\0b", "a\\b", "x\n", "~"]


@pytest.mark.parametrize("name", BAD)
def test_a_stored_name_is_no_path(folder_of, name, tmp_path, capsys):
    workdir = folder_of([{"label": "A", "optimizer": {"learning_rate": 0.1}}])
    write_report(workdir)
    before = sorted(tmp_path.rglob("*"))
    docs = tmp_path / "a" / "docs"
    with pytest.raises(UserError, match="--name"):
        add(workdir, docs, name)
    words = ["leaderboard", f"--docs={docs}", f"--add={workdir}", f"--name={name}"]
    with pytest.raises(SystemExit, match="2"):
        leaderboard.run(words)
    assert "--name" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_arrays_are_read_without_running_what_the_folder_names(
    tiny, tmp_path, monkeypatch, optax_promotion
):
    train(tiny(steps=2), tmp_path)
    state = load_state(tmp_path)

    def refuse(*arguments, **keywords):
        raise AssertionError("a folder's name was resolved")

    config = read_json(tmp_path / "config.json")
    config["model"]["name"] = config["optimizer"]["name"] = "antigravity.fly"
    write_json(tmp_path / "config.json", config)
    monkeypatch.setattr("gnomon.experiments.config.resolve.resolve", refuse)
    monkeypatch.chdir(tmp_path)
    arrays = load_arrays(".")
    wanted = jax.tree_util.tree_leaves_with_path(state.params)
    for path, leaf in wanted:
        node = arrays["params"]
        for part in jax.tree_util.keystr(path, simple=True, separator="/").split("/"):
            node = node[part]
        np.testing.assert_array_equal(node, leaf)
    assert len(jax.tree.leaves(arrays["params"])) == len(wanted)
    assert arrays["step"] == 2
    with pytest.raises(UserError, match="no checkpoint that can be read"):
        load_arrays(tmp_path / "absent")
