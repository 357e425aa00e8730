"""Means over replicates, and over people crossed with them, with standard errors; the jackknife of any statistic."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from .. import checks


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


def over_replicates(values: Sequence[float] | np.ndarray, of: str = "networks") -> Estimate:
    """Estimate a mean over replicates, for these faces and new networks, with R - 1 degrees of freedom.

    Parameters
    ----------
    values : array (replicate,)
        One value per independently trained network; a single one has an infinite standard error.
    of : str
        What the replicates are, where they are no networks: chains.

    Examples
    --------
    >>> estimate = fb.findings.over_replicates([0.52, 0.61, 0.49, 0.55])
    >>> round(estimate.value, 4), estimate.dof
    (0.5425, 3)
    >>> tuple(round(end, 2) for end in estimate.interval(0.95))
    (0.46, 0.62)
    """
    values = _finite(values, "replicate")
    count = len(values)
    error = values.std(ddof=1) / math.sqrt(count) if count > 1 else math.inf
    return Estimate(float(values.mean()), float(error), max(count - 1, 1), count, of=of)


def over_replicates_and_people(values: Sequence[Sequence[float]] | np.ndarray) -> Estimate:
    """Estimate a mean over replicates and people, which are crossed: every network sees everybody.

    Parameters
    ----------
    values : array (replicate, person)
        One value per network and person, or group of people; for a statistic that is not a mean over people,
        its `jackknife_values` over them.

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
    values = _finite(values, "replicate", "angle", least=3)

    def correlation(rows: np.ndarray) -> float:
        rows = rows - rows.mean(1, keepdims=True)
        others = rows.sum(0) - rows
        return float(((rows * others).sum(1) / np.sqrt((rows**2).sum(1) * (others**2).sum(1))).mean())

    return jackknife(correlation, values)


def _finite(values: Any, *dimensions: str, least: int = 1) -> np.ndarray:
    """Return values as a float64 array of the named dimensions, in this order, all finite and enough of the first."""
    if isinstance(values, xr.DataArray) and values.ndim == len(dimensions):
        others = iter([d for d in values.dims if d not in dimensions])
        values = values.transpose(*(d if d in values.dims else next(others) for d in dimensions))
    values = _unmasked(values).astype(np.float64)
    checks.shape("values", values.shape, *dimensions)
    checks.whole_number(f"{dimensions[0]}s", len(values), least)
    bad = values.size - np.isfinite(values).sum()
    if bad or not values.size:
        raise ValueError(f"values must be finite and at least one, but {bad} of {values.size} are not finite")
    return values


def _unmasked(values: Any) -> np.ndarray:
    """Return values as an array, NaN where they are masked."""
    values = np.ma.asarray(values)
    return np.where(values.mask, np.nan, values.data) if values.mask.any() else values.data


def jackknife(
    statistic: Callable[..., float], *arrays: xr.DataArray | ArrayLike, over: str = "replicate", of: str = "networks"
) -> Estimate:
    """Estimate a statistic of several arrays, its bias and its error by leaving out one replicate at a time.

    Parameters
    ----------
    statistic : callable
        Takes the arrays, whole or each without the same replicate, and returns a number.
    *arrays : DataArray with the dimension `over`, or array_like that leads with it
        An array without that dimension is given as it is; those with labels along it are matched by them.
    over, of : str
        The dimension, and what it counts.

    Examples
    --------
    >>> jackknife(np.mean, [1.0, 2.0, 6.0]).value
    3.0
    """
    return replace(over_replicates(jackknife_values(statistic, *arrays, over=over)), of=of)


def jackknife_values(statistic: Callable[..., Any], *arrays: xr.DataArray | ArrayLike, over: str = "replicate") -> Any:
    """Return jackknife pseudovalues of a statistic, one for each replicate.

    Parameters
    ----------
    statistic, *arrays, over
        As in `jackknife`; the statistic may return an array.

    Returns
    -------
    DataArray or array, leading with `over`
        P s - (P-1) s(without p). Their mean over p is the statistic with its bias corrected, and their spread that of P
        independent values: intervals are Student's with P - 1 degrees of freedom (Efron and Stein 1981).
    """
    arrays, labels = _aligned([a if isinstance(a, xr.DataArray) else _unmasked(a) for a in arrays], over)
    count = len(labels)

    def without(a: xr.DataArray | np.ndarray, rest: np.ndarray) -> xr.DataArray | np.ndarray:
        return a[rest] if isinstance(a, np.ndarray) else a.isel({over: rest}, missing_dims="ignore")

    left = [statistic(*(without(a, np.delete(range(count), p)) for a in arrays)) for p in range(count)]
    whole = statistic(*arrays)
    if isinstance(whole, xr.DataArray) and whole.ndim:
        without_one = xr.concat(left, labels, coords="minimal", compat="equals", join="exact")
        return (count * whole - (count - 1) * without_one).transpose(over, ...)
    return count * np.asarray(whole) - (count - 1) * np.asarray(left)


def _aligned(arrays: Sequence[Any], d: str) -> tuple[list[Any], xr.DataArray]:
    """Return arrays with their labels along a dimension in the order of the first, and these labels."""
    lengths = [len(a) if isinstance(a, np.ndarray) else a.sizes.get(d) for a in arrays]
    checks.same_length(**{f"array {n}": length for n, length in enumerate(lengths, 1) if length is not None})
    positions = xr.DataArray(range(checks.whole_number(f"labels of {d}", max(n or 0 for n in lengths))), dims=d, name=d)
    labels = next((a[d] for a in arrays if d in getattr(a, "indexes", ())), positions)
    first, arrays = labels.to_index(), list(arrays)
    for n, own in enumerate(getattr(a, "indexes", {}).get(d, first) for a in arrays):
        same = own.equals(first)
        if not same and len(own.unique().intersection(first)) < len(first):
            raise ValueError(f"arrays must have the same labels along {d}, each once, unlike array {n + 1}")
        arrays[n] = arrays[n] if same else arrays[n].sel({d: first})
    return arrays, labels


def each(estimator: Callable[..., Estimate], *arrays: xr.DataArray, over: Sequence[str]) -> xr.DataArray:
    """Return value and 95 % interval of an estimate for every combination of some dimensions' values.

    Parameters
    ----------
    estimator : callable
        Takes the arrays at one combination, such as `over_replicates`, or a `jackknife` of a statistic.
    *arrays : DataArray
        One that lacks a dimension is given as it is; labels are matched.
    over : sequence of str
        The dimensions.

    Returns
    -------
    DataArray (..., end)
        Leading with the dimensions of `over`; ``end`` is ``low``, ``value`` and ``high``.
    """
    labels = {}
    for d in over:
        arrays, labels[d] = _aligned(arrays, d)
    found = np.empty((*(len(values) for values in labels.values()), 3))
    for place in np.ndindex(found.shape[:-1]):
        at = dict(zip(over, place, strict=True))
        one = estimator(*(a.isel(at, drop=True, missing_dims="ignore") for a in arrays))
        found[place] = np.insert(one.interval(), 1, one.value)
    return xr.DataArray(found, {**labels, "end": ["low", "value", "high"]}, name="estimate")
