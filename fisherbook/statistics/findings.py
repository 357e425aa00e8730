"""Claims, the rule that decides them, and the rows that the book's first page is made of.

A `Claim` names one statistic, what is expected of it and a margin, and is written down before there is a
result. An `Estimate` carries a standard error and degrees of freedom, so that it has an interval at any
level. `judge` joins the two: with a claim's threshold in the interval, the finding is inconclusive.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pandas as pd
import xarray as xr
from pandas.io.formats.style import Styler
from scipy.special import stdtr

from .. import checks
from .estimates import (
    Estimate,
    agreement,
    each,
    jackknife,
    jackknife_values,
    over_replicates,
    over_replicates_and_people,
    pseudovalues,
)

__all__ = [
    "Claim", "Estimate", "Finding", "agreement", "announce", "decide", "each", "glue_findings", "jackknife",
    "jackknife_values", "judge", "over_replicates", "over_replicates_and_people", "pseudovalues", "table", "tell",
]  # fmt: skip

LEAST = {"replicates": 4, "people": 5}  # with fewer, a finding is inconclusive whatever its interval
_UNITS = {"1": "", "rad": " rad", "rad-1": " rad⁻¹", "rad-2": " rad⁻²"}


@dataclass(frozen=True)
class Claim:
    """What is claimed of one statistic, fixed before the result.

    Parameters
    ----------
    sentence : str
        The claim in words, without a full stop.
    direction : {"above", "below", "similar"}
        Whether the statistic is to lie above the margin, below it, or within it of a target.
    margin : float
        In the statistic's units; for a ratio that is to be similar, a factor (the book's rule is 1.5).
    target : float, optional
        What a similar statistic is similar to: 0 unless given, 1 for a ratio.
    ratio : bool
        The statistic is a ratio: its `Estimate` is that of its natural logarithm, while margin, target and
        all that is shown are ratios.
    units : str
        Of the statistic, in ASCII: ``"1"``, ``"rad"``, ``"rad-1"`` or ``"rad-2"``.

    Examples
    --------
    >>> claim = fb.findings.Claim("the loss matters", "above", margin=0.1)
    >>> claim.rule
    '> 0.1'
    >>> fb.findings.Claim("both are alike", "similar", margin=1.5, ratio=True).thresholds  # 1/1.5 and 1.5
    (0.6666666666666666, 1.5)
    """

    sentence: str
    direction: Literal["above", "below", "similar"]
    margin: float
    target: float | None = None
    ratio: bool = False
    units: str = "1"

    def __post_init__(self) -> None:
        checks.one_of("direction", self.direction, ("above", "below", "similar"))
        checks.one_of("units", self.units, _UNITS)
        similar = self.direction == "similar"
        least = 1 if similar and self.ratio else 0 if similar or self.ratio else None
        checks.number("margin", self.margin, above=least)
        if self.target is None:
            object.__setattr__(self, "target", float(self.ratio))
        elif not similar:
            raise ValueError(f"target belongs to a claim that is 'similar', not {self.direction!r}")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The values that decide, in the statistic's units and ascending: one, or two if it is similar."""
        if self.direction != "similar":
            return (self.margin,)
        if self.ratio:
            return self.target / self.margin, self.target * self.margin
        return self.target - self.margin, self.target + self.margin

    @property
    def rule(self) -> str:
        """Where the whole interval must lie, as a short text."""
        edges = ", ".join(f"{threshold:.3g}".replace("-", "−") for threshold in self.thresholds)
        return {"above": f"> {edges}", "below": f"< {edges}", "similar": f"in [{edges}]"}[self.direction]


@dataclass(frozen=True)
class Finding:
    """A claim with its estimate, its verdict, and the level of the interval that decided (see `judge`)."""

    claim: Claim
    estimate: Estimate
    verdict: Literal["reproduced", "not reproduced", "inconclusive"]
    level: float

    def __str__(self) -> str:
        return f"{self.claim.sentence}: {self.verdict}"

    @property
    def reason(self) -> str:
        """Why a finding is inconclusive; empty for any other."""
        if self.verdict != "inconclusive":
            return ""
        return _too_few(self.estimate) or f"its {100 * self.level:.4g} % interval contains a threshold"

    @property
    def row(self) -> dict[str, Any]:
        """The finding as plain values, for tables and files; ``shown`` is the value and its 95 % interval."""
        shown = (self.estimate.value, *self.estimate.interval())
        shown = [math.exp(x) for x in shown] if self.claim.ratio else list(shown)
        people = f", {self.estimate.people} people" if self.estimate.people else ""
        row = {"shown": shown, "number": _number(*shown) + _UNITS[self.claim.units], "rule": self.claim.rule}
        row |= {"thresholds": self.claim.thresholds, "over": f"{self.estimate.replicates} {self.estimate.of}{people}"}
        row |= {"verdict": self.verdict, "reason": self.reason}
        return asdict(self.claim) | asdict(self.estimate) | row


def judge(results: Mapping[Claim, Estimate], level: float = 0.95) -> list[Finding]:
    """Decide all primary claims of a notebook.

    A claim is reproduced if its whole interval agrees with it, not reproduced if its whole interval
    disagrees, and inconclusive if a threshold lies in the interval, or with fewer than 4 replicates, or fewer
    than 5 people where the interval spans people.

    Parameters
    ----------
    results : mapping of Claim to Estimate
        All primary claims of the notebook, for they share one error rate.
    level : float
        Confidence that none of the verdicts is wrong.

    Returns
    -------
    list of Finding
        In the order of `results`.

    Notes
    -----
    Several claims are decided by Holm's step-down rule. The distance of a statistic from its nearest
    threshold, in standard errors, gives the level at which its interval just reaches it, 1 - p. In ascending
    order of p, the first of m claims must decide with its interval of level 1 - alpha/m, the next with that
    of 1 - alpha/(m - 1), and so on; after the first that does not, all are inconclusive.

    Examples
    --------
    >>> claim = fb.findings.Claim("the loss matters", "above", margin=0.1)
    >>> estimate = fb.findings.over_replicates([0.52, 0.61, 0.49, 0.55])
    >>> fb.findings.judge({claim: estimate})[0].verdict
    'reproduced'
    """
    checks.number("level", level, above=0, below=1)
    odds = {claim: _p_value(claim, estimate) for claim, estimate in results.items()}
    findings, deciding, allowed = {}, True, 1 - level
    for rank, claim in enumerate(sorted(results, key=odds.__getitem__)):
        if deciding:
            allowed = (1 - level) / (len(results) - rank)
            deciding = odds[claim] < allowed
        low, high = _region(claim)
        verdict = "reproduced" if low < results[claim].value < high else "not reproduced"
        findings[claim] = Finding(claim, results[claim], verdict if deciding else "inconclusive", 1 - allowed)
    return [findings[claim] for claim in results]


def decide(estimates: Mapping[Claim, Estimate], second: Mapping[Claim, Estimate] | None = None) -> None:
    """Decide all primary claims of a notebook (`judge`), show the verdicts, and leave them to the book.

    Parameters
    ----------
    estimates : mapping of Claim to Estimate
        All of them at once, for they share one error rate.
    second : mapping of Claim to Estimate, optional
        The same statistics by an estimator of another kind, shown beside the first and not decided by.
    """
    from IPython.display import display

    found = judge(estimates)
    glue_findings(found)
    display(table(found, second))
    print(*found, sep="\n")


def tell(scale: Callable[[float], float] = float, **values: Any) -> None:
    """Paste numbers into the text, where the role ``glue:text`` shows each by its name.

    Parameters
    ----------
    scale : callable
        Applied to values and to the ends of intervals, such as ``np.exp``.
    **values : Estimate, DataArray, mapping, number or text
        An estimate is told with its 95 % interval, and so is an array over replicates. An array with other dimensions
        is told value by value, under names that go on with the coordinates: ``inside_test``. So is a mapping.
    """
    from myst_nb import glue

    for name, value in _told(values):
        if isinstance(value, Estimate | xr.DataArray):
            ends = (value.value, *value.interval()) if isinstance(value, Estimate) else value.values[[1, 0, 2]]
            value = _number(*map(scale, ends))
        elif not isinstance(value, str):
            value = _plain(scale(value))
        glue(name, value, display=False)


def _told(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _told({f"{name}_{key}": one for key, one in value.items()})
        elif isinstance(value, xr.DataArray) and (rest := [d for d in value.dims if d not in ("replicate", "end")]):
            each = {f"{name}_{_word(key)}": value.sel({rest[0]: key}) for key in value[rest[0]].values}
            yield from _told(each)
        elif isinstance(value, xr.DataArray) and value.ndim:
            yield name, value if "end" in value.dims else over_replicates(value.values)
        else:
            yield name, value if isinstance(value, str | Estimate) else float(value)


def _word(key: Any) -> str:
    return f"{key:g}" if isinstance(key, float) else str(key)


def _plain(value: float) -> str:
    """Write a number to two digits, a large one without decimals."""
    whole = value == round(value) or abs(value) >= 100
    return f"{value:.0f}" if math.isfinite(value) and whole else f"{value:#.2g}".rstrip(".")


def announce(*claims: Claim) -> Styler:
    """Return claims as a table for a notebook, before there is a result: what is claimed, and what decides it."""
    rows = {"claim": [c.sentence for c in claims], "holds if the whole interval is": [c.rule for c in claims]}
    return _styled(pd.DataFrame(rows), "claims")


def table(findings: Iterable[Finding], second: Mapping[Claim, Estimate] | None = None) -> Styler:
    """Return findings as the verdict table of a notebook; its ``data`` attribute is the data frame shown."""
    findings = list(findings)
    names = {"sentence": "claim", "number": "estimate [95 %]", "rule": "claimed", "over": "over"}
    rows = [finding.row for finding in findings]
    frame = pd.DataFrame(rows)[list(names)].rename(columns=names)
    if second:
        others = (
            replace(finding, estimate=second[finding.claim]) if finding.claim in second else None
            for finding in findings
        )
        frame["second estimator"] = [other.row["number"] if other else "" for other in others]
    frame["verdict"] = [": ".join(filter(None, (row["verdict"], row["reason"]))) for row in rows]
    return _styled(frame, "findings")


def _styled(frame: pd.DataFrame, name: str) -> Styler:
    style = Styler(frame, uuid=name, cell_ids=False, escape="html").hide(axis="index")
    return style.set_table_attributes(f'class="dataframe fb-{name}"')


def glue_findings(findings: Iterable[Finding]) -> None:
    """Put findings into the notebook's output, unseen, for the table on the book's first page."""
    from myst_nb import glue

    glue("findings", json.dumps([finding.row for finding in findings]), display=False)


def _number(value: float, low: float, high: float) -> str:
    """Write an estimate and its interval to two digits of the half-width, at most four or five in all."""
    if not math.isfinite(high - low):
        return f"{value:.3g} (no interval)"
    most = max(abs(low), abs(high))
    digits = 1 - math.floor(math.log10(max((high - low) / 2, most / 1e3))) if most else 1
    form = f".{max(digits, 0)}f" if digits < 6 else ".3g"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]".replace("-", "−")


def _region(claim: Claim) -> tuple[float, float]:
    """Return the open region in which a claim holds, on the scale of its estimate."""
    scaled = [math.log(threshold) if claim.ratio else threshold for threshold in claim.thresholds]
    low = -math.inf if claim.direction == "below" else scaled[0]
    return low, math.inf if claim.direction == "above" else scaled[-1]


def _p_value(claim: Claim, estimate: Estimate) -> float:
    """Return 1 - level of the interval that just reaches a threshold; 1 with too few to decide."""
    distance = min(abs(estimate.value - edge) for edge in _region(claim))
    if _too_few(estimate) or distance == 0:
        return 1.0
    errors = distance / estimate.standard_error if estimate.standard_error else math.inf
    return float(2 * stdtr(estimate.dof, -errors))


def _too_few(estimate: Estimate) -> str:
    """Return the sentence that says of what there are too few, or nothing."""
    counts = {name: getattr(estimate, name) for name in LEAST}
    few = [name for name, count in counts.items() if count is not None and count < LEAST[name]]
    return ", ".join(f"{counts[name]} {name} where {LEAST[name]} are needed" for name in few)
