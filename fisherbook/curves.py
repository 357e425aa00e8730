"""Statistics of curves over the circle: safe logarithms, structure functions, densities.

Curves are periodic; no function here knows an edge at ±π.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from scipy.special import ive
from torch import Tensor

from . import angles as circle
from .activity import Activity
from .fisher.kernels import direct, plugin_information, tangent

_BIAS_ANGLES = 32  # on which the bias of the logarithm is measured
_BINS = 1024  # of the circle, when a density is smoothed


def density_of(samples: ArrayLike, angles: ArrayLike, concentration: float = 100.0) -> NDArray[np.float64]:
    """Estimate the density of angles on the circle with a von Mises kernel.

    Parameters
    ----------
    samples : array_like, shape (sample,)
        Angles in rad.
    angles : array_like, shape (angle,)
        Where to evaluate.
    concentration : float
        Of the kernel; 100 is a standard deviation of 0.1 rad.

    Returns
    -------
    array, shape (angle,)
        rad⁻¹.
    """
    edges = np.linspace(-np.pi, np.pi, _BINS + 1)
    counts, _ = np.histogram(circle.wrap(np.asarray(samples)), edges)
    order = np.arange(_BINS // 2 + 1)
    kernel = ive(order, concentration) / ive(0, concentration)  # Fourier coefficients of the von Mises density
    smooth = np.fft.irfft(np.fft.rfft(counts) * kernel, _BINS) * _BINS / (2 * np.pi * counts.sum())
    centres = (edges[1:] + edges[:-1]) / 2
    return np.interp(circle.wrap(np.asarray(angles, np.float64)), centres, smooth, period=2 * np.pi)


def log_fisher(
    activity: Activity, parts: Mapping[str, ArrayLike] | None = None, delta: float | None = None
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

    Returns
    -------
    Dataset
        ``log_fisher`` (part, replicate, angle), and ``log_fisher_bias`` (part, replicate): ½ log of the ratio of the
        plug-in's mean over angles to that of the corrected estimate; missing where the latter is not positive, or the
        faces are too few for it.
    """
    parts = _parts(activity, parts)
    few = activity.at(activity.angles[:: max(1, len(activity.angles) // _BIAS_ANGLES)])
    bias = xr.DataArray([_bias(few.subset(p)) for p in parts.values()], dims=("part", "replicate"))
    return xr.Dataset({"log_fisher": _logarithm(activity, parts, delta), "log_fisher_bias": bias})


def _parts(activity: Activity, parts: Mapping[str, ArrayLike] | None) -> dict[str, NDArray]:
    everybody = {"all": np.arange(activity.face.shape[1])}
    return {name: np.asarray(chosen) for name, chosen in (parts or everybody).items()}


def _logarithm(activity: Activity, parts: Mapping[str, NDArray], delta: float | None) -> xr.DataArray:
    chunks = [torch.stack([plugin(p) for p in parts.values()]).cpu() for plugin in _plugins(activity, delta)]
    coords = {"part": list(parts), "replicate": activity.replicate, "angle": activity.angles}
    return xr.DataArray(0.5 * torch.cat(chunks, -1).log().numpy(), coords)


def _plugins(activity: Activity, delta: float | None) -> Iterator[Callable[[NDArray], Tensor]]:
    """Yield, chunk by chunk, what returns the plug-in (replicate, angle) of a set of faces."""
    if delta is None:
        for _, responses, slopes in activity.chunks():
            yield lambda p, r=responses, d=slopes: plugin_information(r[:, :, p], d[:, :, p])
    else:
        sides = (activity.shifted(sign * delta / 2).chunks(tangents=False) for sign in (-1, 1))
        for (_, minus, _), (_, plus, _) in zip(*sides, strict=True):
            pair = torch.stack([minus, plus], 2)
            yield lambda p, both=pair: direct(both[..., p, :], delta).plugin


def _bias(activity: Activity) -> NDArray[np.float64]:
    responses, slopes = activity.whole()
    bias = []
    for r, (response, slope) in enumerate(zip(responses, slopes, strict=True)):
        try:
            found = tangent(response, slope, None if activity.identity is None else activity.identity[r])
        except ValueError:  # too few faces
            bias.append(np.nan)
        else:
            bias.append(0.5 * float((found.plugin.mean() / found.information.mean().clamp(min=0)).log()))
    return np.where(np.isfinite(bias), bias, np.nan)


def increments(
    activity: Activity,
    lags: Sequence[float],
    parts: Mapping[str, ArrayLike] | None = None,
    delta: float | None = None,
) -> xr.DataArray:
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
    """
    identity = np.asarray(identity)
    people = np.random.default_rng(seed).permutation(np.unique(identity))
    half = len(people) // 2
    return tuple(np.flatnonzero(np.isin(identity, people[k * half : (k + 1) * half])) for k in (0, 1))


def correlation_length(lags: ArrayLike, structure: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    """Return the lag (rad) at which S(Δ) first reaches the curve's variance, half of what it tends to.

    Parameters
    ----------
    lags : array_like, shape (lag,)
        Ascending.
    structure : array_like, shape (..., lag)
    variance : array_like, shape (...)
        Of the curve over the circle.

    Returns
    -------
    array, shape (...)
        Interpolated between lags on logarithmic axes; the largest lag where S stays below.
    """
    lags, structure = np.log(lags), np.log(structure)
    level = np.log(variance)[..., None]
    above = structure >= level
    first = np.where(above.any(-1), above.argmax(-1), len(lags) - 1).clip(1)[..., None]
    low, high = (np.take_along_axis(structure, first - back, -1) for back in (1, 0))
    share = ((level - low) / (high - low)).clip(0, 1)
    return np.exp(lags[first - 1] + share * (lags[first] - lags[first - 1]))[..., 0]


def structure_fit(lags: ArrayLike, structure: ArrayLike) -> NDArray[np.float64]:
    """Fit S(Δ) = aΔ² + bΔ with a, b ≥ 0, by least squares of relative errors.

    The first term belongs to a differentiable curve; the second to one whose derivative jumps, as a random walk.

    Parameters
    ----------
    lags : array_like, shape (lag,)
        Δ in rad, below the curve's correlation length.
    structure : array_like, shape (..., lag)
        S(Δ).

    Returns
    -------
    array, shape (..., 2)
        a (rad⁻²) and b (rad⁻¹).
    """
    lags, structure = np.asarray(lags, np.float64), np.asarray(structure, np.float64)
    terms = np.stack([lags**2, lags], -1)

    def fit(values: NDArray) -> NDArray:
        return nnls(terms / values[:, None], np.ones(len(lags)))[0]

    return np.apply_along_axis(fit, -1, structure)


def local_exponent(lags: ArrayLike, structure: ArrayLike) -> NDArray[np.float64]:
    """Return the roughness (Hurst) exponent H of S(Δ) ∝ Δ^(2H), by a straight line through log S against log Δ.

    Parameters
    ----------
    lags : array_like, shape (lag,)
    structure : array_like, shape (..., lag)

    Returns
    -------
    array, shape (...)
        1 for a differentiable curve, ½ for one whose increments are independent.
    """
    x = np.log(lags) - np.log(lags).mean()
    return (np.log(structure) * x).sum(-1) / (x**2).sum() / 2
