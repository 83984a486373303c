"""The one builder of HTML reports: a single file that opens anywhere and fetches nothing."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from lathe.plot import STYLE

_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { margin-top: 2.4rem; font-size: 1.2rem }
h3 { margin: 1.6rem 0 .3rem; font-size: 1rem }
p.note { opacity: .75; margin-top: .3rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .55rem; border-bottom: 1px solid var(--line); text-align: right }
td { white-space: nowrap } th { font-weight: 600; vertical-align: bottom }
th:first-child, td:first-child { text-align: left }
.scroll { overflow-x: auto }
figure { margin: 1rem 0 } figcaption { opacity: .75; font-size: .9rem }
svg { width: 100%; height: auto }
.key { white-space: nowrap; margin-right: .8rem }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .3rem }
figure.plot { overflow-x: auto } figure.plot > svg { min-width: 36rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(17.5rem, 1fr)); gap: .8rem }
.plots svg { max-width: 26rem }
.chain { display: flex; flex-wrap: wrap; gap: .5rem 1.6rem; list-style: none; padding: 0 1.4rem 0 0; margin: .8rem 0 }
.chain li { border: 1px solid var(--line); border-radius: 6px; padding: .35rem .6rem; position: relative;
  background: var(--soft); max-width: 17rem; font-size: .88rem; overflow-wrap: anywhere }
.chain li:not(:last-child)::after { content: "→"; position: absolute; right: -1.3rem; top: .3rem }
.chain b { display: block }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .6rem 1rem }
dl.facts dt { opacity: .75; font-size: .85rem } dl.facts dd { margin: 0; font-variant-numeric: tabular-nums }
details { margin: .6rem 0 } summary { cursor: pointer }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .8rem }
.pictures.large { grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)) }
.pictures figure { margin: 0 0 .4rem } .pictures img { width: 100%; border-radius: 4px; display: block }
.good { color: #2a9d5c; color: light-dark(#1f7d48, #4cc38a) }
.bad { color: #c0392b; color: light-dark(#c0392b, #ff8a7a) }
.big { font-size: 1.15rem; font-weight: 600 }
"""


class Report:
    """Parts in the order in which they are added; all text is escaped here.

    Args:
        summary: one sentence under the title.
    """

    def __init__(self, title: str, summary: str) -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>", f'<p class="note">{escape(summary)}</p>']

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def subheading(self, text: str) -> None:
        self._parts.append(f"<h3>{escape(text)}</h3>")

    @contextlib.contextmanager
    def details(self, summary: str) -> Iterator[None]:
        """What is added within is hidden until somebody asks for it."""
        self._parts.append(f"<details><summary>{escape(summary)}</summary>")
        yield
        self._parts.append("</details>")

    def chain(self, boxes: Sequence[tuple[str, str]]) -> None:
        """Boxes in a row with arrows between them, each a title with a text."""
        items = "".join(f"<li><b>{escape(title)}</b>{escape(text)}</li>" for title, text in boxes)
        self._parts.append(f'<ol class="chain">{items}</ol>')

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names with their values, as many in a row as fit."""
        items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
        self._parts.append(f'<dl class="facts">{items}</dl>')

    def paragraph(self, text: str, style: str = "") -> None:
        """Args:
        style: `note`, `good` or `bad`, several separated by blanks.
        """
        self._parts.append(f'<p class="{escape(style)}">{escape(text)}</p>')

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in headings)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>')

    def plot(self, svg: str, caption: str, key: Sequence[tuple[str, str]] = ()) -> None:
        """A drawing of `lathe.plot`.

        Args:
            key: names of its lines with their colors, for lines that lie too close for their names beside them.
        """
        names = "".join(
            f'<span class="key"><i style="background:{escape(color)}"></i>{escape(name)}</span>' for name, color in key
        )
        text = f"{names} {escape(caption)}" if names else escape(caption)
        self._parts.append(f'<figure class="plot">{svg}<figcaption>{text}</figcaption></figure>')

    def plots(self, row: Sequence[tuple[str, str]]) -> None:
        """Small drawings side by side, each with its caption."""
        figures = "".join(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for svg, caption in row)
        self._parts.append(f'<div class="plots">{figures}</div>')

    def pictures(self, row: Sequence[tuple[bytes, str]], *, is_large: bool = False) -> None:
        """JPEGs side by side, each with its caption; large ones two in a row."""
        figures = "".join(
            f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for jpeg, caption in row
        )
        self._parts.append(f'<div class="pictures{" large" if is_large else ""}">{figures}</div>')

    def html(self) -> str:
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{STYLE}{_STYLE}</style></head>"
            f"<body>{''.join(self._parts)}</body></html>\n"
        )

    def save(self, path: Path) -> None:
        path.write_text(self.html(), "utf-8")
