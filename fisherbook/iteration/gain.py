"""Why the iteration diffuses: the gain of information on the density, its noise in three parts, and what follows.

All functions take complex Fourier coefficients c_k, so that a curve is Σ_k Re c_k exp(ikθ), and |c_k|²/2 is what k
contributes to its variance over the circle. Under a density whose logarithm has the coefficients ℓ_k, the
curve φ = ½ log F has φ_k = G_k ℓ_k + ξ_k: gain times density, and noise.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from .. import checks
from ..statistics.curves import _whole_grid


def harmonics(values: xr.DataArray, orders: Sequence[int]) -> xr.DataArray:
    """Return the coefficients c_k (..., frequency) of curves Σ_k Re c_k exp(ikθ) over an even grid of angles.

    Parameters
    ----------
    values : DataArray (..., angle)
    orders : sequence of int
        k = 1, 2, …, the new coordinate; below half the number of angles, as faster curves look like slower ones there.
    """
    at = xr.DataArray(_whole_grid(values), dims="angle")
    if np.min(orders) < 1 or np.max(orders) >= at.size / 2 or np.mod(orders, 1).any():
        raise ValueError(f"orders must be from 1 to below half the number of angles, not {list(orders)}")
    about = {"units": "1", "long_name": "frequency k, periods per turn"}
    k = xr.DataArray(np.asarray(orders), {"frequency": ("frequency", np.asarray(orders), about)})
    return 2 * (values * np.exp(-1j * k * at)).mean("angle", skipna=False)


def response(curves: xr.DataArray, densities: xr.DataArray, orders: Sequence[int]) -> xr.DataArray:
    """Return the gain G_k (..., frequency), from curves under pairs of opposite densities.

    Half the difference of a pair has no noise that both share, and no answer to the density's even powers.

    Parameters
    ----------
    curves : DataArray (sign, ..., angle)
        φ under ℓ (``sign`` 1) and under -ℓ (-1).
    densities : DataArray (..., angle)
        ℓ, with power at all of the frequencies: a multisine with random phases.
    orders : sequence of int

    Returns
    -------
    DataArray (..., frequency)
        G_k = Re ½ (φ⁺_k - φ⁻_k) ℓ_k* / |ℓ_k|². One pair is unbiased over random phases: what another frequency of the
        density gives k then has a random phase relative to ℓ_k, and averages out over pairs.
    """
    odd = harmonics(curves.sel(sign=1, drop=True) - curves.sel(sign=-1, drop=True), orders) / 2
    drive = harmonics(densities, orders)
    return (odd * drive.conj() / abs(drive) ** 2).real


def components(values: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Split the mean square of ξ_pr = fixed + pre-training_p + fresh_pr into the mean squares of its three parts.

    Parameters
    ----------
    values : array_like, shape (pretraining, replicate, ...)
        Real or complex: at least two pre-trained networks p, from each of them at least two fine-tuned ones r.

    Returns
    -------
    dict of array, shape (...)
        ``fixed``, ``pretraining`` and ``fresh``, unbiased, so that the first two may be negative. They add up to the
        mean of |ξ|².

    Notes
    -----
    With A_p = Σ_r ξ_pr, P networks and R replicates, E|A_p|² = R² (fixed + pre-training) + R fresh, and products of
    different networks hold only what is fixed: fixed = (|Σ A_p|² - Σ|A_p|²) / (P(P-1)R²), fixed + pre-training =
    Σ_p(|A_p|² - Σ_r|ξ|²) / (P R(R-1)); the method of moments of a nested analysis of variance (Searle, Casella and
    McCulloch 1992, chapter 3), for a fixed part that is a constant instead of a mean.
    """
    values = np.asarray(values)
    count, replicates = values.shape[:2]
    checks.whole_number("pre-trained networks", count, least=2)
    checks.whole_number("replicates", replicates, least=2)
    sums, total = values.sum(1), _square(values).mean((0, 1))
    fixed = (_square(sums.sum(0)) - _square(sums).sum(0)) / (count * (count - 1) * replicates**2)
    within = (_square(sums).mean(0) / replicates - total) / (replicates - 1)
    return {"fixed": fixed, "pretraining": within - fixed, "fresh": total - within}


def amplification(
    gain: ArrayLike, steps: float, rate: float = 1.0, reversion: float | ArrayLike = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by how much constant and fresh noise are amplified in |ℓ_k|² after some steps of the iteration.

    The iteration is ℓ ← (1 - reversion) ℓ - rate φ, so that ℓ_n = -rate Σ_{j<n} m^j ξ_{n-1-j} with m = 1 - reversion -
    rate G, started at the uniform density.

    Parameters
    ----------
    gain : array_like
        G, real or complex.
    steps : int or inf
        n; inf is the stationary state.
    rate : float
        1 for the scheme `plain`.
    reversion : float or array_like
        0 but for the scheme `mean_reverting`.

    Returns
    -------
    drift, diffusion : array
        rate² |Σ m^j|², which is n² for m = 1, and rate² Σ |m|^2j, which is n; infinite in a stationary state that is
        not reached, |m| ≥ 1.
    """
    multiplier = 1 - np.asarray(reversion) - rate * np.asarray(gain)
    if steps == np.inf:
        outside = np.abs(multiplier) >= 1
        m = np.where(outside, 0, multiplier)
        return tuple(rate**2 * np.where(outside, np.inf, x) for x in (1 / _square(1 - m), 1 / (1 - _square(m))))
    powers = multiplier[..., None] ** np.arange(checks.whole_number("steps", steps, least=0))
    return rate**2 * _square(powers.sum(-1)), rate**2 * _square(powers).sum(-1)


def predicted(
    gain: ArrayLike, noise: Mapping[str, ArrayLike], steps: Sequence[float], replicates: int = 1, **scheme: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the drift and the diffusion in |ℓ_k|² that gain and noise predict, without a fitted parameter.

    Parameters
    ----------
    gain : array_like, shape (frequency,)
    noise : mapping
        As `components` returns it, (frequency,) each.
    steps : sequence of int or inf
    replicates : int
        Fine-tuned networks whose mean curve drives a chain.
    **scheme
        ``rate`` and ``reversion``, as in `amplification`.

    Returns
    -------
    drift, diffusion : array, shape (step, frequency)
        What chains from one pre-trained network have in common, as fixed and pre-training noise are the same at every
        step; and what is each chain's own.
    """
    labels = [np.ravel(each.frequency).tolist() for each in (gain, *noise.values()) if hasattr(each, "frequency")]
    if any(each != labels[0] for each in labels):
        raise ValueError(f"gain and noise must be those of the same frequencies, not of {labels}")
    drift, diffusion = np.array([amplification(gain, n, **scheme) for n in steps]).swapaxes(0, 1)
    shared = np.asarray(noise["fixed"]) + noise["pretraining"]
    return drift * shared, diffusion * np.asarray(noise["fresh"]) / replicates


def _square(values: ArrayLike) -> NDArray[np.float64]:
    return np.abs(values) ** 2
