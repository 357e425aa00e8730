"""The findings at a glance: the first page's list of what the notebooks found.

``findings.json``, beside the pages, holds the rows that the executed notebooks left,
each with the name of its page, and ``runs.json`` the profile. Before the pages are
read, they become ``findings_table.md``, which the first page includes; it is no
page of its own. Without the first file there is nothing. Each page is there with
its first claim; its other claims are folded below, counted by verdict. On any page a
verdict in a table gets the look that it has there.
"""

import html
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx

TABLE = "findings_table.md"
VERDICTS = ("reproduced", "not reproduced", "inconclusive")
MEANS = {
    "quick": "few networks and small pictures, and so wide intervals",
    "published": "many networks, and so narrower intervals",
    "prior": "the settings of the work that this book follows up",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("builder-inited", _write_table)
    app.connect("html-page-context", _mark_verdicts)
    app.config.exclude_patterns += [TABLE]
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write_table(app: Sphinx) -> None:
    source = Path(app.srcdir)
    if (source / "findings.json").is_file():
        rows = json.loads((source / "findings.json").read_text())
        pages = {row["page"]: title(source / row["page"]) for row in rows}
        runs = source / "runs.json"
        made = json.loads(runs.read_text()) if runs.is_file() else []
        text = told(rows, {run["profile"] for run in made}) + listed(rows, pages)
        (source / TABLE).write_text(text, encoding="utf-8")


def _mark_verdicts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    cell = re.compile(rf"(<td[^>]*>)({'|'.join(VERDICTS)})(?=:? ?[^<>]*</td>)")
    context["body"] = cell.sub(lambda found: found[1] + _verdict(found[2]), context.get("body") or "")


def title(notebook: Path) -> str:
    """Return a notebook's title, its first heading."""
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.findall(r"^# +(.+)$", text, re.MULTILINE)[0].replace("|", r"\|")


def told(rows: list[Mapping[str, Any]], profiles: set[str]) -> str:
    """Return how many claims got which verdict, and which profile made them."""
    by = " and ".join(f"**{profile}** profile: {MEANS[profile]}" for profile in sorted(profiles))
    claims = "1 claim" if len(rows) == 1 else f"{len(rows)} claims"
    count = Counter(row["verdict"] for row in rows)
    parts = "".join(f'<span class="fb-{_slug(name)}" style="flex-grow: {count[name]}"></span>' for name in VERDICTS)
    bar = f'<div class="fb-bar" aria-hidden="true">{parts}</div>'
    made = f" (made with the {by})" if by else ""
    return f"{claims}{made}: {_tally(rows)}\n\n{bar}\n\n"


def listed(rows: list[Mapping[str, Any]], pages: Mapping[str, str]) -> str:
    """Return what the pages found, a block for each, headed by the page's title."""
    by_page = groupby(rows, lambda row: row["page"])
    return "\n".join(block(list(found), f"[{pages[page]}]({page})") for page, found in by_page)


def block(rows: list[Mapping[str, Any]], heading: str) -> str:
    """Return a page's findings: its first claim, and the others folded."""
    lines = ['<div class="fb-page">', "", heading, "", line(rows[0])]
    if more := rows[1:]:
        told = f"{len(more)} more {'claim' if len(more) == 1 else 'claims'}"
        lines += [f"<details><summary>{told}: {_tally(more)}</summary>"]
        lines += [*map(line, more), "</details>"]
    return "\n".join([*lines, "</div>", ""])


def line(row: Mapping[str, Any]) -> str:
    """Return a finding as one line of HTML: claim, number with its rule, verdict."""
    number = _span("number", row["number"])
    rule = _span("rule", f"claimed: {row['rule']}")
    return (
        f'<div class="fb-row"><p>{html.escape(row["sentence"])}</p>'
        f"<div>{_picture(row)}{number} {rule}</div>"
        f"<div>{_verdict(row['verdict'])}</div></div>"
    )


def _tally(rows: list[Mapping[str, Any]]) -> str:
    count = Counter(row["verdict"] for row in rows)
    found = [name for name in VERDICTS if count[name]]
    return " ".join(_verdict(name, f"{count[name]} {name}") for name in found)


def _slug(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _verdict(name: str, text: str = "") -> str:
    return _span(f"verdict fb-{_slug(name)}", text or name)


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
