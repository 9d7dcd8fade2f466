"""The frame of the cockpit page: headings, legend, style sheet."""

import html
from collections.abc import Mapping, Sequence

from gnomon.dynamics._drawing import Look

_STYLES = """
:root {
  color-scheme: light dark;
  --paper: #f6f7f8; --ink: #1c2025; --soft: #59616b; --rule: #d9dde2;
  --card: #ffffff; --grid: #e7e9ec; --warn: #b3341c;
  --k0: #0072b2; --k1: #d55e00; --k2: #009e73; --k3: #b8528f; --k4: #c98a00;
  --k5: #2fa0d8; --k6: #7a6000; --k7: #6a51a3; --k8: #8c3b2a; --k9: #5b7f1d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --ink: #e8eaed; --soft: #a3abb5; --rule: #333a42;
    --card: #1c2126; --grid: #2b3138; --warn: #ff8a70;
    --k0: #4aa8e0; --k1: #f08a3c; --k2: #35c79c; --k3: #e08fc0; --k4: #e8b13a;
    --k5: #8ed0f5; --k6: #c2a83e; --k7: #ab97e6; --k8: #d98272; --k9: #a3c95c;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "Liberation Sans", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 32px 24px 56px; }
h1 { font-size: clamp(1.4rem, 1.1rem + 1.4vw, 2rem); line-height: 1.2; margin: 0;
  font-weight: 600; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; font-weight: 650; margin: 36px 0 12px; }
h3 { font-size: 0.98rem; font-weight: 650; margin: 0; }
p { margin: 0; color: var(--soft); }
.about { margin: 4px 0 18px; }
.panels { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.panel { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 12px 14px 10px; min-width: 0; display: flex; flex-direction: column; }
.panel p { font-size: 0.86rem; line-height: 1.35; margin-bottom: 8px; }
.panel .picture { margin-top: auto; }
.wide { grid-column: 1 / -1; }
.legend { display: flex; flex-wrap: wrap; gap: 3px 16px; font-size: 0.86rem; }
.key { display: inline-flex; align-items: center; gap: 6px; margin-right: 14px;
  font-size: 0.86rem; }
.key i { width: 20px; border-top: 3px solid currentColor; }
.key i.dashed { border-top: 2px dashed currentColor; }
.key i.dotted { border-top: 3px dotted currentColor; }
.picture > svg { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
  "Liberation Sans", Arial, sans-serif; fill: var(--soft); }
.grid { stroke: var(--grid); } .axis, .tick { stroke: var(--soft); opacity: 0.6; }
.trace path { fill: none; stroke: currentColor; stroke-width: 1.3;
  stroke-linecap: round; stroke-linejoin: round; }
.trace.whole path { stroke-width: 2.4; }
.trace.dashed path { stroke-dasharray: 5 4; stroke-width: 1.2; stroke-linecap: butt; }
.trace.dotted path { stroke-dasharray: 1 3; }
.trace path.dots { stroke-width: 4; stroke-dasharray: none; stroke-linecap: round; }
.trace path.band { fill: currentColor; fill-opacity: 0.16; stroke: none; }
svg:has(.trace:hover) .trace:not(:hover) { opacity: 0.15 !important; }
.heat { display: grid; grid-template-columns: fit-content(40%) minmax(0, 1fr);
  gap: 1px 10px; align-items: center; font-size: 0.8rem; line-height: 16px; }
.heat .name { text-align: right; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; color: var(--soft); }
.heat svg { display: block; width: 100%; height: 16px; shape-rendering: crispEdges;
  background: var(--grid); }
.ends, .scale { display: flex; justify-content: space-between; color: var(--soft); }
.scale { gap: 10px; align-items: center; max-width: 420px; margin: 8px 0 4px auto;
  font-size: 0.8rem; }
.scale i { flex: 1; height: 8px; border-radius: 4px; }
.absent { color: var(--soft); padding-left: 1.2em; font-size: 0.94rem; }
@media (max-width: 520px) { main { padding: 20px 12px 40px; }
  .panel { padding: 10px; } }
@media print { body { background: #fff; } .panel { break-inside: avoid; } }
"""


def page(
    title: str,
    about: str,
    legend: Sequence[tuple[str, Look]],
    sections: Mapping[str, Sequence[tuple[str, str, str]]],
    absent: Sequence[tuple[str, str]],
) -> str:
    """Puts the panels into a page.

    Args:
      title: the heading.
      about: a line below it.
      legend: the kinds of layers, each with the look of its first.
      sections: by heading, the panels: title, explanation, and the picture as HTML.
      absent: the panels that are left out, each with the reason.

    Returns:
      The text of an HTML file that loads nothing from anywhere.
    """
    words = html.escape(title)
    body = [f"<h1>{words}</h1>", f'<p class="about">{html.escape(about)}</p>']
    if legend:
        body.append(_legend(legend))
    for heading, panels in sections.items():
        cards = "\n".join(_card(*panel) for panel in panels)
        body.append(
            f'<section>\n<h2>{html.escape(heading)}</h2>\n<div class="panels">\n'
            f"{cards}\n</div>\n</section>"
        )
    if absent:
        items = "\n".join(
            f"<li>{html.escape(name)}: {html.escape(why)}.</li>" for name, why in absent
        )
        body.append(
            f'<section>\n<h2>Left out</h2>\n<ul class="absent">\n{items}\n</ul>\n'
            "</section>"
        )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{words}</title>\n<style>{_STYLES}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _legend(legend: Sequence[tuple[str, Look]]) -> str:
    keys = [
        '<span class="key"><i style="color:var(--ink)"></i><b>whole model</b></span>',
        *(
            f'<span class="key"><i class="{look.style}" style="color:{look.color}"></i>'
            f"{html.escape(name)}</span>"
            for name, look in legend
        ),
    ]
    return (
        f'<div class="legend">{"".join(keys)}</div>\n<p class="about">Layers of a kind'
        " grow fainter with depth; point at a line for its name.</p>"
    )


def _card(title: str, explanation: str, picture: str) -> str:
    wide = " wide" if picture.startswith('<div class="heat"') else ""
    return (
        f'<article class="panel{wide}">\n<h3>{html.escape(title)}</h3>\n'
        f"<p>{html.escape(explanation)}</p>\n"
        f'<div class="picture">{picture}</div>\n</article>'
    )
