"""The findings at a glance: the first page's tables of what the notebooks found.

``findings.json``, beside the pages, holds the rows that the executed notebooks left,
each with the name of its page, and ``runs.json`` the profile. Before the pages are
read, they become ``findings_table.md``, which the first page includes; it is no
page of its own. Without the first file there is nothing.
"""

import html
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx

TABLE = "findings_table.md"
VERDICTS = ("reproduced", "not reproduced", "inconclusive")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("builder-inited", _write_table)
    app.config.exclude_patterns += [TABLE]
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write_table(app: Sphinx) -> None:
    source = Path(app.srcdir)
    if (source / "findings.json").is_file():
        rows = json.loads((source / "findings.json").read_text())
        pages = {row["page"]: title(source / row["page"]) for row in rows}
        runs = source / "runs.json"
        made = json.loads(runs.read_text()) if runs.is_file() else []
        text = told(rows, {run["profile"] for run in made}) + tables(rows, pages)
        (source / TABLE).write_text(text, encoding="utf-8")


def title(notebook: Path) -> str:
    """Return a notebook's title, its first heading."""
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.search(r"^# +(.+)$", text, re.MULTILINE)[1].replace("|", r"\|")


def told(rows: list[Mapping[str, Any]], profiles: set[str]) -> str:
    """Return how many claims got which verdict, and which profile made them."""
    count = Counter(row["verdict"] for row in rows)
    verdicts = ", ".join(
        f"{count[name]} {_verdict(name)}" for name in VERDICTS if count[name]
    )
    by = " and ".join(f"**{profile}**" for profile in sorted(profiles))
    made = f", made with the {by} profile" if by else ""
    claims = "1 claim" if len(rows) == 1 else f"{len(rows)} claims"
    return f"{claims}{made}: {verdicts or 'no verdict'}.\n\n"


def tables(rows: list[Mapping[str, Any]], pages: Mapping[str, str]) -> str:
    """Return a table for each page, headed by the page's title."""
    by_page = groupby(rows, lambda row: row["page"])
    return "\n".join(
        table(found, f"[{pages[page]}]({page})") for page, found in by_page
    )


def table(rows: Iterable[Mapping[str, Any]], heading: str = "Claim") -> str:
    """Return findings as a Markdown table: claim, number, verdict."""
    lines = [
        f"| {heading} | Estimate, 95\u00a0% interval | Verdict |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *map(_line, rows)]) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    claim = row["sentence"].replace("|", r"\|")
    number = _span("number", row["number"])
    rule = _span("rule", f"claimed: {row['rule']}")
    shown = f"{_picture(row)}{number} {rule}"
    return f"| [{claim}]({row['page']}) | {shown} | {_verdict(row['verdict'])} |"


def _verdict(name: str) -> str:
    return _span(f"verdict fb-{name.replace(' ', '-')}", name)


def _span(kind: str, text: str) -> str:
    return f'<span class="fb-{kind}">{html.escape(text)}</span>'


def _picture(row: Mapping[str, Any]) -> str:
    """Draw an interval over the shaded region in which its claim holds.

    It is for the eyes only: the numbers stand beside it.
    """
    points = [*row["shown"], *row["thresholds"]]
    if not all(map(math.isfinite, points)):
        return ""
    least, span = min(points), (max(points) - min(points)) or 1.0
    x = [100 * ((point - least) / span + 0.25) / 1.5 for point in points]
    left = 0 if row["direction"] == "below" else x[3]
    right = 100 if row["direction"] == "above" else x[-1]
    return (
        '<svg class="fb-glyph" viewBox="0 0 100 12" aria-hidden="true">'
        f'<rect x="{left:.1f}" width="{right - left:.1f}" height="12"/>'
        f'<path d="M{x[1]:.1f} 6H{x[2]:.1f}"/>'
        f'<circle cx="{x[0]:.1f}" cy="6" r="3"/></svg>'
    )
