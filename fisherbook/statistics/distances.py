"""How far apart two sets of people are in what a network reports of them, and how far by chance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from .. import checks
from .estimates import _finite


@dataclass(frozen=True)
class Energy:
    """The energy distance between two sets of people, corrected for chance.

    Attributes
    ----------
    distance : float
        D² = 2 E|X - Y| - E|X - X'| - E|Y - Y'| over different people, in the points' units; it may be negative.
    share : float
        D² / 2 E|X - Y|: 0 for equal distributions or constants, 1 for two different constants.
    null : array, shape (draw,)
        The share where people are exchanged at random.
    p_value : float
        Probability of a share as large as this among them; NaN without draws.
    """

    distance: float
    share: float
    null: NDArray[np.float64]
    p_value: float


def energy(
    first: ArrayLike, second: ArrayLike, people: ArrayLike, others: ArrayLike, draws: int = 0, seed: int = 0
) -> Energy:
    """Compare two samples that cluster by person (Székely & Rizzo 2013), with people as what is drawn at random.

    Parameters
    ----------
    first, second : array_like, shape (sample,) or (sample, dimension)
        Numbers, or points; angles as points (cos, sin), whose distance is the chord: no edge at ±π.
    people, others : array_like of int, shape (sample,)
        Whose each sample is. Either nobody is in both sets, or everybody is.
    draws : int
        Of the permutation test: of people between the sets, or, where everybody is in both, of each person's two sets.

    Notes
    -----
    Means are over pairs of different people, everybody with equal weight. So D² is what two halves, one of each set,
    are apart minus what two halves of one set are, averaged over all ways to halve: 0 in the mean where sets are
    alike, whatever the number of people and of samples of each.
    """
    checks.same_length(first=len(first), people=len(people))
    checks.same_length(second=len(second), others=len(others))
    points = np.concatenate([_finite(np.reshape(x, (len(x), -1)), "sample", "dimension") for x in (first, second)])
    (names, rows), (other_names, other_rows) = (np.unique(x, return_inverse=True) for x in (people, others))
    count, common = len(names), len(np.intersect1d(names, other_names))
    draws = checks.whole_number("draws", draws, 0)
    if common and not np.array_equal(names, other_names):
        raise ValueError(f"the two sets must have all their people in common or none, not {common} of {count}")
    if min(count, len(other_names)) < 2:
        raise ValueError(f"each set needs at least two people, not {count} and {len(other_names)}")
    person, group = np.concatenate([names, other_names]), np.concatenate([rows, count + other_rows])
    own = (np.arange(len(person))[:, None] == group).astype(np.float64)
    own /= own.sum(1, keepdims=True)
    different = (person[:, None] != person).astype(np.float64)
    apart = different * (own @ cdist(points, points) @ own.T)
    rng, labels = np.random.default_rng(seed), np.arange(len(person)) < count
    if common:
        drawn = labels ^ np.tile(rng.random((draws, count)) < 0.5, 2)
    else:
        drawn = rng.permuted(np.tile(labels, (draws, 1)), axis=1)
    distance, cross = _compare(apart, different, np.vstack([labels, drawn]).astype(np.float64))
    share = np.divide(distance, 2 * cross, out=np.zeros_like(distance), where=distance != 0)
    p_value = (1 + (share[1:] >= share[0]).sum()) / (1 + draws) if draws else np.nan
    return Energy(float(distance[0]), float(share[0]), share[1:], float(p_value))


def _compare(
    apart: NDArray[np.float64], different: NDArray[np.float64], labels: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return D² and the mean distance between the sets, for each row of labels (draw, group), 1 in the first set."""

    def mean(a: NDArray, b: NDArray) -> NDArray:
        return ((a @ apart) * b).sum(-1) / ((a @ different) * b).sum(-1)

    cross = mean(labels, 1 - labels)
    return 2 * cross - mean(labels, labels) - mean(1 - labels, 1 - labels), cross
