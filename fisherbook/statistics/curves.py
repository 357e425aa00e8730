"""Statistics of curves over the circle: safe logarithms, structure functions, densities.

Curves are periodic; no function here knows an edge at ±π.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from scipy.special import ive

from .. import angles as circle
from .. import checks

if TYPE_CHECKING:  # takes seconds to import, and only who has an activity needs it
    pass

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


def centred(values: xr.DataArray, along: str = "angle") -> xr.DataArray:
    """Return curves less their mean along a dimension."""
    return values - values.mean(along)


def spread(values: xr.DataArray, over: str = "replicate") -> xr.DataArray:
    """Return by how much centred curves differ: standard deviation over replicates, root mean square over angles."""
    return centred(values).var(over, ddof=1).mean("angle") ** 0.5


def grid_lags(angles: int, count: int = 12) -> NDArray[np.int64]:
    """Return at most `count` lags, in steps of a grid of so many angles, evenly spaced on a logarithmic axis."""
    return np.unique(np.geomspace(1, angles // 2, count).round().astype(int))


def grid_increments(values: xr.DataArray, steps: Sequence[int]) -> xr.DataArray:
    """Return the increments φ(θ + Δ) - φ(θ), (lag, ..., angle), of curves on a whole grid, over so many steps."""
    width = 2 * np.pi / values.sizes["angle"]
    lag = xr.Variable("lag", width * np.asarray(steps), {"units": "rad", "long_name": "lag Δ"})
    return xr.concat([values.roll(angle=-int(step)) - values for step in steps], lag, coords="minimal", join="exact")


def folded(values: xr.DataArray, edge: float = 0.0, name: str = "distance") -> xr.DataArray:
    """Return the mean of the two angles that lie equally far from 0, by their distance (rad) from an edge.

    Parameters
    ----------
    values : DataArray (..., angle)
        On a whole grid of an even number of angles.
    edge : float
        Subtracted from the distance.
    name : str
        Of the new dimension.
    """
    count = values.sizes["angle"]
    checks.whole_number("half the number of angles", count / 2)
    side = (count // 2 + np.arange(count // 2 + 1)) % count
    distance = xr.Variable(name, np.abs(values.angle.values[side]) - edge, {"units": "rad"})
    both = [values.isel(angle=at).rename(angle=name).assign_coords({name: distance}) for at in (side, -side % count)]
    return (both[0] + both[1]) / 2
