"""Claims, and the rule that decides them.

A `Claim` names one statistic, what is expected of it and a margin, and is written down before there is a
result. An `Estimate` carries a standard error and degrees of freedom, so that it has an interval at any
level. `judge` joins the two: with a claim's threshold in the interval, the finding is not settled.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy.special import stdtr, stdtrit

from .. import checks
from .estimates import Estimate
from .texts import interval

VERDICTS = ("holds", "does not hold", "not settled")
LEAST = {"replicates": 4, "people": 5}  # with fewer, a finding is not settled whatever its interval
RELATIONS = ("confirmed", "corrected", "contradicted")  # of a claim to what the earlier work saw
KINDS = ("prediction", "theory", "tool")  # what a claim is about that the earlier work never made
MOST = 10_000  # replicates; a claim that more would be needed for is one that replicates don't settle
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
    null : float, optional
        The statistic's value where there is no effect: 0 unless given, 1 for a ratio.
    relation : tuple of two str, or str
        What it says of the earlier work's observation if it holds, and if it does not: each ``"confirmed"``,
        ``"corrected"`` or ``"contradicted"``. Where the earlier work made none, what the claim is about: a
        ``"prediction"`` of ours, a ``"theory"`` or a ``"tool"``.

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
    null: float | None = None
    relation: tuple[str, str] | str = "prediction"

    def __post_init__(self) -> None:
        checks.one_of("direction", self.direction, ("above", "below", "similar"))
        checks.one_of("units", self.units, _UNITS)
        if isinstance(self.relation, str):
            checks.one_of("relation", self.relation, KINDS)
        elif len(self.relation) != 2 or not set(self.relation) <= set(RELATIONS):
            raise ValueError(f"relation must be two of {', '.join(RELATIONS)}, not {self.relation!r}")
        if self.null is None:
            object.__setattr__(self, "null", float(self.ratio))
        similar = self.direction == "similar"
        least = 1 if similar and self.ratio else 0 if similar or self.ratio else float("-inf")
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
    verdict: Literal["holds", "does not hold", "not settled"]
    level: float

    def __str__(self) -> str:
        return f"{self.claim.sentence}: {self.verdict}"

    @property
    def relation(self) -> str:
        """What it says of the earlier work's observation; empty where that made none."""
        if isinstance(self.claim.relation, str):
            return ""
        return (*self.claim.relation, "not settled")[VERDICTS.index(self.verdict)]

    @property
    def certain(self) -> bool:
        """Whether the 95 % interval excludes that there is no effect."""
        low, high = self.estimate.interval()
        null = math.log(self.claim.null) if self.claim.ratio else self.claim.null
        return not _too_few(self.estimate) and not low <= null <= high

    @property
    def settles(self) -> int | None:
        """How many replicates in all would settle it, if the estimate is true; None if none would, or it is settled."""
        if self.verdict != "not settled" or math.isinf(self.estimate.standard_error):
            return None
        distance = min(abs(self.estimate.value - edge) for edge in _region(self.claim))
        count, spread = self.estimate.replicates, self.estimate.standard_error * math.sqrt(self.estimate.replicates)
        for more in itertools.takewhile(MOST.__gt__, map(round, _growing(max(count, LEAST["replicates"])))):
            dof = self.estimate.dof * (more - 1) / max(count - 1, 1)
            if stdtrit(dof, (1 + self.level) / 2) * spread / math.sqrt(more) < distance:
                return more
        return None

    @property
    def reason(self) -> str:
        """Why a finding is not settled, what of it is certain, and what would settle it; empty for any other."""
        if self.verdict != "not settled":
            return ""
        few = _too_few(self.estimate)
        said = [few or f"its {100 * self.level:.4g} % interval contains a threshold"]
        said += ["direction certain, size against the margin not settled"] * self.certain
        if not few:
            people = " and as many more people" if self.estimate.people else ""
            enough = f"about {self.settles} {self.estimate.of}{people}"
            number = enough if self.settles else f"no {MOST} {self.estimate.of}"
            said.append(f"{number} would settle it")
        return "; ".join(said)

    @property
    def row(self) -> dict[str, Any]:
        """The finding as plain values, for tables and files; ``shown`` is the value and its 95 % interval."""
        shown = (self.estimate.value, *self.estimate.interval())
        shown = [math.exp(x) for x in shown] if self.claim.ratio else list(shown)
        people = f", {self.estimate.people} people" if self.estimate.people else ""
        row = {"shown": shown, "number": interval(*shown) + _UNITS[self.claim.units], "rule": self.claim.rule}
        row |= {"thresholds": self.claim.thresholds, "over": f"{self.estimate.replicates} {self.estimate.of}{people}"}
        row |= {"verdict": self.verdict, "reason": self.reason, "relation": self.relation or str(self.claim.relation)}
        return asdict(self.claim) | asdict(self.estimate) | row


def judge(results: Mapping[Claim, Estimate], level: float = 0.95) -> list[Finding]:
    """Decide all primary claims of a notebook.

    A claim holds if its whole interval agrees with it, does not hold if its whole interval disagrees, and is
    not settled if a threshold lies in the interval, or with fewer than 4 replicates, or fewer than 5 people
    where the interval spans people.

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
    of 1 - alpha/(m - 1), and so on; after the first that does not, all are not settled.

    Examples
    --------
    >>> claim = fb.findings.Claim("the loss matters", "above", margin=0.1)
    >>> estimate = fb.findings.over_replicates([0.52, 0.61, 0.49, 0.55])
    >>> fb.findings.judge({claim: estimate})[0].verdict
    'holds'
    """
    checks.number("level", level, above=0, below=1)
    odds = {claim: _p_value(claim, estimate) for claim, estimate in results.items()}
    findings, deciding, allowed = {}, True, 1 - level
    for rank, claim in enumerate(sorted(results, key=odds.__getitem__)):
        if deciding:
            allowed = (1 - level) / (len(results) - rank)
            deciding = odds[claim] < allowed
        low, high = _region(claim)
        verdict = "holds" if low < results[claim].value < high else "does not hold"
        findings[claim] = Finding(claim, results[claim], verdict if deciding else "not settled", 1 - allowed)
    return [findings[claim] for claim in results]


def _growing(count: float) -> Iterator[float]:
    """That many, and on in steps of a tenth or one."""
    while True:
        yield count
        count += max(1.0, count // 10)


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
