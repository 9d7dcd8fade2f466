"""One self-contained HTML page: verdict, pictures, tables, method, provenance."""

import html
import re
from collections.abc import Mapping, Sequence

from gnomon.experiments.drawing import sheet
from gnomon.experiments.records.provenance import Provenance
from gnomon.experiments.report import budgets, differences_words, verdict
from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.budgets import Sizes
from gnomon.experiments.report.curves import Curve, left_out
from gnomon.experiments.report.differences import Differences
from gnomon.experiments.report.figure_laws import law as law_figure
from gnomon.experiments.report.figure_laws import performance_profiles
from gnomon.experiments.report.figure_losses import loss_against_compute, loss_curves
from gnomon.experiments.report.figure_rates import learning_rates
from gnomon.experiments.report.figure_sizes import isoflops, worths
from gnomon.experiments.report.figure_speedups import speedups
from gnomon.experiments.report.law import Law, NoLaw
from gnomon.experiments.report.law import sentence as law_sentence
from gnomon.experiments.report.look import looks
from gnomon.experiments.report.profiles import SHARE, Profiles
from gnomon.experiments.report.styles import STYLES
from gnomon.experiments.report.text import (
    Line,
    comparison_rows,
    lines_of,
    profile_rows,
    tuned_rows,
)
from gnomon.scaling.comparison.resampling import widening
from gnomon.scaling.comparison.scale import Scale

_NUMERIC = re.compile(r"^[<>+\-−]?[\d.,]+|^\[|^-$|^(more|less) than ")


def page(
    analysis: Analysis,
    provenance: Provenance,
    curves: Mapping[tuple[str, Scale], Curve | None],
    law: Law | NoLaw | None = None,
    found: Profiles | None = None,
    sizes: Mapping[str, Sizes] | None = None,
    joint: Differences | None = None,
    laws: Sequence[Sequence[str]] = (),
) -> str:
    """Writes the page.

    Args:
      analysis: the numbers.
      provenance: where they come from.
      curves: loss curves of the best settings by optimizer and scale; None where too
        little was recorded for one.
      law: the baseline's, where there is one.
      found: times to targets, for a sweep over several workloads.
      sizes: losses by size and budget, for a sweep of IsoFLOP curves.
      joint: the joint law of all optimizers, where there is one.
      laws: rows of each optimizer's own law, beside the sizes.

    Returns:
      The text of an HTML file that loads nothing from anywhere.
    """
    title = f"{' / '.join(analysis.labels)}: which is faster?"
    enter = "“as given”" if analysis.source.given else "“tuned”"
    body = [
        _verdict(analysis, provenance),
        *([_joint(analysis, joint)] if joint is not None else []),
        *([_sizes(analysis, sizes, laws)] if sizes else []),
        *_pictures(analysis, curves),
        *([_profiles(analysis, found)] if found is not None else []),
        *([_law(analysis, law)] if law is not None else []),
        _section(
            "Tuned settings",
            f"One row for each optimizer and model. Only rows that say {enter} enter a"
            " comparison; ± is the standard deviation over seeds.",
            _table(tuned_rows(analysis)),
        ),
    ]
    if analysis.comparisons:
        body.append(
            _section(
                "Effective speedup in numbers",
                f"Above 1× the optimizer is faster than {analysis.baseline}; a negative"
                " loss difference means that it ends lower. A star marks what is"
                f" extrapolated beyond {analysis.baseline}'s own runs.",
                _table(comparison_rows(analysis)),
            )
        )
    body += [_method(analysis), _provenance(provenance)]
    return sheet.document(title, STYLES, "\n".join(body))


def _text(words: str) -> str:
    """Escapes for HTML, and writes factors with a multiplication sign."""
    words = html.escape(words).replace(" %", "\N{NO-BREAK SPACE}%")
    return re.sub(r"(\d\.\d+)x\b", r"\1×", words)


def _section(heading: str, lead: str, content: str) -> str:
    return (
        f"<section>\n<h2>{_text(heading)}</h2>\n<p class=lead>{_text(lead)}</p>\n"
        f"{content}\n</section>"
    )


def _verdict(analysis: Analysis, provenance: Provenance) -> str:
    parts = []
    if not provenance.complete:
        parts.append(
            f"<p class=provisional>Provisional: {_text(provenance.done)}. The numbers"
            " below will change.</p>"
        )
    parts.append(f"<p class=kicker>{_kicker(analysis, provenance)}</p>")
    first, *others = map(_emphasized, lines_of(analysis))
    parts.append(f"<h1>{first}</h1>")
    parts += [f"<p class=second>{line}</p>" for line in others]
    notes = [*provenance.notes, *verdict.notes(analysis)]
    if notes:
        items = "".join(f"<li>{_text(note)}</li>" for note in notes)
        parts.append(f"<ul class=notes>{items}</ul>")
    return "<header>\n" + "\n".join(parts) + "\n</header>"


def _kicker(analysis: Analysis, provenance: Provenance) -> str:
    seeds = sorted({len(cell.seeds) for cell in analysis.cells})
    names = ", ".join(_text(label) for label in analysis.labels)
    span = "–".join(str(n) for n in sorted({seeds[0], seeds[-1]}))
    plural = "s" if seeds[-1] > 1 else ""
    return f"{names} · {_text(provenance.done)} · {span} seed{plural}"


def _emphasized(line: Line) -> str:
    """Sets the number of a verdict and its interval apart; a line without has none."""
    words = _text(line.words)
    if not line.decided:
        return words
    return re.sub(
        r"((?:(?:more|less) than )?[\d.]+×\*?)( \[[^\]]*\])?",
        lambda m: (
            f"<b>{m[1]}</b>" + (f"<span class=interval>{m[2]}</span>" if m[2] else "")
        ),
        words,
        count=1,
    )


def _legend(analysis: Analysis) -> str:
    items = [
        sheet.key(label, look.color) for label, look in looks(analysis.labels).items()
    ]
    return f"<div class=legend>{''.join(items)}</div>"


def _panels(analysis: Analysis, svgs: Sequence[str], legend: bool = True) -> str:
    cards = "".join(f"<div class=panel>{svg}</div>" for svg in svgs)
    kind = "" if len(svgs) > 1 else " class=lone"
    keys = _legend(analysis) if legend else ""
    return f"<figure{kind}>{keys}<div class=panels>{cards}</div></figure>"


def _picture(analysis: Analysis, svg: str) -> str:
    return f"<figure>{_legend(analysis)}{svg}</figure>"


def _pictures(
    analysis: Analysis, curves: Mapping[tuple[str, Scale], Curve | None]
) -> Sequence[str]:
    base = analysis.baseline
    pair = []
    if svg := speedups(analysis):
        pair.append(
            _section(
                "Effective speedup",
                f"How to read this: right of the line at 1× the optimizer needs less"
                f" compute than {base} for the same loss; a bar (the 95 % interval)"
                " that touches the line shows no difference. A hollow mark and a star:"
                f" extrapolated beyond {base}'s own runs.",
                _picture(analysis, svg),
            )
        )
    if svg := loss_against_compute(analysis):
        pair.append(
            _section(
                "Tuned loss against compute",
                "How to read this: lower is better and further left is cheaper; bands"
                " span the seeds, hollow marks are settings that are not tuned.",
                _picture(analysis, svg),
            )
        )
    found = [f"<div class=pair>{''.join(pair)}</div>"] if pair else []
    if svgs := learning_rates(analysis):
        found.append(
            _section(
                "Is every optimizer tuned?",
                "How to read this: each line should dip inside its grid; the large mark"
                " is the optimum (hollow where the grid does not show it is one), dots"
                " are seeds, and at the top edge × marks a diverged setting and ▲ one"
                " off the scale.",
                _panels(analysis, svgs),
            )
        )
    svgs, alone = loss_curves(analysis, curves)
    without = [*left_out(curves), *alone]
    missing = f" Not drawn: {'; '.join(without)}." if without else ""
    if svgs or missing:
        found.append(
            _section(
                "Loss curves of the best settings",
                "How to read this: only the right end counts for the verdict, since"
                f" learning rates decay over the run; bands span the seeds.{missing}",
                _panels(analysis, svgs) if svgs else "",
            )
        )
    return found


def _profiles(analysis: Analysis, found: Profiles) -> str:
    svg = performance_profiles(found)
    left_out = "".join(f" {note}" for note in found.notes)
    return _section(
        "Time to target",
        f"How to read this: the steps each tuned optimizer takes to the loss that"
        f" {analysis.baseline} has after {SHARE:.0%} of its run; a line further up and"
        " left is faster on more workloads, and the score is the area under it."
        + left_out,
        f"{_picture(analysis, svg)}\n{_table(profile_rows(found))}",
    )


def _sizes(
    analysis: Analysis, found: Mapping[str, Sizes], laws: Sequence[Sequence[str]]
) -> str:
    """Parabolas, the frontier, and each optimizer's own law."""
    own = ""
    if len(laws) > 1:
        own = (
            "<p>The law L = E + A / N^alpha + B / D^beta of each by itself; such laws"
            f" do not rank optimizers.</p>\n{_table(laws)}\n"
        )
    return _section(
        "Best size for a budget",
        "How to read this: a curve is one budget of compute, spent on models of several"
        " sizes, and a star its fitted minimum. "
        + budgets.sentence(found)
        + " Such vertices are biased where sizes do not lie evenly around the best.",
        f"{_panels(analysis, isoflops(found, analysis.metric), legend=False)}\n{own}"
        f"<details><summary>Best sizes in numbers</summary>\n"
        f"{_table(budgets.rows(found))}\n</details>",
    )


def _joint(analysis: Analysis, found: Differences) -> str:
    """The law that all optimizers share but for what they make of N and D."""
    words = differences_words.sentences(found)
    notes = "".join(
        f"<li>{_text(note)}</li>" for note in differences_words.cautions(found)
    )
    paragraphs = "".join(f"<p>{_text(sentence)}</p>" for sentence in words)
    rows = differences_words.rows(found)
    # Two tables, of which a page shows all columns.
    worth, paces = (
        [[row[0], *row[part]] for row in rows] for part in differences_words.PARTS
    )
    return _section(
        "One law for all",
        "How to read this: under one law with a shared floor and exponents, fitted to"
        f" differences at equal size and length, a token (full mark) or parameter"
        f" (hollow) is worth so many of {analysis.baseline}’s; a bar that touches 1×"
        " shows no difference.",
        f"<figure class=lone>{worths(found, analysis.labels)}</figure>\n{paragraphs}\n"
        f"{_table(worth)}\n{_table(paces)}\n<ul class=notes>{notes}</ul>",
    )


def _law(analysis: Analysis, law: Law | NoLaw) -> str:
    """The law with its picture, and the checklist behind a click."""
    if isinstance(law, NoLaw):
        words = law_sentence(law, analysis.baseline)
        return _section(f"The law of {analysis.baseline}", words, "")
    rows = [["part", "topic", "answer", "reservation"]]
    rows += [[item.part, item.topic, item.answer, item.concern] for item in law.items]
    svg = law_figure(law.fit, analysis.baseline, analysis.metric)
    return _section(
        f"The law of {analysis.baseline}",
        law_sentence(law, analysis.baseline),
        f"<figure class=lone>{svg}</figure>\n<details><summary>What a reader needs to"
        f" judge this fit (the checklist of Li et al. 2025)</summary>\n{_table(rows)}\n"
        "</details>",
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *body = rows
    numeric = [
        all(_NUMERIC.match(row[i]) for row in body if row[i])
        for i in range(len(heading))
    ]

    def line(row: Sequence[str], tag: str) -> str:
        cells = [
            f"<{tag}{' class=number' if number else ''}>{_text(cell)}</{tag}>"
            for cell, number in zip(row, numeric, strict=True)
        ]
        overall = " class=overall" if row[1].startswith("all (") else ""
        return f"<tr{overall}>{''.join(cells)}</tr>"

    lines = "\n".join(line(row, "td") for row in body)
    return (
        f"<div class=scroll><table>\n<thead>{line(heading, 'th')}</thead>\n"
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


_TABLE = """
<p><b>The table.</b> The runs were read from a table of others. What it does not tell is
said above, and is not claimed: an optimizer with one run at a scale is taken as given
there, since nothing shows how it was tuned; runs whose seeds have equal names are taken
as paired. {counted}</p>"""

_BETWEEN = """
The tuned rate and loss are read between the points of the grid, off a parabola in the
logarithm of the learning rate through the best point and its neighbor. Of the two
curvatures that the next points on both sides tell the smaller is taken, since beside a
divergence a curve is no parabola; where a side has no next point, no more than a
quarter of the neighbor’s excess is gained."""


_POWER = """ Where its column says “power law”, a floor and a power of compute are
fitted to the four or more lengths, each loss alike, and the compute is where that law
has the loss; else:"""


def _method(analysis: Analysis) -> str:
    base = _text(analysis.baseline)
    metric = _text(analysis.metric.replace("_", " "))
    seeds = sorted({len(cell.seeds) for cell in analysis.cells if len(cell.seeds) > 1})
    factors = ", ".join(f"{widening(n):.2f} for {n} seeds" for n in seeds)
    widened = f" (here {factors})" if seeds else ""
    read = _BETWEEN if any(cell.interpolate for cell in analysis.cells) else ""
    source = analysis.source
    lengths, sizes = ("steps", "scales") if source.swept else ("lengths", "sizes")
    table = "" if source.swept else _TABLE.format(counted=_text(source.counted))
    power = _POWER if any(one.power for one in analysis.comparisons) else ""
    counted = """Compute is the model’s training FLOPs: what the optimizer itself adds
to a step, and wall time, are not in it."""
    counted = counted if source.swept else ""
    return f"""<section class=method>
<h2>Method</h2>{table}
<p><b>Tuned.</b> At every scale each optimizer takes the setting with the smallest mean
final {metric} over its seeds. A setting that diverged for any seed cannot be chosen.
If the best learning rate is the first or last of its grid, a better one may lie
outside: the optimizer is then called untuned there and is not compared.{read}</p>
<p><b>Effective speedup.</b> The compute {base} needs to reach the optimizer’s tuned
loss, divided by the compute the optimizer used. {base}’s need is read off its own tuned
losses: against the lengths of training of the same model where several were run
(“{lengths}”), otherwise against the sizes of the model (“{sizes}”).{power} Between its
runs the loss is taken as linear in the logarithm of compute, after isotonic regression
has made it decrease; with runs a factor of two apart this reads a gain of 1.3× as
1.32×. Beyond its runs the last segment continues (“extrapolated”, marked with a star,
which understates a gain, since loss curves flatten); more than a factor of two beyond,
only a bound is given. {counted}</p>
<p><b>Interval.</b> A bootstrap draws the seeds 2,000 times with replacement, the same
draw for all optimizers and scales, since equal seeds share initialization and data
order; in each draw every optimizer is tuned anew. The 2.5 % and 97.5 % percentiles of
the log speedup are too close together for few seeds, so their distances from the
center are widened{widened}, by √(n/(n−1)) times the ratio of Student’s to the normal
quantile, which turns the interval of a mean into the t interval (Hesterberg 2015); for
two seeds, whose percentiles are the seeds themselves, by Student’s quantile. Each
interval is at 95 % by itself. p-values follow from the same draws and Student’s
distribution, and are corrected by Holm’s procedure (1979): over the optimizers where
all scales are taken together, and over all comparisons at single scales. An optimizer
is called faster or slower without reserve only if its corrected p-value is below
0.05.</p>
<p><b>Overall and trend.</b> The overall speedup is the geometric mean over scales. The
trend is the least-squares slope of log speedup against log parameters among runs of
equal length, with an interval from the same draws.</p>
</section>"""


def _provenance(provenance: Provenance) -> str:
    items = "\n".join(
        f"<dt>{_text(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in provenance.facts.items()
    )
    return f"<section>\n<h2>Provenance</h2>\n<dl>\n{items}\n</dl>\n</section>"
