"""Half the logarithm of the plug-in Fisher information, of fixed sets of faces, and its increments over lags."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .arrays import Activity

_BIAS_ANGLES = 32  # on which the bias of the logarithm is measured


def log_fisher(
    activity: "Activity", parts: Mapping[str, ArrayLike] | None = None, delta: float | None = None, bias: bool = True
) -> xr.Dataset:
    """Return φ = ½ log F(θ), natural logarithm of the square root of Fisher information in rad⁻¹.

    F is the plug-in d̄ᵀS⁻¹d̄ of one fixed set of faces: always positive, so that its logarithm is always there. Its bias
    hardly depends on the angle, and so cancels in differences between angles; it is stored beside it.

    Parameters
    ----------
    activity : Activity
        Of one layer.
    parts : mapping of str to array of int, optional
        Named sets of faces, by their positions in the activity's ``face`` dimension, for each of which the logarithm is
        taken. By default all faces, named ``all``.
    delta : float, optional
        Compare the two angles θ ± delta/2 (rad), as the estimator ``direct`` does, instead of using the derivative.
    bias : bool
        Return the bias too.

    Returns
    -------
    Dataset
        ``log_fisher`` (part, replicate, angle), and ``log_fisher_bias`` (part, replicate): ½ log of the ratio of the
        plug-in's mean over angles to that of the corrected estimate; missing where the latter is not positive, or the
        faces are too few for it.
    """
    parts = _parts(activity, parts)
    found = xr.Dataset({"log_fisher": _logarithm(activity, parts, delta)})
    if not bias:
        return found
    few = activity.at(activity.angles[:: max(1, len(activity.angles) // _BIAS_ANGLES)])
    return found.assign(log_fisher_bias=(("part", "replicate"), [_bias(few.subset(p)) for p in parts.values()]))


def _parts(activity: "Activity", parts: Mapping[str, ArrayLike] | None) -> dict[str, NDArray]:
    everybody = {"all": np.arange(activity.face.shape[1])}
    return {name: np.asarray(chosen) for name, chosen in (parts or everybody).items()}


def _logarithm(activity: "Activity", parts: Mapping[str, NDArray], delta: float | None) -> xr.DataArray:

    chunks = [torch.stack([plugin(p) for p in parts.values()]).cpu() for plugin in _plugins(activity, delta)]
    coords = {"part": list(parts), "replicate": activity.replicate, "angle": activity.angles}
    return xr.DataArray(0.5 * torch.cat(chunks, -1).log().numpy(), coords)


def _plugins(activity: "Activity", delta: float | None) -> Iterator[Callable[[NDArray], "Tensor"]]:
    """Yield, chunk by chunk, what returns the plug-in (replicate, angle) of a set of faces."""
    from ..fisher.kernels import direct, plugin_information

    if delta is None:
        for _, responses, slopes in activity.chunks():
            yield lambda p, r=responses, d=slopes: plugin_information(r[:, :, p], d[:, :, p])
    else:
        sides = (activity.shifted(sign * delta / 2).chunks(tangents=False) for sign in (-1, 1))
        for (_, minus, _), (_, plus, _) in zip(*sides, strict=True):
            pair = torch.stack([minus, plus], 2)
            yield lambda p, both=pair: direct(both[..., p, :], delta).plugin


def _bias(activity: "Activity") -> NDArray[np.float64]:
    from ..fisher.kernels import tangent

    found = torch.full((2, len(activity.replicate), len(activity.angles)), torch.nan, dtype=torch.float64)
    for part, responses, slopes in activity.chunks():
        for r, (response, slope) in enumerate(zip(responses, slopes, strict=True)):
            with contextlib.suppress(ValueError):  # too few faces
                one = tangent(response, slope, None if activity.identity is None else activity.identity[r])
                found[:, r, part] = torch.stack([one.plugin, one.information]).cpu()
    plugin, information = found.mean(-1)
    bias = 0.5 * (plugin / information.clamp(min=0)).log().numpy()
    return np.where(np.isfinite(bias), bias, np.nan)


def increments(
    activity: "Activity", lags: Sequence[float], parts: Mapping[str, ArrayLike] | None = None,
    delta: float | None = None,
) -> xr.DataArray:  # fmt: skip
    """Return the increments φ(θ + Δ) - φ(θ) of φ = ½ log F over several lags, for a fixed set of faces.

    Their mean square over angles is the structure function S(Δ) = ⟨(φ(θ+Δ) - φ(θ))²⟩; the mean product of two disjoint
    parts' increments is the cross structure function S×(Δ), what the parts share: noise that comes from either part's
    own choice of faces is independent of the other's and does not enter.

    Parameters
    ----------
    activity : Activity
        At the base angles θ.
    lags : sequence of float
        Δ in rad.
    parts, delta
        As in `log_fisher`.

    Returns
    -------
    DataArray
        Natural logarithm, (lag, part, replicate, angle).
    """
    parts = _parts(activity, parts)
    at_base = _logarithm(activity, parts, delta)
    shifted = [_logarithm(activity.shifted(lag), parts, delta).assign_coords(at_base.coords) for lag in lags]
    return xr.concat(shifted, xr.Variable("lag", list(lags)), coords="minimal", join="exact") - at_base


def halves(identity: ArrayLike, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split faces into two halves of equally many people, nobody in both; positions of the faces of each.

    Parameters
    ----------
    identity : array_like of int, shape (face,)
        With an odd number of people one of them is left out.

    Examples
    --------
    >>> one, other = fb.halves([0, 0, 1, 1, 2, 2, 3, 3])
    >>> len(one), len(other)
    (4, 4)
    """
    identity = np.asarray(identity)
    if pd.isna(identity).any():
        raise ValueError(f"identity must have a label for every face, but {pd.isna(identity).sum()} are missing")
    people = np.random.default_rng(seed).permutation(np.unique(identity))
    half = len(people) // 2
    return tuple(np.flatnonzero(np.isin(identity, people[k * half : (k + 1) * half])) for k in (0, 1))
