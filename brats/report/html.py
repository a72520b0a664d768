"""HTML as text: every value from data passes through `text`, and JSON through `json_script`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

DASH = "\N{EN DASH}"


def text(value: Any) -> str:
    """A value as HTML text, also within an attribute in double quotes."""
    return escape(str(value), quote=True)


def number(value: Any, digits: int = 3) -> str:
    """A number with so many decimals; a dash for none and for NaN, and 0 decimals for whole numbers."""
    if value is None or value != value:
        return DASH
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def counted(n: int, thing: str) -> str:
    """How many of a thing there are: "1 case", "2 cases"."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def section(anchor: str, title: str, *blocks: str) -> str:
    """A section of the page, with its heading; "" where it has no content."""
    content = "\n".join(filter(None, blocks))
    return f'<section id="{anchor}"><h2>{text(title)}</h2>\n{content}\n</section>' if content else ""


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of plain text; all columns but the first are numbers, to the right."""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def facts(values: Mapping[str, Any]) -> str:
    """Names with their values, one below the other."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in values.items())
    return f'<dl class="facts">{rows}</dl>'


def listing(lines: Iterable[str]) -> str:
    """A list of plain text; "" for no lines."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def code(words: str) -> str:
    """Text to copy, with a button for it."""
    return f'<div class="copy"><pre>{text(words)}</pre><button type="button" class="copier">copy</button></div>'


def picture(url: str, alternative: str, caption: str = "", kind: str = "") -> str:
    """A picture that the page carries with it."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}"><img src="{url}" alt="{text(alternative)}">{below}</figure>'


def json_script(identity: str, value: Any) -> str:
    """A value as JSON for the scripts of the page. NaN and infinity, which JSON lacks, raise ValueError."""
    content = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{identity}">{content}</script>'
