/** The page's look: one column, light or dark as the reader has it, light on paper. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --paper: #fff;
  --ink: #1b1f24;
  --faint: #57606a;
  --line: #d8dee4;
  --soft: #f6f8fa;
  --mark: #0b5cad;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0e1116;
    --ink: #e6edf3;
    --faint: #9aa4af;
    --line: #30363d;
    --soft: #161b22;
    --mark: #6cb2ff;
  }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #fff;
    --ink: #000;
    --faint: #444;
    --line: #bbb;
    --soft: #fff;
    --mark: #0b5cad;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0;
  background: var(--paper);
  color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
}
main { max-width: 768px; margin: 0 auto; padding: 24px 24px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
p { margin: 0 0 10px; }
.faint, figcaption { color: var(--faint); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td {
  padding: 5px 0 5px 14px;
  text-align: right;
  border-bottom: 1px solid var(--line);
  vertical-align: top;
}
th { font-weight: 600; color: var(--faint); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.result td { font-weight: 600; }
table.pairs td { text-align: left; overflow-wrap: anywhere; }
table.pairs td:first-child {
  color: var(--faint);
  white-space: nowrap;
  width: 1%;
  padding-right: 10px;
}
figure { margin: 14px 0 0; break-inside: avoid; }
figcaption { margin: 0 0 6px; }
svg {
  display: block;
  width: 100%;
  height: auto;
  font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
}
svg text { fill: var(--faint); }
svg .name { fill: var(--ink); }
.grid { stroke: var(--line); }
.line { fill: none; stroke: var(--mark); stroke-width: 1.5; stroke-linejoin: round; }
.mark, .cell { fill: var(--mark); }
.cell.none { fill: none; stroke: var(--line); }
.hollow { fill: var(--paper); stroke: var(--mark); stroke-width: 1.5; }
.stem { stroke: var(--mark); stroke-width: 1.5; }
details { margin: 8px 0 0; }
summary { cursor: pointer; color: var(--faint); }
details table { font-size: 13px; }
.scroll { overflow-x: auto; }
pre {
  background: var(--soft);
  border: 1px solid var(--line);
  border-radius: 6px;
  padding: 10px 12px;
  white-space: pre-wrap;
  overflow-wrap: anywhere;
  font-size: 13px;
  line-height: 1.4;
}
footer { margin-top: 36px; color: var(--faint); font-size: 13px; }
/* On a phone tables and charts keep a size that can be read, and scroll inside the page. */
@media screen and (max-width: 560px) {
  main { padding: 16px 16px 32px; }
  figure, .scroll { overflow-x: auto; }
  svg { min-width: 540px; }
  th, td { padding-left: 10px; }
}
@media print {
  main { max-width: none; padding: 0; }
  details:not([open]) { display: none; }
  svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2 { break-after: avoid; }
}
`
