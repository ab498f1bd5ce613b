"""A document of headings, paragraphs, tables and pictures, as Markdown and as one HTML file with the pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emix.reports.columns import table


@dataclass(frozen=True)
class Heading:
    """Of a part."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph, or items of a list."""

    lines: Sequence[str]
    items: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells below a head; the first ``texts`` columns are text, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1


@dataclass(frozen=True)
class Picture:
    """A PNG beside the document, and what it shows."""

    path: Path
    caption: str


Block = Heading | Text | Table | Picture

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th.text, td.text { text-align: left; white-space: normal; }
div.wide { overflow-x: auto; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: 0.9rem; }
"""


@dataclass
class Document:
    """What :func:`emix.reports.report.report` makes."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def markdown(self) -> str:
        """Pictures are named as they lie beside the file."""
        parts = [f"# {self.title}"]
        for block in self.blocks:
            if isinstance(block, Heading):
                parts.append(f"## {block.text}")
            elif isinstance(block, Text):
                parts.append("\n".join(f"- {line}" for line in block.lines) if block.items else "\n".join(block.lines))
            elif isinstance(block, Table):
                parts.append(table(block.head, block.rows))
            else:
                parts.append(f"![{block.caption}]({block.path.name})")
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """One file that needs no other."""
        title = html.escape(self.title)
        body = "\n".join(_html(block) for block in self.blocks)
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
            f"</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
        )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h2>{html.escape(block.text)}</h2>"
    if isinstance(block, Text):
        lines = [html.escape(line) for line in block.lines]
        items = "".join(f"<li>{line}</li>\n" for line in lines)
        return f"<ul>\n{items}</ul>" if block.items else f"<p>{' '.join(lines)}</p>"
    if isinstance(block, Table):
        rows = [_row(block.head, "th", block.texts), *(_row(row, "td", block.texts) for row in block.rows)]
        return f'<div class="wide"><table>\n{"".join(rows)}</table></div>'
    picture = base64.b64encode(block.path.read_bytes()).decode()
    caption = html.escape(block.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{picture}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _row(cells: Sequence[str], tag: str, texts: int) -> str:
    marked = [f"<{tag}{' class=text' if i < texts else ''}>{html.escape(cell)}</{tag}>" for i, cell in enumerate(cells)]
    return f"<tr>{''.join(marked)}</tr>\n"
