"""A report as its reader meets it: page, JSON, terminal, and errors."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from gnomon.experiments.records.files import write_json
from gnomon.experiments.report import write_report

VOID = {"meta", "br", "hr", "img", "link", "input"}


class _Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.links = [], [], [], []
        self.words = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._attributes(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def _attributes(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "data", "srcset"):
                self.links.append(value)


@pytest.fixture
def sweep(tmp_path):
    """Writes a sweep's folder: two optimizers at two widths, baseline at two lengths.

    The second optimizer needs 1.3 times fewer steps. Its widest model diverges at
    the largest learning rate.
    """

    def write(
        *, seeds=3, lengths=(100, 200), undone=0, labels=("AdamW", "AdamP"), low=1e-3
    ):
        rng = np.random.default_rng(0)
        ids = []
        for label in labels:
            for width in (16, 32):
                for steps in lengths if label == labels[0] else lengths[:1]:
                    for rate in low * 2.0 ** np.arange(4):
                        for seed in range(seeds):
                            ids.append(f"{len(ids):012x}")
                            folder = tmp_path / "trials" / ids[-1]
                            _write_trial(
                                folder, label, width, steps, rate, seed, labels, rng
                            )
        for name in ids[len(ids) - undone :]:
            (tmp_path / "trials" / name / "result.json").unlink()
        command = ["/somewhere/sweep.py", "--config=quickstart.py"]
        write_json(tmp_path / "sweep.json", {"command": command, "trials": ids})
        return tmp_path

    return write


def _write_trial(folder, label, width, steps, rate, seed, labels, rng):
    config = {
        "label": label,
        "seed": seed,
        "steps": steps,
        "model": {"name": "m", "width": width},
        "data": {"name": "text"},
        "optimizer": {"name": "o", "learning_rate": float(rate)},
        "report": {"baseline": labels[0], "metric": "validation_loss"},
    }
    write_json(folder / "config.json", config)
    gain = 1.0 if label == labels[0] else 1.3
    loss = 3 - 0.3 * np.log(width * steps * gain / 1600) + 0.1 * seed
    loss += 0.1 * np.log(rate / 2.2e-3) ** 2 + 0.001 * rng.standard_normal()
    diverged = width == 32 and rate > 7e-3 and gain > 1
    curve = [
        {"step": t, "train_loss": loss + 1 - t / steps, "validation_loss": None}
        for t in range(steps // 10, steps + 1, steps // 10)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in curve)
    (folder / "metrics.jsonl").write_text(lines)
    result = {
        "status": "diverged" if diverged else "finished",
        "diverged_at": 50 if diverged else None,
        "final": {"validation_loss": None if diverged else loss},
        "parameters": 100 * width,
        "compute": 1e6 * width * steps,
        "data": {"name": "text", "fingerprint": "ab12"},
        "device": "cpu",
        "versions": {"jax": "0.10.2"},
        "seconds": 1.5,
    }
    write_json(folder / "result.json", result)


def _load(workdir):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = (workdir / "report.json").read_text()
    return json.loads(text, parse_constant=refuse)


def test_the_page_stands_alone_and_is_well_formed(sweep):
    workdir = sweep()
    write_report(workdir)
    text = (workdir / "report.html").read_text()
    page = _Page(text)
    assert len(page.ids) == len(set(page.ids))  # figures must not share ids
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", text)
    # speedup, compute, law, four panels of rates, two of curves with both optimizers
    assert page.tags.count("svg") == 9


def test_the_planted_speedup_is_the_verdict_everywhere(sweep):
    workdir = sweep()
    printed = write_report(workdir)
    record = _load(workdir)
    (overall,) = record["overall"]
    assert overall["speedup"] == pytest.approx(1.3, abs=0.02)
    assert overall["interval"][0] > 1
    said = f"AdamP is {overall['speedup']:.2f}x"
    assert record["verdicts"][0].startswith(said)
    assert said in printed
    assert printed.splitlines()[-1] == f"report: {workdir / 'report.html'}"
    words = "".join(_Page((workdir / "report.html").read_text()).words)
    assert said.replace("x", "×") in words
    for one in record["comparisons"]:
        assert f"{one['speedup']:.2f}x" in printed
        assert f"{one['speedup']:.2f}×" in words


def test_a_verdict_can_be_traced_to_its_trials(sweep):
    workdir = sweep()
    write_report(workdir)
    record = _load(workdir)
    one = record["comparisons"][0]
    losses = {}
    for name in one["tuned_trials"]:
        folder = workdir / "trials" / name
        config = json.loads((folder / "config.json").read_text())
        final = json.loads((folder / "result.json").read_text())["final"]
        losses.setdefault(config["label"], []).append(final["validation_loss"])
    gap = np.mean(losses["AdamP"]) - np.mean(losses["AdamW"])
    assert one["loss_difference"] == pytest.approx(gap)


def test_the_same_trials_give_the_same_page(sweep):
    workdir = sweep()
    pages = []
    for _ in range(2):
        write_report(workdir)
        text = (workdir / "report.html").read_text()
        pages.append(re.sub(r"<dt>written</dt><dd>.*?</dd>", "", text))
    assert pages[0] == pages[1]


def test_a_sweep_under_way_is_reported_as_provisional(sweep):
    workdir = sweep(undone=1)
    printed = write_report(workdir)
    record = _load(workdir)
    assert printed.startswith("PROVISIONAL: 71 of 72 trials done")
    assert "Provisional: 71 of 72 trials done" in (workdir / "report.html").read_text()
    assert record["trials"]["unfinished"] == 1
    statuses = [(c["speedup"], c["reason"]) for c in record["comparisons"]]
    assert statuses[0][0] is not None
    assert statuses[1] == (None, "AdamP is incomplete: trials of its grid are not done")


def test_trials_of_an_earlier_sweep_are_left_out_and_counted(sweep):
    workdir = sweep()
    about = json.loads((workdir / "sweep.json").read_text())
    extra = about["trials"].pop()
    write_json(workdir / "sweep.json", about)
    printed = write_report(workdir)
    assert "1 trials of earlier sweeps" in printed
    assert extra not in (workdir / "report.json").read_text()


def test_one_seed_gives_no_interval_and_says_so(sweep):
    workdir = sweep(seeds=1)
    printed = write_report(workdir)
    (overall,) = _load(workdir)["overall"]
    assert overall["speedup"] == pytest.approx(1.3, abs=0.05)
    assert overall["interval"] == [None, None]
    assert "one seed, so no interval and no verdict" in printed
    assert "One seed: no interval" in (workdir / "report.html").read_text()


def test_an_optimum_at_the_edge_gets_no_speedup(sweep):
    workdir = sweep(low=8e-3)
    printed = write_report(workdir)
    record = _load(workdir)
    assert {cell["status"] for cell in record["cells"]} <= {"edge", "diverged"}
    assert all(one["speedup"] is None for one in record["comparisons"])
    assert "untuned: optimum at grid edge" in printed
    assert "not tuned: AdamW" in (workdir / "report.html").read_text()


def test_one_optimizer_alone_is_shown_and_not_compared(sweep):
    workdir = sweep(labels=("AdamW",))
    printed = write_report(workdir)
    assert "Only AdamW was run: nothing to compare with." in printed
    assert _load(workdir)["comparisons"] == []
    _Page((workdir / "report.html").read_text())


def test_a_single_compute_compares_losses_and_says_why_no_more(sweep):
    """The baseline at one length and the widths in different data: no curve."""
    workdir = sweep(lengths=(100,))
    for path in workdir.glob("trials/*/config.json"):
        config = json.loads(path.read_text())
        config["data"]["name"] = f"text{config['model']['width']}"
        write_json(path, config)
    printed = write_report(workdir)
    assert "the baseline is tuned at one compute only" in printed
    assert "AdamP's tuned loss differs from AdamW's by -0.07" in printed
    assert all(c["loss_difference"] < 0 for c in _load(workdir)["comparisons"])


def test_names_are_escaped(sweep):
    workdir = sweep(labels=("A<script>&", 'B"x'))
    write_report(workdir)
    text = (workdir / "report.html").read_text()
    assert "<script>" not in text
    assert "A&lt;script&gt;&amp;" in text
    _Page(text)


def test_nothing_finished_and_a_wrong_baseline_are_errors_with_a_fix(sweep):
    workdir = sweep()
    config = workdir / "trials" / f"{0:012x}" / "config.json"
    changed = json.loads(config.read_text()) | {"report": {"baseline": "Adm"}}
    write_json(config, changed)
    with pytest.raises(ValueError, match="there are: AdamW, AdamP"):
        write_report(workdir)
    for path in workdir.glob("trials/*/result.json"):
        path.unlink()
    with pytest.raises(ValueError, match="0 of 72 trials done"):
        write_report(workdir)


def test_the_command_ends_with_a_status_and_one_line(sweep, tmp_path):
    def command(workdir):
        return subprocess.run(
            [sys.executable, "-m", "gnomon.experiments.report", f"--workdir={workdir}"],
            capture_output=True,
            text=True,
            check=False,
        )

    missing = command(tmp_path / "absent")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: --workdir=")
    assert len(missing.stderr.splitlines()) == 1
    good = command(sweep())
    assert (good.returncode, good.stderr) == (0, "")
    assert "AdamP is 1.3" in good.stdout
