"""The one builder of HTML reports: a single file that opens anywhere and fetches nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

_STYLE = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { margin-top: 2.4rem; font-size: 1.2rem }
p.note { opacity: .75; margin-top: .3rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right }
th { font-weight: 600; vertical-align: bottom } th:first-child, td:first-child { text-align: left }
.scroll { overflow-x: auto }
figure { margin: 1rem 0 } figcaption { opacity: .75; font-size: .9rem }
svg { width: 100%; height: auto; font-size: 12px } svg text { fill: currentColor }
svg .grid { stroke: var(--line) } svg .span { fill: #dc6b19; opacity: .25 }
svg .title { font-size: 13px } svg .label { font-weight: 600 }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .8rem }
.pictures img { width: 100%; border-radius: 4px; display: block }
.good { color: #2a9d5c } .bad { color: #c0392b } .big { font-size: 1.15rem; font-weight: 600 }
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

    def paragraph(self, text: str, style: str = "") -> None:
        """Args:
        style: `note`, `good` or `bad`, several separated by blanks.
        """
        self._parts.append(f'<p class="{escape(style)}">{escape(text)}</p>')

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in headings)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>')

    def plot(self, svg: str, caption: str) -> None:
        """A drawing of `lathe.plot`."""
        self._parts.append(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>")

    def pictures(self, row: Sequence[tuple[bytes, str]]) -> None:
        """JPEGs side by side, each with its caption."""
        figures = "".join(
            f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for jpeg, caption in row
        )
        self._parts.append(f'<div class="pictures">{figures}</div>')

    def html(self) -> str:
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head>"
            f"<body>{''.join(self._parts)}</body></html>\n"
        )

    def save(self, path: Path) -> None:
        path.write_text(self.html(), "utf-8")
