"""The rules of a report's page beside those that all pages share."""

STYLES = """
:root { --notice: #fff3d6; --notice-ink: #6b4a00; }
@media (prefers-color-scheme: dark) {
  :root { --notice: #3d3110; --notice-ink: #ffdf94; }
}
header { max-width: 940px; }
h1 { font-size: clamp(1.6rem, 1.1rem + 2.3vw, 2.6rem); font-weight: 500;
  margin: 0.2em 0 0.5em; text-wrap: balance; }
h1 b { font-weight: 750; white-space: nowrap; }
.interval { color: var(--soft); font-weight: 400; white-space: nowrap; }
.kicker { color: var(--soft); margin: 0; font-size: 0.95rem; }
.second { font-size: 1.15rem; line-height: 1.45; margin: 0 0 0.5em; }
.second b { font-weight: 600; }
.notes { color: var(--soft); font-size: 0.95rem; padding-left: 1.2em;
  margin: 1.2em 0 0; }
.provisional { background: var(--notice); color: var(--notice-ink);
  padding: 8px 14px; border-radius: 8px; font-weight: 600; margin: 0 0 20px; }
section { margin-top: 44px; }
h2 { margin: 0 0 4px; }
.lead { color: var(--soft); margin: 0 0 14px; max-width: 46em; font-size: 0.97rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; column-gap: 20px; }
.pair section {
  display: grid; grid-template-rows: subgrid; grid-row: span 3; margin-bottom: 0;
}
.pair figure { align-self: start; }
.pair section:only-child { grid-column: 1 / -1; max-width: 640px; }
figure { margin: 0; background: var(--card); border-radius: 10px;
  padding: 14px 16px 10px; border: 1px solid var(--rule); }
figure.lone { max-width: 540px; }
.legend { margin-bottom: 8px; }
.scroll { overflow-x: auto; }
.scroll + .scroll { margin-top: 14px; }
table { border-collapse: collapse; font-size: 0.92rem; width: 100%; }
th, td { text-align: left; padding: 7px 18px 7px 0; vertical-align: top;
  border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 550; }
td:last-child { white-space: normal; min-width: 14em; padding-right: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.overall td { font-weight: 650; }
.method p { max-width: 46em; margin: 0 0 0.8em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 22px;
  margin: 8px 0; font-size: 0.92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, "SF Mono", Menlo,
  Consolas, "Liberation Mono", monospace; font-size: 0.86rem; }
@media (max-width: 820px) {
  .pair { grid-template-columns: 1fr; }
  .pair section { display: block; }
  section, .pair section { margin-top: 36px; }
  figure { padding: 12px 10px 8px; }
}
@media (max-width: 520px) { dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 10px; } }
"""
