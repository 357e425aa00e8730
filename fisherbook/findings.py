"""Claims, the rule that decides them, and the rows that the book's first page is made of.

A `Claim` names one statistic, what is expected of it and a margin, and is written down before there is a
result. An `Estimate` carries a standard error and degrees of freedom, so that it has an interval at any
level. `judge` joins the two: with a claim's threshold in the interval, the finding is inconclusive.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from scipy.special import stdtr, stdtrit

from fisherbook import checks

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
class Estimate:
    """A statistic's value and uncertainty.

    Parameters
    ----------
    value, standard_error : float
        In the statistic's units; of the natural logarithm of a ratio.
    dof : float
        Degrees of freedom of the standard error; its intervals are Student's.
    replicates : int
        Independently trained networks it rests on, or what `of` says.
    people : int, optional
        People it rests on where the interval spans people; None where it holds for just these faces.
    of : str
        What the replicates are.
    """

    value: float
    standard_error: float
    dof: float
    replicates: int
    people: int | None = None
    of: str = "networks"

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval (low, high) of a level between 0 and 1."""
        half = stdtrit(self.dof, (1 + level) / 2) * self.standard_error
        return float(self.value - half), float(self.value + half)


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


def over_replicates(values: Sequence[float] | np.ndarray) -> Estimate:
    """Estimate a mean over replicates, for these faces and new networks, with R - 1 degrees of freedom.

    Parameters
    ----------
    values : array (replicate,)
        One value per independently trained network; a single one has an infinite standard error.
    """
    values = _finite(values, "replicate")
    count = len(values)
    error = values.std(ddof=1) / math.sqrt(count) if count > 1 else math.inf
    return Estimate(float(values.mean()), float(error), max(count - 1, 1), count)


def over_replicates_and_people(values: Sequence[Sequence[float]] | np.ndarray) -> Estimate:
    """Estimate a mean over replicates and people, which are crossed: every network sees everybody.

    Parameters
    ----------
    values : array (replicate, person)
        One value per network and person, or group of people; for a statistic that is not a mean over people,
        its `pseudovalues`.

    Returns
    -------
    Estimate
        For new networks and new people, with min(R, P) - 1 degrees of freedom.

    Notes
    -----
    With a the variance over replicates of the means over people, b that over people of the means over
    replicates, and e the residual mean square, the variance of the grand mean is a/R + b/P - e/(RP): the
    residual is in both a/R and b/P and must count once. Chance may carry this below either: a floor.
    """
    values = _finite(values, "replicate", "person")
    count, people = values.shape
    mean, dof = values.mean(), min(count, people) - 1
    if dof == 0:
        return Estimate(float(mean), math.inf, 1, count, people)
    rows, columns = values.mean(1), values.mean(0)
    residual = ((values - rows[:, None] - columns + mean) ** 2).sum() / ((count - 1) * (people - 1))
    parts = rows.var(ddof=1) / count, columns.var(ddof=1) / people
    variance = max(sum(parts) - residual / (count * people), *parts)
    return Estimate(float(mean), math.sqrt(variance), dof, count, people)


def pseudovalues(everybody: Sequence[float] | np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return the jackknife pseudovalues of a statistic, for `over_replicates_and_people`.

    Parameters
    ----------
    everybody : array (replicate,)
        The statistic with all people.
    without : array (replicate, person)
        The statistic with one person, or one of groups of equal size, left out.

    Returns
    -------
    array (replicate, person)
        P s - (P - 1) s(without p); their mean over people is the statistic with its bias corrected.
    """
    everybody, without = _finite(everybody, "replicate"), _finite(without, "replicate", "person")
    checks.same_length(everybody=len(everybody), without=len(without))
    people = without.shape[1]
    return people * everybody[:, None] - (people - 1) * without


def agreement(values: np.ndarray) -> Estimate:
    """Estimate the mean correlation of each replicate's curve with the mean of the others; jackknife over replicates.

    Correlations of pairs of replicates are not independent of each other, so that their spread would be no error.

    Parameters
    ----------
    values : array (replicate, angle)
        At least three replicates.

    Returns
    -------
    Estimate
        0 for curves that have nothing in common. Of a common curve and as much variance of each replicate's own, the
        correlation is √((R - 1) / 2R); the jackknife corrects it for R, so that it tends to √½.
    """
    values = _finite(values, "replicate", "angle")
    checks.whole_number("replicates", len(values), least=3)

    def correlation(rows: np.ndarray) -> float:
        rows = rows - rows.mean(1, keepdims=True)
        others = rows.sum(0) - rows
        return float(((rows * others).sum(1) / np.sqrt((rows**2).sum(1) * (others**2).sum(1))).mean())

    without = [correlation(np.delete(values, r, 0)) for r in range(len(values))]
    return over_replicates(pseudovalues([correlation(values)], [without])[0])


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


def announce(*claims: Claim) -> Styler:
    """Return claims as a table for a notebook, before there is a result: what is claimed, and what decides it."""
    rows = {"claim": [c.sentence for c in claims], "holds if the whole interval is": [c.rule for c in claims]}
    return _styled(pd.DataFrame(rows), "claims")


def table(findings: Iterable[Finding]) -> Styler:
    """Return findings as the verdict table of a notebook; its ``data`` attribute is the data frame shown."""
    names = {"sentence": "claim", "number": "estimate [95 %]", "rule": "claimed", "over": "over"}
    rows = [finding.row for finding in findings]
    frame = pd.DataFrame(rows)[list(names)].rename(columns=names)
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


def _finite(values: Any, *dimensions: str) -> np.ndarray:
    """Return values as a float64 array of the named dimensions, all of them finite."""
    values = np.asarray(values, dtype=np.float64)
    checks.shape("values", values.shape, *dimensions)
    bad = values.size - np.isfinite(values).sum()
    if bad or not values.size:
        raise ValueError(f"values must be finite and at least one, but {bad} of {values.size} are not finite")
    return values
