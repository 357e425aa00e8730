"""Intervals by t over people: of one estimate, of the difference of two on the same faces, of a whole curve."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import ArrayLike
from scipy.stats import norm, t
from torch import Tensor

from .. import checks, results


def interval(result: xr.Dataset, level: float = 0.95) -> xr.Dataset:
    """Return ``lower`` and ``upper`` (rad-2): estimate -/+ standard error × t with people - 1 degrees of freedom."""
    reach = t.ppf(0.5 + checks.number("level", level, 0, 1) / 2, result.degrees_of_freedom) * result.standard_error
    return _around(result.fisher_information, reach)


def difference(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """Return the estimate `first` - `second`, made of the same faces, with its paired standard error.

    Parameters
    ----------
    first, second : Dataset
        From `estimate` with ``influence=True``, of two stages, layers or networks and one set of faces. Angles,
        replicates and people are matched by their labels.

    Raises
    ------
    ValueError
        If the labels of a dimension differ.
    """
    psi, other = _influence(first), _influence(second)
    for dim in sorted(map(str, {*psi.dims} & {*other.dims})):
        mine, theirs = psi.indexes[dim], other.indexes[dim]
        if len(mine) != len(theirs) or not mine.sort_values().equals(theirs.sort_values()):
            raise ValueError(f"first and second have different labels along {dim}: {_alone(mine, theirs)}")
    psi = psi - other
    change = first.fisher_information - second.fisher_information
    error = ((psi**2).sum("person") ** 0.5).drop_attrs()
    unknown = np.isinf(first.standard_error) | np.isinf(second.standard_error)
    found = {"fisher_information": change, "standard_error": error.where(~unknown, np.inf), "influence": psi}
    freedom = np.minimum(first.degrees_of_freedom, second.degrees_of_freedom)
    return results.label(xr.Dataset(found | {"degrees_of_freedom": freedom}))


def band(result: xr.Dataset, level: float = 0.95, draws: int = 2000, seed: int = 0) -> xr.Dataset:
    """Return ``lower`` and ``upper`` (rad-2) that hold the whole curve over ``angle`` with probability `level`.

    Notes
    -----
    The largest standardised error of the curve is drawn by multiplying each person's influence by normal
    numbers (a multiplier bootstrap, linear in the people: no resampled covariance is ever inverted), and
    scaled up as the t distribution is to the normal one.
    """
    psi = _influence(result).transpose(..., "person", "angle").values
    size = np.sqrt((psi**2).sum(-2, keepdims=True))
    psi = psi / np.where(size > 0, size, 1)  # what is never confused has no influence, and an infinite error
    normal = np.random.default_rng(seed).standard_normal((draws, psi.shape[-2]))
    largest = np.quantile(np.abs(normal @ psi).max(-1), checks.number("level", level, 0, 1), axis=-1)
    heavier = t.ppf(0.5 + level / 2, result.degrees_of_freedom) / norm.ppf(0.5 + level / 2)
    others = [d for d in result.influence.dims if d not in ("person", "angle")]
    reach = result.standard_error * heavier * xr.DataArray(largest, dims=others)
    return _around(result.fisher_information, reach.where(np.isfinite(result.standard_error), np.inf))


def jackknife(statistic: Callable[..., Tensor], groups: ArrayLike, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    """Return a statistic's delete-one-person jackknife estimate and standard error.

    Parameters
    ----------
    statistic : callable
        Tensors ``(..., face, unit)`` and ``groups`` → a tensor.
    groups : array_like, shape (face,)
    *tensors : Tensor, shape (..., face, unit)
    """
    groups = np.asarray(groups)
    labels = np.unique(groups)
    rest = [torch.as_tensor(groups != label) for label in labels]
    each = torch.stack([statistic(*(x[..., keep, :] for x in tensors), groups=groups[keep]) for keep in rest])
    number, mean = len(labels), each.mean(0)
    error = ((each - mean) ** 2).sum(0).mul((number - 1) / number).sqrt()
    return number * statistic(*tensors, groups=groups) - (number - 1) * mean, error


def _influence(result: xr.Dataset) -> xr.DataArray:
    if "influence" not in result:
        raise ValueError("this needs each person's influence: call estimate with influence=True")
    return result.influence


def _alone(mine: pd.Index, theirs: pd.Index) -> str:
    apart = mine.symmetric_difference(theirs)
    return f"{apart[0]} is in one only" if len(apart) else "some are repeated"


def _around(center: xr.DataArray, reach: xr.DataArray) -> xr.Dataset:
    attrs = {"units": "rad-2", "long_name": "limit of the interval"}
    return xr.Dataset({"lower": (center - reach).assign_attrs(attrs), "upper": (center + reach).assign_attrs(attrs)})
