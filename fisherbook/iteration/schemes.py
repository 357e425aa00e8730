"""Schemes of the fixed-point iteration, and the arithmetic of densities and curves that they share.

Densities are natural logarithms ℓ = log p on `angles.grid`, curves φ = ½ log F. A scheme turns a measured curve into
the next density; `adaptation.adapt` runs it.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import angles as circle
from .. import checks

Array = NDArray[np.float64]
State = Mapping[str, Any]
LIMIT = np.log(50)  # of |log p - log uniform|
_DEGENERATE = np.log(20)
_UNIFORM = -np.log(2 * np.pi)


# A scheme is a pure function (ℓ, φ, error of φ, state; options) → (ℓ, state): arrays (chain, angle), the state a
# mapping, empty at first. What it returns needs no normalisation; `state["solution"]`, if there, is its best answer.


def plain(log_density: Array, curve: Array, error: Array, state: State, scales: int = 16) -> tuple[Array, State]:
    """ℓ ← ℓ - P_K φ, K = `scales` frequencies kept: the prior work's iteration."""
    return log_density - band(curve, scales), state


def smoothed(
    log_density: Array, curve: Array, error: Array, state: State, width: float = 0.4, scales: int = 16
) -> tuple[Array, State]:
    """As `plain`, with the curve smoothed by a Gaussian kernel of `width` rad."""
    return log_density - band(curve, scales, lambda k: np.exp(-0.5 * (k * width) ** 2)), state


def damped(
    log_density: Array, curve: Array, error: Array, state: State, rate: float = 0.3, scales: int = 16
) -> tuple[Array, State]:
    """ℓ ← ℓ - `rate` P_K φ."""
    return log_density - rate * band(curve, scales), state


def robbins_monro(
    log_density: Array, curve: Array, error: Array, state: State, rate: float = 2.0, power: float = 0.7,
    scales: int = 16,
) -> tuple[Array, State]:  # fmt: skip
    """ℓ ← ℓ - a_n P_K φ with a_n = `rate` (n + 1)^-`power`, where n counts from 0."""
    n = state.get("n", 0)
    return log_density - rate * (n + 1) ** -power * band(curve, scales), {"n": n + 1}


def mean_reverting(
    log_density: Array, curve: Array, error: Array, state: State, kept: int = 4, reversion: float = 0.5,
    scales: int = 16,
) -> tuple[Array, State]:  # fmt: skip
    """As `plain` for the first `kept` frequencies; above, ℓ_k is drawn back to 0 by the share `reversion`."""
    back = band(log_density, None, lambda k: np.where(k > kept, reversion, 0.0))
    return log_density - back - band(curve, scales), state


def anderson(
    log_density: Array, curve: Array, error: Array, state: State, memory: int = 3, scales: int = 16
) -> tuple[Array, State]:
    """Anderson acceleration of `plain`: the combination of the latest densities whose curves cancel best."""
    residual = -band(curve, scales)
    past = (*state.get("past", ()), (log_density, residual))[-memory - 1 :]
    if len(past) == 1:
        return log_density + residual, {"past": past}
    moved, changed = (np.stack([new[i] - old[i] for old, new in itertools.pairwise(past)], -1) for i in (0, 1))
    weights = np.stack([np.linalg.lstsq(c, r, rcond=1e-3)[0] for c, r in zip(changed, residual, strict=True)])
    step = residual - np.einsum("cam,cm->ca", moved + changed, weights)
    return log_density + step, {"past": past}


def newton(
    log_density: Array, curve: Array, error: Array, state: State, gain: ArrayLike = (0.3, 0.3, 0.2, 0.15),
    power: float = 0.7, reversion: float = 0.5,
) -> tuple[Array, State]:  # fmt: skip
    """ℓ_k ← ℓ_k - (n + 1)^-`power` φ_k / G_k for k = 1, 2, … of `gain`; where that is 0 or missing, ℓ_k is drawn back.

    The solution is the average of all densities after the first step (Polyak and Ruppert).
    """
    n, of = state.get("n", 0), by_scale(gain)
    newtons = band(curve, None, lambda k: np.divide(1.0, of(k), out=np.zeros(len(k)), where=of(k) > 0))
    back = band(log_density, None, lambda k: np.where(of(k) > 0, 0.0, reversion))
    following = normalised(log_density - (n + 1) ** -power * newtons - back)[0]
    mean = following if n == 0 else (state["solution"] * n + following) / (n + 1)
    return following, {"n": n + 1, "solution": mean}


#: The schemes of `adapt`, by name.
SCHEMES: dict[str, Callable[..., tuple[Array, State]]] = {
    scheme.__name__: scheme for scheme in (plain, smoothed, damped, robbins_monro, mean_reverting, anderson, newton)
}


def band(curve: ArrayLike, scales: int | None, weight: Callable[[Array], Array] | None = None) -> Array:
    """Return the frequencies k = 1 … `scales` of curves (..., angle), each times `weight(k)`; the mean is left out."""
    curve = np.asarray(curve, np.float64)
    k = np.arange(curve.shape[-1] // 2 + 1)
    last = k[-1] if scales is None else checks.whole_number("scales", scales)
    factor = np.where((k > 0) & (k <= last), 1.0, 0.0) * (1.0 if weight is None else weight(k))
    return np.fft.irfft(np.fft.rfft(curve) * factor, curve.shape[-1])


def by_scale(values: ArrayLike) -> Callable[[Array], Array]:
    """Return the function of the frequency k that has the given values at k = 1, 2, …, and 0 elsewhere."""
    known = np.concatenate([[0.0], np.nan_to_num(first_scales(values)), [0.0]])
    return lambda k: known[np.minimum(k, len(known) - 1)]


def first_scales(values: Any) -> Array:
    """Return what is known of the frequencies k = 1, 2, … as an array; labels that say otherwise are refused."""
    k = np.ravel(values.frequency).tolist() if "frequency" in getattr(values, "coords", ()) else []
    if k != list(range(1, len(k) + 1)):
        raise ValueError(f"values must be those of the frequencies 1, 2, … without a gap, not of {k}")
    return np.asarray(values, np.float64)


def coefficients(curve: ArrayLike) -> NDArray[np.complex128]:
    """Return c_k of curves (..., angle) = Σ_k Re c_k exp(ikθ) on `angles.grid`, (..., frequency), k = 0 first."""
    curve = np.asarray(curve, np.float64)
    k = np.arange(curve.shape[-1] // 2 + 1)
    return np.fft.rfft(curve) * np.exp(1j * np.pi * k) * np.where(k, 2, 1) / curve.shape[-1]


def normalised(log_density: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """Return ℓ (..., angle) clipped at log 50 from uniform and with ∫ exp ℓ = 1, and how many angles were clipped."""

    def whole(values: Array) -> Array:
        top = values.max(-1, keepdims=True)
        return values - top - np.log(np.exp(values - top).mean(-1, keepdims=True)) + _UNIFORM

    log_density = whole(np.asarray(log_density, np.float64))
    clipped = log_density.clip(_UNIFORM - LIMIT, _UNIFORM + LIMIT)
    return whole(clipped), (clipped != log_density).sum(-1)


def degenerate(log_density: ArrayLike) -> NDArray[np.str_]:
    """Name what is wrong with densities (..., angle): ``spike`` (20 times uniform), ``hole`` (a 20th), or ``none``."""
    excess = np.asarray(log_density) - _UNIFORM
    spike, hole = (excess > _DEGENERATE).any(-1), (excess < -_DEGENERATE).any(-1)
    return np.select([spike & hole, spike, hole], ["spike and hole", "spike", "hole"], "none")


def multisines(chains: int, angles: int, rms: float = 0.5, scales: int = 4, seed: int = 0) -> Array:
    """Return ℓ (chain, angle) with equal amplitudes at k = 1 … `scales`, random phases and this rms about its mean."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, (chains, scales, 1))
    waves = np.cos(np.arange(1, scales + 1)[:, None] * circle.grid(angles) + phases).sum(1)
    return normalised(rms * np.sqrt(2 / scales) * waves)[0]
