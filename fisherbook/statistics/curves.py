"""Statistics of curves over the circle: safe logarithms, structure functions, densities.

Curves are periodic; no function here knows an edge at ±π.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import ive

from .. import angles as circle
from .. import checks
from .estimates import _finite

BINS = 1024  # of the circle, when a density is smoothed
_EDGES = np.linspace(-np.pi, np.pi, BINS + 1)


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
    return smooth(counted(_finite(np.ravel(samples), "sample")), angles, concentration)


def counted(samples: ArrayLike) -> NDArray[np.int64]:
    """Count angles (rad) in the bins of `smooth`."""
    return np.histogram(circle.wrap(np.asarray(samples)), _EDGES)[0]


def smooth(counts: NDArray[np.int64], angles: ArrayLike, concentration: float = 100.0) -> NDArray[np.float64]:
    """Return the density of angles that were `counted`, as `density_of` does."""
    order = np.arange(BINS // 2 + 1)
    kernel = ive(order, concentration) / ive(0, concentration)  # Fourier coefficients of the von Mises density
    density = np.fft.irfft(np.fft.rfft(counts) * kernel, BINS) * BINS / (2 * np.pi * counts.sum())
    centres = (_EDGES[1:] + _EDGES[:-1]) / 2
    return np.interp(circle.wrap(np.asarray(angles, np.float64)), centres, density, period=2 * np.pi)


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
        At least two replicates.
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
    values = _finite(values, "replicate", "angle", least=2)
    coefficients = harmonics(values, angles, orders)
    coefficients[np.abs(coefficients) < 1e-13 * np.abs(values).max()] = 0  # rounding, which replicates may share
    shifts = np.random.default_rng(seed).uniform(-np.pi, np.pi, (draws, len(coefficients), 1))
    null = shared_power(coefficients * np.exp(1j * np.asarray(orders) * shifts))
    power, scale = shared_power(coefficients), np.sqrt((null**2).mean(0))
    unit = np.where(scale > 0, scale, 1)
    largest = (null / unit).max(-1)
    p_value = (1 + (largest[:, None] >= power / unit).sum(0)) / (1 + draws)
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


def centred(values: xr.DataArray, along: str = "angle") -> xr.DataArray:
    """Return curves less their mean along a dimension."""
    return values - values.mean(along)


def spread(values: xr.DataArray, over: str = "replicate") -> xr.DataArray:
    """Return by how much centred curves differ: standard deviation over replicates, root mean square over angles."""
    return centred(values).var(over, ddof=1, skipna=False).mean("angle", skipna=False) ** 0.5


def _whole_grid(values: xr.DataArray) -> NDArray[np.float64]:
    """Return the angles of curves, those of `grid` unless labelled, which must be a whole grid from any angle on."""
    at = values.angle.values if "angle" in values.coords else circle.grid(values.sizes["angle"])
    if np.abs(circle.wrap(np.diff(at, append=at[0]) - 2 * np.pi / len(at))).max() > 1e-6:
        raise ValueError("angles must be a whole grid of equal steps, ascending but for a turn")
    return at


def grid_increments(values: xr.DataArray, steps: Sequence[int]) -> xr.DataArray:
    """Return the increments φ(θ + Δ) - φ(θ), (lag, ..., angle), of curves on a whole grid, over so many steps."""
    width = 2 * np.pi / len(_whole_grid(values))
    lag = xr.Variable("lag", width * np.asarray(steps), {"units": "rad", "long_name": "lag Δ"})
    return xr.concat([values.roll(angle=-int(step)) - values for step in steps], lag, coords="minimal", join="exact")


def folded(values: xr.DataArray, edge: float = 0.0, name: str = "distance") -> xr.DataArray:
    """Return the mean of the two angles that lie equally far from 0, by their distance (rad) from an edge.

    Parameters
    ----------
    values : DataArray (..., angle)
        On a whole grid of an even number of angles, 0 among them.
    edge : float
        Subtracted from the distance.
    name : str
        Of the new dimension.
    """
    from_zero = np.abs(circle.wrap(_whole_grid(values)))
    side = np.arange(checks.whole_number("half the number of angles", len(from_zero) / 2) + 1)
    if from_zero.min() > 1e-6:
        raise ValueError("angles must have 0 among them to be folded there")
    distance = xr.Variable(name, 2 * np.pi * side / len(from_zero) - edge, {"units": "rad"})
    places = ((from_zero.argmin() + way * side) % len(from_zero) for way in (1, -1))
    one, other = (values.isel(angle=at).rename(angle=name).assign_coords({name: distance}) for at in places)
    return (one + other) / 2
