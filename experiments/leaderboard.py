"""The results page: every stored study, its verdicts, and how each row was made.

    python -m gnomon.experiments.leaderboard [--add=WORKDIR --name=NAME] [--docs=docs]
    python -m gnomon.experiments.leaderboard --add=TABLE --name=NAME [--columns=...]

writes ``docs/leaderboard.md`` and its pictures from the run tables in
``docs/results/``; with ``--add`` it first stores there the table and the report of a
finished sweep, or of a table that others made (``docs/run_table.md``). Every number is
computed anew from the stored trials.
"""

import functools
import shutil
import tempfile
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from gnomon.experiments.console import command
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.shown import is_name, markdown
from gnomon.experiments.drawing.canvas import standalone
from gnomon.experiments.exchange.table import load_table
from gnomon.experiments.records.files import write_text
from gnomon.experiments.records.tables import Stored, read, store, write
from gnomon.experiments.report import differences_words, factors, verdict
from gnomon.experiments.report.analysis import Analysis, analyze
from gnomon.experiments.report.compose import compose
from gnomon.experiments.report.differences import differences
from gnomon.experiments.report.figure_speedups import speedups
from gnomon.experiments.report.foreign import material, source_of, stored
from gnomon.experiments.report.text import verdict_lines
from gnomon.scaling.comparison.cell import why

HEADING = (
    "optimizer",
    "speedup",
    "95 % interval",
    "per doubling of parameters",
    "scales",
    "seeds",
    "rates tried",
    "verdict",
)


def study(stored: Stored, page: bool) -> tuple[str, str]:
    """A study's part of the page, and its picture as SVG ("" where it has none).

    Args:
      stored: its table.
      page: whether its full report lies beside the table.
    """
    report = stored.report
    analysis = analyze(
        stored.columns,
        report["baseline"],
        report["metric"],
        report["interpolate"],
        source_of(report),
    )
    facts = dict(stored.facts)
    parts = [f"## {markdown(stored.name)}"]
    parts.append(markdown(" ".join(verdict_lines(analysis)[:1])))
    picture = speedups(analysis)
    if picture:
        parts.append(f"![Effective speedup of each optimizer]({_link(stored, 'svg')})")
    parts.append(_table(analysis))
    joint = differences(stored.columns, analysis)
    if joint is not None:
        said = [differences_words.INTRODUCTION, *differences_words.sentences(joint)]
        parts.append(markdown(" ".join(said)))
    links = [f"[run table]({_link(stored, 'csv')})"]
    if page:
        links.insert(0, f"[full report]({_link(stored, 'html')})")
    parts.append(" · ".join(links))
    parts.append(
        "\n".join(f"- {markdown(name)}: {markdown(v)}" for name, v in facts.items())
    )
    return "\n\n".join(parts), picture


def _link(stored: Stored, ending: str) -> str:
    return f"results/{urllib.parse.quote(stored.name)}.{ending}"


def _table(analysis: Analysis) -> str:
    rows: list[tuple[str, ...]] = [HEADING, ("---",) * len(HEADING)]
    by_label = {summary.label: summary for summary in analysis.summaries}
    standing = {analysis.baseline: (False, False, 0.0)}
    standing |= {label: summary.standing for label, summary in by_label.items()}
    for label in sorted(analysis.labels, key=lambda label: standing[label]):
        own = [cell for cell in analysis.cells if cell.label == label]
        tried = sorted({len(cell.settings) for cell in own})
        budget = "–".join(str(n) for n in sorted({tried[0], tried[-1]}))
        budget = "not told" if analysis.source.given else budget
        seeds = str(min(len(cell.seeds) for cell in own))
        if label == analysis.baseline:
            said = "the baseline"
            for cell in own:
                if cell.tuned is None:
                    said += f"; {why(cell).removeprefix('is ')} at {cell.scale.name}"
            rows.append((label, "1", "", "", str(len(own)), seeds, budget, said))
            continue
        summary = by_label[label]
        if summary.reason:
            said = f"no speedup: {summary.reason}"
            rows.append((label, "-", "-", "-", "0", seeds, budget, said))
            continue
        said = verdict.call(summary.known, summary.seeds, p=summary.p)
        number, spread = factors.overall(summary)
        beside = verdict.extrapolation(summary, analysis.baseline)
        trend = "-"
        if summary.slope == summary.slope:
            trend = " ".join(factors.slope(summary))
        rows.append(
            (
                label,
                number,
                spread,
                trend,
                f"{summary.scales[0]} of {summary.scales[1]}",
                seeds,
                budget,
                f"{said}; {beside}" if beside else said,
            )
        )
    cells = [rows[:2], [tuple(markdown(cell) for cell in row) for row in rows[2:]]]
    return "\n".join(f"| {' | '.join(row)} |" for part in cells for row in part)


def build(docs: Path) -> Path:
    """Writes the page from the tables in ``docs/results``.

    Raises:
      UserError: there is none.
    """
    tables = sorted((docs / "results").glob("*.json"))
    if not tables:
        raise UserError(
            f"--docs={docs}: no run table in {docs / 'results'}; store one with"
            " --add=WORKDIR --name=NAME"
        )
    parts = [
        "# Leaderboard",
        "An effective speedup is the compute that the tuned baseline needs to reach an"
        " optimizer's tuned loss, over the compute that the optimizer used, as a"
        " geometric mean over the scales. Intervals are over seeds; verdicts are"
        " corrected for the number of optimizers. A star marks what lies beyond the"
        " baseline's own runs, where its curve is only continued. This page is"
        " written by `python -m gnomon.experiments.leaderboard` from the run tables in"
        " `results/`.",
    ]
    for path in tables:
        stored = read(path)
        text, picture = study(stored, path.with_suffix(".html").exists())
        if picture:
            write_text(path.with_suffix(".svg"), standalone(picture))
        parts.append(text)
    write_text(docs / "leaderboard.md", "\n\n".join(parts) + "\n")
    return docs / "leaderboard.md"


def add(
    runs: Path, docs: Path, name: str, columns: str = "", baseline: str = ""
) -> None:
    """Stores the table and the report of a finished sweep, or of a table of others.

    Args:
      runs: the sweep's folder, whose report is taken where it has been written; or a
        run table, whose report is written.
      docs: the folder of the page.
      name: what the table is called, a plain file name.
      columns: which of the table's columns are which.
      baseline: the label of the table to compare with.

    Raises:
      UserError: the name is none, trials are not done, or the table cannot be read.
    """
    if not is_name(name):
        raise UserError(
            f"--name={name}: give a plain name of letters, digits, spaces and ._+-,"
            " without a folder"
        )
    results = docs / "results"
    if runs.exists() and not (runs / "trials").is_dir():
        made = material(load_table(runs, columns), baseline)
        with tempfile.TemporaryDirectory() as folder:
            compose(made, Path(folder))
            page = (Path(folder) / "report.html").read_text()
        write(stored(name, made), results)
        write_text(results / f"{name}.html", page)
        return
    if columns or baseline:
        raise UserError(
            "--columns and --baseline go with a table; a sweep says its own"
        )
    path = store(runs, results, name)
    page_of_sweep = runs / "report.html"
    if page_of_sweep.exists():
        shutil.copyfile(page_of_sweep, path.with_suffix(".html"))


def main(values: flags.FlagValues) -> None:
    """The command."""
    if (values.add is None) != (values.name is None):
        raise UserError("--add and --name go together; give both or none")
    if not values.docs:
        raise UserError("--docs: empty; give the folder of the page")
    if values.add is not None:
        add(
            Path(values.add),
            Path(values.docs),
            values.name,
            values.columns,
            values.baseline,
        )
    print(build(Path(values.docs)))


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    string("docs", "docs", "The folder of the page.")
    string("add", None, "A finished sweep's folder, or a run table, to be stored.")
    string("name", None, "The name it is stored under.")
    string("columns", "", "Which columns of the table are which: label=optimizer,...")
    string("baseline", "", "The label of the table to compare with.")


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command.run(main, define, __doc__, argv)


if __name__ == "__main__":
    run()
