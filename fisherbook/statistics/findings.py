"""What a notebook says of its claims: the table of verdicts, and the rows that the book's first page is made of."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from .answers import answer
from .claims import KINDS, Claim, Estimate, Finding, judge
from .estimates import agreement, each, jackknife, jackknife_values, over_replicates, over_replicates_and_people
from .texts import numbers, plain, tell

__all__ = [
    "Claim", "Estimate", "Finding", "agreement", "announce", "answer", "decide", "each", "glue_findings", "jackknife",
    "jackknife_values", "judge", "numbers", "over_replicates", "over_replicates_and_people", "plain", "table", "tell",
]  # fmt: skip


_DECIDED = (
    "Intervals are at 95 %. Where a page has several claims a verdict needs a wider one: they share one error rate "
    "(Holm's rule)."
)


def decide(estimates: Mapping[Claim, Estimate], second: Mapping[Claim, Estimate] | None = None) -> list[Finding]:
    """Decide all primary claims of a notebook (`judge`), show the verdicts, leave them to the book, and return them.

    Parameters
    ----------
    estimates : mapping of Claim to Estimate
        All of them at once, for they share one error rate.
    second : mapping of Claim to Estimate, optional
        The same statistics by an estimator of another kind, shown beside the first and not decided by.
    """
    from IPython.display import display

    found = judge(estimates)
    glue_findings(found, second)
    display(table(found, second))
    print(*found, sep="\n")
    return found


def announce(*claims: Claim) -> Styler:
    """Return claims as a table for a notebook, before there is a result: what is claimed, and what decides it."""
    rows = {"claim": [c.sentence for c in claims], "holds if the whole interval is": [c.rule for c in claims]}
    return _styled(pd.DataFrame(rows), "claims")


def table(findings: Iterable[Finding], second: Mapping[Claim, Estimate] | None = None) -> Styler:
    """Return findings as the verdict table of a notebook; its ``data`` attribute is the data frame shown."""
    rows = _rows(findings, second)
    names = {"sentence": "claim", "number": "estimate [95 %]", "second": "second estimator", "rule": "claimed"}
    frame = pd.DataFrame(rows)[[*names, "over"]].rename(columns=names)
    frame["verdict"] = [": ".join(filter(None, (row["verdict"], row["reason"]))) for row in rows]
    relations = (row["relation"] for row in rows)
    frame["earlier work"] = [f"our {relation}" if relation in KINDS else relation for relation in relations]
    return _styled(frame, "findings").set_caption(_DECIDED)


def _rows(findings: Iterable[Finding], second: Mapping[Claim, Estimate] | None) -> list[dict[str, Any]]:
    """The findings' rows, each with the number by the second estimator."""
    rows = []
    for finding in findings:
        other = (second or {}).get(finding.claim)
        rows.append(finding.row | {"second": replace(finding, estimate=other).row["number"] if other else "–"})
    return rows


def _styled(frame: pd.DataFrame, name: str) -> Styler:
    style = Styler(frame, uuid=name, cell_ids=False, escape="html").hide(axis="index")
    return style.set_table_attributes(f'class="dataframe fb-{name}"')


def glue_findings(findings: Iterable[Finding], second: Mapping[Claim, Estimate] | None = None) -> None:
    """Put findings into the notebook's output, unseen, for the table on the book's first page."""
    from myst_nb import glue

    glue("findings", json.dumps(_rows(findings, second)), display=False)
