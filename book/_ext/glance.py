"""The findings at a glance: the first page's table of what the notebooks found.

``findings.json``, beside the pages, holds the rows that the executed notebooks left,
each with the name of its page. Before the pages are read, they become the table
``findings_table.md``, which the first page includes; without the file, nothing.
"""

import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("builder-inited", _write_table)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write_table(app: Sphinx) -> None:
    source = Path(app.srcdir) / "findings.json"
    if source.is_file():
        text = table(json.loads(source.read_text()))
        source.with_name("findings_table.md").write_text(text, encoding="utf-8")


def table(rows: list[Mapping[str, Any]]) -> str:
    """Return the findings as a Markdown table: claim and link, number, verdict."""
    lines = ["| Claim | Estimate, 95\u00a0% interval | Verdict |", "|---|---|---|"]
    for row in rows:
        claim = row["sentence"].replace("|", r"\|")
        number = _span("number", row["number"])
        rule = _span("rule", f"claimed: {row['rule']}")
        verdict = _span(
            f"verdict fb-{row['verdict'].replace(' ', '-')}", row["verdict"]
        )
        shown = f"{_picture(row)}{number} {rule}"
        lines.append(f"| [{claim}]({row['page']}) | {shown} | {verdict} |")
    return "\n".join(lines) + "\n"


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
