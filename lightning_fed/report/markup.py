"""The pieces of HTML that the page is put together from. Text goes in as text and comes out escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

UNDEFINED = "\N{EN DASH}"
MEANINGS = {
    "released": "computed from the global models and public facts alone, which everybody has",
    "diagnostic": "taken from hospitals' private images: a simulator may look, a real deployment may not",
}


def tag(name: str) -> str:
    """The mark beside a metric: `released` or `diagnostic`."""
    return f'<span class="tag {name}" title="{escape(MEANINGS[name])}">{name}</span>'


def document(title: str, header: str, parts: Iterable[str]) -> str:
    """A whole page that needs no network and no script: its header, then those parts that are not empty."""
    name, style = escape(title), files("lightning_fed.report").joinpath("page.css").read_text("utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{name} - lightning-fed</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{name}</h1>\n"
        f"{header}\n</header>\n" + "\n".join(filter(None, parts)) + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A section of those parts that are not empty; nothing when all are."""
    inside = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(text: str, *tags: str, kind: str = "") -> str:
    """A paragraph, with the tags of the metrics that it explains before it."""
    marks = "".join(tag(name) + " " for name in tags)
    return f"<p{_class(kind)}>{marks}{escape(text)}</p>"


def figure(svg: str | None, wide: bool = False) -> str:
    """A drawn figure, or nothing where there is none."""
    return f"<figure{_class('wide' if wide else '')}>{svg}</figure>" if svg else ""


def pair(*figures: str) -> str:
    """Figures side by side, or below each other on a phone."""
    inside = "".join(figures)
    return f'<div class="pair">{inside}</div>' if inside else ""


def facts(values: dict[str, str]) -> str:
    """Names and what they are."""
    rows = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f"<dl>{''.join(rows)}</dl>"


def tile(name: str, value: str, *tags: str) -> str:
    """One great number."""
    marks = "".join(tag(one) for one in tags)
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span>{marks}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the page scrolls it sideways on a phone."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def collapsed(summary: str, inside: str) -> str:
    """Something that is shown on demand, without a script."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}\n</details>"


def preformatted(text: str) -> str:
    """Text as it stands."""
    return f'<pre class="scroll" tabindex="0">{escape(text)}</pre>'


def percent(share: float | None, digits: int = 1) -> str:
    """A share, such as `93.1 %`; a dash where it is not defined."""
    return UNDEFINED if share is None or math.isnan(share) else f"{100 * share:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many places; a dash where it is not defined."""
    return UNDEFINED if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """Such as `48.2 s`, `12 min 05 s` or `3 h 07 min`."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
