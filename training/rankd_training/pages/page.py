"""The frame of every page: one HTML file that needs nothing else, for light, dark and paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rankd_training.pages.svg import colour

__all__ = ["facts", "figure", "page", "section", "table", "tiles", "warnings"]

# Eight hues, told apart in both schemes; the first three stay apart for most colour-blind readers.
_STYLE = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--ink:#1b2330;--muted:#5f6b7d;--rule:#e2e6ec;
--grid:#edf0f4;--c1:#2f6bd0;--c2:#d9741a;--c3:#1f9575;--c4:#a8479b;--c5:#7256d6;--c6:#a98500;--c7:#c43c4a;
--c8:#3d8aa8}
@media(prefers-color-scheme:dark){:root{--bg:#0e1218;--card:#161b23;--ink:#e7ebf1;--muted:#98a3b5;
--rule:#28303c;--grid:#222936;--c1:#6ea2ff;--c2:#f3a05a;--c3:#4cc9a4;--c4:#d98bcd;--c5:#a893ff;--c6:#d9b84a;
--c7:#f0808a;--c8:#77bfdb}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:18px;margin:40px 0 4px;letter-spacing:-.005em}
h3{font-size:14px;margin:0;font-weight:600}
p{margin:0 0 10px;max-width:78ch}
.muted,.note{color:var(--muted)}
.note{font-size:13px;margin:2px 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:14px;margin:22px 0 0}
.tile,figure{background:var(--card);border:1px solid var(--rule);border-radius:10px}
.tile{padding:14px 16px}
.tile b{display:block;font-size:24px;line-height:1.25;font-weight:650;letter-spacing:-.01em}
.tile span{display:block;color:var(--muted);font-size:13px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:16px;margin-top:14px}
.figures.wide{grid-template-columns:1fr}
.halos{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:16px;margin-top:14px}
figure{margin:0;padding:14px 16px 10px;break-inside:avoid}
figure svg{display:block;width:100%;height:auto;margin-top:8px}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:13px;color:var(--muted);margin-top:4px}
.legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--ink)}
svg .tick,svg .axis{fill:var(--muted);font-size:11.5px}
svg .mid{text-anchor:middle}svg .end{text-anchor:end}
.grid{stroke:var(--grid)}.base{stroke:var(--muted);stroke-opacity:.55}
.reference{stroke:var(--muted);stroke-dasharray:4 4;fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.thin{stroke-width:1.4}.line.dashed{stroke-dasharray:6 5;stroke-width:1.6}
.band{fill-opacity:.16}.bar{fill-opacity:.28}
.whisker{stroke-width:1.6;stroke-linecap:round}
.dot{stroke:var(--card);stroke-width:1}
.dot.faint{fill-opacity:.55;stroke-opacity:.6;stroke-width:.6}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--rule);border-radius:10px;
margin-top:14px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:7px 14px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
tr:last-child td{border-bottom:0}
th{color:var(--muted);font-weight:500;font-size:13px}
th.word,td.word{text-align:left}
td small{color:var(--muted);font-size:12px;margin-left:6px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:14px 0 0;font-size:14px}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
code{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.warnings{margin:18px 0 0;padding:12px 16px 12px 34px;border:1px solid var(--c2);border-radius:10px;
background:var(--card)}
@media print{body{background:#fff}main{padding:0;max-width:none}}
"""


def page(title: str, lead: str, body: Sequence[str]) -> str:
    """Put a page together.

    Args:
        title: heading and window title, plain text.
        lead: one line below it, plain text.
        body: markup.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="muted">{escape(lead)}</p>\n'
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, figures: Sequence[str] = (), *, note: str = "") -> str:
    """A heading, a sentence on how to read what follows, and figures side by side."""
    said = f'<p class="muted">{escape(note)}</p>' if note else ""
    shown = f'<div class="figures">{"".join(figures)}</div>' if figures else ""
    return f"<section><h2>{escape(title)}</h2>{said}{shown}</section>"


def figure(title: str, drawing: str, *, legend: Sequence[tuple[str, int]] = (), note: str = "") -> str:
    """One picture on a card; the legend has names and indices of colours."""
    keys = "".join(
        f'<span><i style="background:{colour(hue)}"></i>{escape(name)}</span>' for name, hue in legend
    )
    return (
        f"<figure><h3>{escape(title)}</h3>"
        + (f'<div class="legend">{keys}</div>' if keys else "")
        + drawing
        + (f'<p class="note">{escape(note)}</p>' if note else "")
        + "</figure>"
    )


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Big numbers: what, how much, and a remark."""
    cells = "".join(
        f'<div class="tile"><span>{escape(what)}</span><b>{escape(value)}</b>'
        f"<span>{escape(remark)}</span></div>"
        for what, value, remark in entries
    )
    return f'<div class="tiles">{cells}</div>'


def warnings(lines: Sequence[str]) -> str:
    """What a reader must know before any number."""
    return f'<ul class="warnings">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A table of which the first `words` columns are text. In a cell, what follows a tab is small print."""
    kinds = [' class="word"' if k < words else "" for k in range(len(head))]
    titles = "".join(f"<th{kind}>{escape(title)}</th>" for kind, title in zip(kinds, head, strict=True))
    lines = "".join(
        f"<tr>{''.join(f'<td{kind}>{_cell(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'


def facts(entries: Sequence[tuple[str, str]]) -> str:
    """Names and values below each other, values as code."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in entries)
        + "</dl>"
    )


def _cell(text: str) -> str:
    value, tab, small = text.partition("\t")
    return escape(value) + (f"<small>{escape(small)}</small>" if tab else "")
