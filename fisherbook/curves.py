"""Statistics of curves over the circle: safe logarithms, structure functions, densities.

Curves are periodic; no function here knows an edge at ±π.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares, nnls
from scipy.special import ive

from . import angles as circle

if TYPE_CHECKING:  # takes seconds to import, and only who has an activity needs it
    from torch import Tensor

    from .activity import Activity

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
    import torch

    chunks = [torch.stack([plugin(p) for p in parts.values()]).cpu() for plugin in _plugins(activity, delta)]
    coords = {"part": list(parts), "replicate": activity.replicate, "angle": activity.angles}
    return xr.DataArray(0.5 * torch.cat(chunks, -1).log().numpy(), coords)


def _plugins(activity: "Activity", delta: float | None) -> Iterator[Callable[[NDArray], "Tensor"]]:
    """Yield, chunk by chunk, what returns the plug-in (replicate, angle) of a set of faces."""
    import torch

    from .fisher.kernels import direct, plugin_information

    if delta is None:
        for _, responses, slopes in activity.chunks():
            yield lambda p, r=responses, d=slopes: plugin_information(r[:, :, p], d[:, :, p])
    else:
        sides = (activity.shifted(sign * delta / 2).chunks(tangents=False) for sign in (-1, 1))
        for (_, minus, _), (_, plus, _) in zip(*sides, strict=True):
            pair = torch.stack([minus, plus], 2)
            yield lambda p, both=pair: direct(both[..., p, :], delta).plugin


def _bias(activity: "Activity") -> NDArray[np.float64]:
    from .fisher.kernels import tangent

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
    activity: "Activity",
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


def harmonics(values: ArrayLike, angles: ArrayLike, orders: Sequence[int] = range(1, 9)) -> NDArray[np.complex128]:
    """Return the Fourier coefficients c_k = ⟨φ(θ) exp(-ikθ)⟩ of curves over the circle.

    The k-th harmonic has its crests where kθ = -arg c_k, and its amplitude is 2 |c_k|.

    Parameters
    ----------
    values : array_like, shape (..., angle)
    angles : array_like, shape (angle,)
        Equally spaced over the circle, rad.
    orders : sequence of int
        k.

    Returns
    -------
    array, shape (..., order)
    """
    return np.asarray(values) @ np.exp(-1j * np.outer(angles, orders)) / len(angles)


def shared_power(coefficients: ArrayLike) -> NDArray[np.float64]:
    """Return C_k = (|Σ_r c_k^r|² - Σ_r |c_k^r|²) / (R (R - 1)), the mean over pairs of replicates of Re c_k^r c_k^s*.

    It is |⟨c_k⟩|² without bias: 0 in the mean for replicates whose phases have nothing in common.

    Parameters
    ----------
    coefficients : array_like of complex, shape (..., replicate, order)

    Returns
    -------
    array, shape (..., order)
    """
    coefficients = np.asarray(coefficients)
    count = coefficients.shape[-2]
    own = (np.abs(coefficients) ** 2).sum(-2)
    return (np.abs(coefficients.sum(-2)) ** 2 - own) / (count * (count - 1))


def shared_harmonics(
    values: ArrayLike,
    angles: ArrayLike,
    orders: Sequence[int] = range(1, 9),
    draws: int = 4000,
    seed: int = 0,
    level: float = 0.95,
) -> xr.Dataset:
    """Return the harmonic power that replicates share, against that of curves turned by independent random angles.

    Parameters
    ----------
    values : array_like, shape (replicate, angle)
    angles, orders
        As in `harmonics`.
    draws : int
        Of random shifts, one per replicate, which all orders undergo together.

    Returns
    -------
    Dataset
        By order: ``power``, as `shared_power`; ``threshold``, which shifted curves stay below at all orders at once
        with the probability `level`; and ``p_value``, likewise family-wise. An order's threshold is in
        proportion to its root-mean-square power among shifted curves.
    """
    coefficients = harmonics(values, angles, orders)
    shifts = np.random.default_rng(seed).uniform(-np.pi, np.pi, (draws, len(coefficients), 1))
    null = shared_power(coefficients * np.exp(1j * np.asarray(orders) * shifts))
    power, scale = shared_power(coefficients), np.sqrt((null**2).mean(0))
    largest = (null / scale).max(-1)
    p_value = (1 + (largest[:, None] >= power / scale).sum(0)) / (1 + draws)
    found = {"power": power, "threshold": scale * np.quantile(largest, level), "p_value": p_value}
    return xr.Dataset({name: ("order", value) for name, value in found.items()}, {"order": list(orders)})


def peaks(values: ArrayLike, prominence: float = 0.0) -> NDArray[np.int64]:
    """Return the positions, ascending, of a periodic curve's maxima that rise by `prominence` on both sides.

    Parameters
    ----------
    values : array_like, shape (angle,)
    """
    from scipy.signal import find_peaks  # a second to import, and only this needs it

    values = np.asarray(values)
    lowest = int(values.argmin())
    turned = np.roll(values, -lowest)
    found, _ = find_peaks(np.append(turned, turned[0]), prominence=prominence)
    return np.sort((found + lowest) % len(values))


def shared_peaks(
    values: ArrayLike, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[NDArray[np.int64], float]:
    """Return the peaks of the mean over replicates that stand out from curves turned by independent random angles.

    Parameters
    ----------
    values : array_like, shape (replicate, angle)
        Equally spaced over the circle.

    Returns
    -------
    positions : array of int
        Of the mean curve's maxima above the height.
    height : float
        Above the mean over angles, which the highest point of the shifted curves' mean stays below with the probability
        `level`: family-wise over all angles.
    """
    values = np.asarray(values) - np.mean(values, -1, keepdims=True)
    count, size = values.shape
    shifts = np.random.default_rng(seed).integers(size, size=(draws, count))
    null = sum(row[(np.arange(size) + shift[:, None]) % size] for row, shift in zip(values, shifts.T, strict=True))
    mean, height = values.mean(0), float(np.quantile(null.max(-1) / count, level))
    found = peaks(mean)
    return found[mean[found] > height], height


def concentration(log_ratio: xr.DataArray, density: xr.DataArray, least: float = 0.1) -> xr.Dataset:
    """Fit α of √F ∝ p^α where the density is not small, by least squares of log √F against log p.

    Parameters
    ----------
    log_ratio : DataArray (..., angle)
        ½ log of the ratio of F after training with the density to F after training with a uniform one.
    density : DataArray (..., angle)
        Any unit; its dimensions are some of `log_ratio`'s.
    least : float
        Share of the density's maximum below which angles are left out.

    Returns
    -------
    Dataset
        ``exponent`` α, ``offset`` (½ log ratio where the density is at its geometric mean over the angles kept) and
        ``scatter``, the root mean square of what the line leaves, with n - 2 in the denominator; dimensions (...).
    """
    x = np.log(density.where(density > least * density.max("angle")))
    y = log_ratio.where(np.isfinite(x))
    x, offset = x - x.mean("angle"), y.mean("angle")
    slope = (x * y).sum("angle") / (x**2).sum("angle")
    left = ((y - offset - slope * x) ** 2).sum("angle") / (x.count("angle") - 2)
    return xr.Dataset({"exponent": slope, "offset": offset, "scatter": np.sqrt(left)})


def inverse_line(exponents: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """Fit 1/α = a + b q by least squares of α itself, whose errors stay bounded where α comes near 0.

    Parameters
    ----------
    exponents : array_like, shape (replicate, loss)
        α of each replicate and loss; it may be negative here and there.
    q : array_like, shape (loss,)
        The losses' exponents.

    Returns
    -------
    array, shape (replicate, 2)
        One (a, b) per replicate, linearised about the fit to the replicates' mean: their mean is that fit, and the
        standard error of their mean is the fit's (delta method).

    Raises
    ------
    ValueError
        If the replicates' mean of α is not positive on average over losses: then no such line describes it.
    """
    exponents, q = np.asarray(exponents, np.float64), np.asarray(q, np.float64)
    mean = exponents.mean(0)
    if not mean.mean() > 0:
        raise ValueError(f"1/α has no line where α is not positive, but its mean is {mean.mean():.3g}")
    ends = np.array([q.min(), q.max()])
    share = (q - ends[0]) / (ends[1] - ends[0])
    weights = np.stack([1 - share, share], -1)
    found = least_squares(lambda at: 1 / (weights @ (1 / at)) - mean, np.full(2, mean.mean()), bounds=(1e-3, np.inf))
    line = np.linalg.solve(np.stack([np.ones(2), ends], -1), 1 / found.x)
    design = -np.stack([np.ones(len(q)), q], -1) / (line[0] + line[1] * q)[:, None] ** 2
    return line + (exponents - mean) @ np.linalg.pinv(design).T
