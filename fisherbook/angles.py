"""The circle: half-open grids, wrapping, circular moments, and densities that sample and evaluate.

Angles are in radians on [-pi, pi); positive angles turn counter-clockwise.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import scipy  # its parts are loaded when they are used
from numpy.typing import ArrayLike, NDArray

from . import checks

Angles = TypeVar("Angles")  # an array, a tensor or a number
FULL_CIRCLE = (-np.pi, np.pi)
_ROUNDING = 1e-9  # rad, by which an angle may miss the end of an arc that it is
_CELLS = 1 << 14  # of the table that inverts a cumulative distribution; 4e-4 rad on the full circle


def grid(n: int) -> NDArray[np.float64]:
    """Return `n` equally spaced angles on [-pi, pi): -pi is in, pi is not.

    Examples
    --------
    >>> fb.grid(4).round(2).tolist()
    [-3.14, -1.57, 0.0, 1.57]
    """
    n = checks.whole_number("angles", n)
    return -np.pi + 2 * np.pi * np.arange(n) / n


def as_angles(
    angles: int | ArrayLike, period: float = 2 * np.pi, unit: str | None = None, argument: str = "angles"
) -> NDArray[np.float64]:
    """Return angles in rad as a one-dimensional float64 array.

    Parameters
    ----------
    angles : int or array_like
        A whole number (of integer type) is a number of angles on the half-open circle; a single number of floating
        type is that angle.
    period : float
        rad; angles beyond twice this are no radians, and are refused.
    unit : {"rad", "deg"}, optional
        Of the angles given: radians unless degrees are asked for.
    argument : str
        What a refusal calls them.
    """
    degrees = checks.one_of("unit", unit or "rad", ("rad", "deg")) == "deg"
    angles = checks.plain(angles)
    if angles.ndim == 0 and angles.dtype.kind in "iub":
        return grid(angles.item())
    try:
        angles = np.atleast_1d(angles.astype(np.float64, casting="safe" if angles.dtype.kind in "cmM" else "unsafe"))
    except (TypeError, ValueError):
        raise ValueError(f"{argument} must be numbers, not {angles.dtype}") from None
    checks.shape(argument, angles.shape, "angle")
    if not len(angles) or not np.isfinite(angles).all():
        raise ValueError(f"{argument} must be finite numbers{'' if period == np.inf else ' in radians'}, one or more")
    angles = np.deg2rad(angles) if degrees else angles
    if np.abs(angles).max() > 2 * period + 1e-9:
        hint = "" if degrees else "; np.deg2rad converts degrees, and so does unit='deg' of estimate"
        ends = f"{angles.min():.4g} to {angles.max():.4g} rad"
        raise ValueError(f"{argument} from {ends} lie beyond two periods of {period:.3g} rad{hint}")
    return angles


def wrap(angles: Angles) -> Angles:
    """Wrap angles (rad; numpy array, torch tensor or number) to [-pi, pi)."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def circular_mean(angles: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Return the direction of the mean resultant vector, in rad."""
    return np.angle(np.exp(1j * np.asarray(angles)).mean(axis))


@dataclass(frozen=True)
class Density:
    """A probability density of the angle on the circle.

    Made by `uniform`, `von_mises` or `tabulated`; a plain value that can be compared, hashed and stored.

    Attributes
    ----------
    kind : str
        ``"uniform"``, ``"von_mises"`` or ``"tabulated"``.
    parameters : tuple of float
        ``(low, high)``, ``(loc, kappa)``, or the values at `grid(len(parameters))`.
    """

    kind: str
    parameters: tuple[float, ...]

    @property
    def support(self) -> tuple[float, float]:
        """The arc (low, high) in rad outside which the density is zero; `FULL_CIRCLE` where it is nowhere zero."""
        if self.kind == "uniform":
            return self.parameters
        if self.kind == "tabulated" and 0.0 in self.parameters:
            return _tabulated_support(self.parameters)
        return FULL_CIRCLE

    def contains(self, angles: ArrayLike) -> NDArray[np.bool_]:
        """Say for each angle (rad) whether it lies on the support, whose ends belong to it, rounded as they may be."""
        low, high = self.support
        return (np.asarray(angles) - low + _ROUNDING) % (2 * np.pi) <= min(high - low + 2 * _ROUNDING, 2 * np.pi)

    def pdf(self, angles: ArrayLike) -> NDArray[np.float64]:
        """Return the density in rad⁻¹ at `angles` (rad, any shape)."""
        angles = np.asarray(angles, np.float64)
        if self.kind == "uniform":
            low, high = self.parameters
            return np.where(self.contains(angles), 1 / (high - low), 0.0)
        if self.kind == "von_mises":
            loc, kappa = self.parameters
            # exp(kappa cos) / (2 pi I0(kappa)), with the exponentially scaled I0 so that no kappa overflows
            return np.exp(kappa * (np.cos(angles - loc) - 1)) / (2 * np.pi * scipy.special.i0e(kappa))
        n = len(self.parameters)
        values = np.append(self.parameters, self.parameters[0])
        return np.interp((angles + np.pi) % (2 * np.pi), np.linspace(0, 2 * np.pi, n + 1), values)

    def sample(self, uniforms: ArrayLike) -> NDArray[np.float64]:
        """Turn uniform draws on [0, 1) into angles (rad), by inverting the cumulative distribution.

        One draw makes one angle, so that two densities given the same draws give comparable angles.
        """
        edges, cumulative = _inversion_table(self)
        return wrap(np.interp(uniforms, cumulative, edges))


def uniform(low: ArrayLike = -np.pi, high: ArrayLike = np.pi) -> Density | tuple[Density, ...]:
    """Return the uniform density on the arc from `low` to `high` (rad), by default the whole circle.

    Arrays, shape (replicate,), give a tuple with a density for each replicate.

    Examples
    --------
    >>> float(fb.uniform().pdf(0.0).round(3))
    0.159
    >>> fb.uniform(-1, 1).pdf([0.0, 2.0]).tolist()
    [0.5, 0.0]
    """
    if np.ndim(low) or np.ndim(high):
        return tuple(uniform(*ends) for ends in zip(*np.broadcast_arrays(low, high), strict=True))
    low, high = checks.number("low", low), checks.number("high", high)
    if not 0 < high - low <= 2 * np.pi + 1e-12:
        raise ValueError(f"uniform needs low < high at most one turn apart, not low={low:g} and high={high:g}")
    return Density("uniform", (low, high))


def von_mises(loc: ArrayLike = 0.0, kappa: float = 1.0) -> Density | tuple[Density, ...]:
    """Return the von Mises density with mean direction `loc` (rad) and concentration `kappa` (at least 0).

    An array of directions, shape (replicate,), gives a tuple with a density for each replicate.

    Examples
    --------
    >>> density = fb.von_mises(loc=np.pi / 2, kappa=3)
    >>> density.pdf([np.pi / 2, -np.pi / 2]).round(4).tolist()
    [0.655, 0.0016]
    """
    if np.ndim(loc):
        return tuple(von_mises(one, kappa) for one in np.asarray(loc))
    if np.ndim(kappa) or np.asarray(kappa).dtype.kind not in "biuf" or not 0 <= kappa < np.inf:
        raise ValueError(f"kappa must be a finite number of at least 0, not {kappa!r}")
    return Density("von_mises", (float(wrap(checks.number("loc", loc))), float(kappa)))


def tabulated(values: ArrayLike) -> Density:
    """Return the density that interpolates `values` linearly, in the order of `grid(len(values))`.

    Parameters
    ----------
    values : array_like, shape (n,)
        Non-negative numbers proportional to the density at the n grid angles; they are normalised here.

    Examples
    --------
    >>> density = fb.tabulated([0, 1, 2, 1])
    >>> density.pdf(fb.grid(4)).round(3).tolist()
    [0.0, 0.159, 0.318, 0.159]
    """
    values = np.ma.asarray(values, np.float64).filled(np.nan)
    checks.shape("values", values.shape, "angle")
    if len(values) < 3 or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ValueError("values must be at least 3 finite, non-negative numbers that are not all zero")
    return Density("tabulated", tuple((values / (values.mean() * 2 * np.pi)).tolist()))


def _tabulated_support(values: tuple[float, ...]) -> tuple[float, float]:
    # The longest run of zeros, seen on the circle, is what the support leaves out.
    n = len(values)
    positive = np.flatnonzero(values)
    gaps = np.diff(np.append(positive, positive[0] + n))
    widest = int(gaps.argmax())
    first, last = positive[(widest + 1) % len(positive)], positive[widest]
    low, high = first - 1, last + 1 + (n if last < first else 0)
    if high - low >= n:
        return FULL_CIRCLE
    return tuple((-np.pi + 2 * np.pi * np.array([low, high]) / n).tolist())


@lru_cache(maxsize=256)
def _inversion_table(density: Density) -> tuple[NDArray, NDArray]:
    edges = np.linspace(*density.support, _CELLS + 1)
    heights = density.pdf(np.r_[edges[0] + _ROUNDING, edges[1:-1], edges[-1] - _ROUNDING])  # the ends belong to it
    if density.kind == "von_mises" and (kappa := density.parameters[1]) > 100:  # a table as narrow as the density
        apart = np.linspace(-10, 10, _CELLS + 1) / np.sqrt(kappa)
        edges, heights = density.parameters[0] + apart, np.exp(-2 * kappa * np.sin(apart / 2) ** 2)
    cumulative = np.concatenate([[0.0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
    return edges, cumulative / cumulative[-1]
