"""The findings at a glance: the first page's six answers and its list of all claims.

``findings.json``, beside the pages, holds the rows that the executed notebooks left,
each with the name of its page, ``answers.json`` their answers and ``runs.json`` the
profile. Before the pages are read, they become ``observations.md`` and
``findings_table.md``, which the first page includes; they are no pages of their own.
Without the first file there is nothing. On any page a verdict, or the relation to the
earlier work, gets the look in a table that it has there.
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

from ...statistics.claims import KINDS, RELATIONS, VERDICTS
from ...statistics.texts import plain

TABLE, ANSWERS, HERO = "findings_table.md", "observations.md", "hero.md"
MEANS = {
    "quick": "few networks and small pictures, and so wide intervals",
    "published": "many networks, and so narrower intervals",
    "prior": "the settings of the work that this book follows up",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("builder-inited", _write_table)
    app.connect("html-page-context", _mark_verdicts)
    app.config.exclude_patterns += [TABLE, ANSWERS, HERO]
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write_table(app: Sphinx) -> None:
    source = Path(app.srcdir)
    (source / HERO).write_text(hero(sorted(source.glob("*.ipynb"))), encoding="utf-8")
    if (source / "findings.json").is_file():
        rows = json.loads((source / "findings.json").read_text())
        pages = {row["page"]: title(source / row["page"]) for row in rows}
        runs = source / "runs.json"
        made = json.loads(runs.read_text()) if runs.is_file() else []
        text = told(rows, {run["profile"] for run in made}) + listed(rows, pages)
        (source / TABLE).write_text(text, encoding="utf-8")
        answers = source / "answers.json"
        answered = json.loads(answers.read_text()) if answers.is_file() else []
        (source / ANSWERS).write_text(observations(answered, pages), encoding="utf-8")


def hero(pages: Iterable[Path]) -> str:
    """Return the picture of the first page that one of the notebooks left, or else the drawing that stands for it."""
    for page in pages:
        for output in (o for cell in nbformat.read(page, as_version=4).cells for o in cell.get("outputs", [])):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == "hero":
                return f"```{{raw}} html\n{next(v for k, v in output.data.items() if k.endswith('html'))}\n```\n"
    return "![A face in a ring that is wide where networks tell angles finely.](_static/question.svg)\n"


def _mark_verdicts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    words = {word: _verdict(word) for word in VERDICTS} | {word: _relation(word) for word in RELATIONS}
    cell = re.compile(rf"(<td[^>]*>)({'|'.join(words)})(?=:? ?[^<>]*</td>)")
    context["body"] = cell.sub(lambda found: found[1] + words[found[2]], context.get("body") or "")


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


def observations(answers: list[Mapping[str, Any]], pages: Mapping[str, str]) -> str:
    """Return the earlier work's observations in their order, each with what the pages find of it."""
    numbered = sorted((a for a in answers if a["observation"]), key=lambda a: a["observation"])
    blocks = []
    for number, group in groupby(numbered, lambda a: a["observation"]):
        found = list(group)
        saw = " ".join(dict.fromkeys(one["saw"] for one in found))
        lines = ['<div class="fb-observation">', "", f"**{number}. The earlier work saw:** {saw}", ""]
        for one in found:
            lines += [f"{_relation(one['relation'])} {one['find']} [{pages[one['page']]}]({one['page']})", ""]
        blocks.append("\n".join([*lines, "</div>", ""]))
    return "\n".join(blocks)


def listed(rows: list[Mapping[str, Any]], pages: Mapping[str, str]) -> str:
    """Return what the pages found, a block for each, headed by the page's title."""
    by_page = groupby(rows, lambda row: row["page"])
    return "\n".join(block(list(found), f"[{pages[page]}]({page})") for page, found in by_page)


def block(rows: list[Mapping[str, Any]], heading: str) -> str:
    """Return a page's findings: all its claims, folded."""
    told = f"{len(rows)} {'claim' if len(rows) == 1 else 'claims'}"
    lines = ['<div class="fb-page">', "", heading, "", f"<details><summary>{told}: {_tally(rows)}</summary>"]
    return "\n".join([*lines, *map(line, rows), "</details>", "</div>", ""])


def line(row: Mapping[str, Any]) -> str:
    """Return a finding as one line of HTML: claim, number with its rule, verdict."""
    number = _span("number", row["number"])
    rule = _span("rule", f"claimed: {row['rule']}")
    return (
        f'<div class="fb-row"><p>{html.escape(row["sentence"])}</p>'
        f"<div>{_picture(row)}{number} {rule}</div>"
        f"<div>{_verdict(row['verdict'])}{_told_relation(row['relation'])}</div></div>"
    )


def _tally(rows: list[Mapping[str, Any]]) -> str:
    count = Counter(row["verdict"] for row in rows)
    found = [name for name in VERDICTS if count[name]]
    return " ".join(_verdict(name, f"{count[name]} {name}") for name in found)


def _slug(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _verdict(name: str, text: str = "") -> str:
    return _span(f"verdict fb-{_slug(name)}", text or name)


def _relation(name: str) -> str:
    return _span(f"relation fb-{_slug(name)}", name)


def _told_relation(name: str) -> str:
    return f" {_span('rule', f'our {name}') if name in KINDS else _relation(name)}"


def _span(kind: str, text: str) -> str:
    return f'<span class="fb-{kind}">{html.escape(text)}</span>'


def _picture(row: Mapping[str, Any]) -> str:
    """Draw an interval on an axis with its claim's thresholds and no effect, over the region where the claim holds.

    It is for the eyes only: the numbers stand beside it.
    """
    scale = math.log if row["ratio"] else float
    points = [*row["shown"], *row["thresholds"], row["null"]]
    if not all(math.isfinite(point) and (point > 0 or not row["ratio"]) for point in points):
        return ""
    at = [scale(point) for point in points]
    least, span = min(at), (max(at) - min(at)) or 1.0
    x = [20 + 160 * (place - least) / span for place in at]
    marks = dict(zip(x[3:], [*map(plain, row["thresholds"]), f"{row['null']:g}"], strict=True))
    left = 0 if row["direction"] == "below" else x[3]
    right = 200 if row["direction"] == "above" else x[-2]
    ticks = "".join(f'<path class="tick" d="M{place:.1f} 2V22"/>' for place in marks)
    near, words = -math.inf, ""
    for place, text in sorted(marks.items()):
        if place - near > 7 * len(text):
            words += f'<text x="{place:.1f}" y="34">{text.replace("-", "−")}</text>'
            near = place
    return (
        '<svg class="fb-glyph" viewBox="0 0 200 36" aria-hidden="true">'
        f'<rect x="{left:.1f}" width="{right - left:.1f}" y="2" height="20"/>'
        f'<path class="axis" d="M0 22H200"/>{ticks}{words}'
        f'<path d="M{x[1]:.1f} 12H{x[2]:.1f}"/>'
        f'<circle cx="{x[0]:.1f}" cy="12" r="4"/></svg>'
    )
