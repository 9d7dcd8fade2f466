"""The frame of a page: one HTML file, light and dark, that loads nothing."""

import html

from gnomon.experiments.drawing.colors import variable, variables

_FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",'
    ' "Liberation Sans", Arial, sans-serif'
)
_STYLES = f"""{variables()}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 {_FONT}; }}
main {{ max-width: 1160px; margin: 0 auto; padding: 36px 24px 60px; }}
h1 {{ line-height: 1.2; letter-spacing: -0.015em; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; line-height: 1.3; font-weight: 650; }}
.panels {{ display: grid; gap: 14px 18px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }}
.legend {{ display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 0.9rem; }}
.key {{ display: inline-flex; align-items: center; gap: 7px; }}
.key i {{ width: 20px; border-top: 3px solid currentColor; }}
.key i.dashed {{ border-top: 2px dashed currentColor; }}
.key i.dotted {{ border-top: 3px dotted currentColor; }}
svg[role=img] {{ display: block; width: 100%; height: auto; }}
svg text {{ font-family: {_FONT} !important; }}
svg:has(.trace:hover) .trace:not(:hover) {{ opacity: 0.15; }}
@media (max-width: 820px) {{ main {{ padding: 24px 16px 48px; }} }}
@media print {{ body {{ background: #fff; }} section {{ break-inside: avoid; }} }}
"""


def document(title: str, styles: str, body: str) -> str:
    """The text of a page.

    Args:
      title: plain text.
      styles: rules beside those that all pages share.
      body: what the page holds, as HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLES}{styles}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def key(name: str, color: str, style: str = "") -> str:
    """An entry of a legend."""
    return (
        f'<span class="key"><i class="{style}" style="color:{variable(color)}"></i>'
        f"{html.escape(name)}</span>"
    )
