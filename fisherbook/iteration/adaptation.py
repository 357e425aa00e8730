"""The fixed-point iteration: re-weight the training density by the measured information until that is uniform.

A *measure* is whatever answers a density with curves: networks trained on it (`finetuning.Networks`), or any callable.
`adapt` runs it with one of the `schemes`, several chains at once; the other functions tell whether they converge.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from .. import angles as circle
from .. import checks, results
from ..statistics.estimates import Estimate, _finite, jackknife, over_replicates
from ..store import Store, default_store, digest
from .schemes import SCHEMES, Array, band, by_scale, coefficients, degenerate, first_scales, normalised

Measure = Callable[[Array], Array]


def adapt(
    measure: Measure, scheme: str, starts: ArrayLike, iterations: int, target: ArrayLike | None = None,
    store: Store | None = None, **options: Any,
) -> xr.Dataset:  # fmt: skip
    """Iterate towards the density under which information is uniform, or √F has the shape of a target.

    Parameters
    ----------
    measure : callable
        Takes the densities so far, ℓ (iteration, chain, angle), and returns curves φ = ½ log F (chain, replicate,
        angle) for the last. If it has a text attribute ``key``, the digest of all that it depends on, every iteration
        is stored as it ends, and found again.
    scheme : str
        One of `SCHEMES`.
    starts : array_like, shape (chain, angle)
        Logarithms of densities on `angles.grid`, not necessarily normalised.
    iterations : int
    target : array_like, shape (angle,), optional
        √F, up to a factor. By default uniform.
    store : Store, optional
        By default `default_store()`.
    **options
        The scheme's own.

    Returns
    -------
    Dataset
        ``log_density`` ℓ_n and the scheme's ``solution`` after n steps (iteration, chain, angle), n = 0 … iterations;
        ``log_fisher`` φ_n, measured under ℓ_n (iteration, chain, replicate, angle), missing for the last;
        ``clipped``, the number of angles clipped, and ``degenerate`` (iteration, chain); ``target`` (angle), log √F.

    Raises
    ------
    RuntimeError
        If no replicate of a chain has a finite curve.
    """
    step = functools.partial(SCHEMES[checks.one_of("scheme", scheme, SCHEMES)], **options)
    for name in options:
        checks.one_of(f"an option of {scheme}", name, list(inspect.signature(step.func).parameters)[4:])
    starts = _finite(np.maximum(starts, -1e9), "chain", "angle")  # a density may be 0 somewhere
    wanted = np.ones(starts.shape[1]) if target is None else _finite(target, "angle")
    checks.same_length(target=len(wanted), starts=starts.shape[1])
    wanted = np.log([checks.number("target", value, above=0) for value in wanted])
    log_density, clipped = normalised(starts)
    step(log_density, 0 * starts, 0 * starts, {})  # refuses what it is given before anything is measured
    state, densities, solutions, clips, measured = {}, [log_density], [log_density], [clipped], []
    for n in range(checks.whole_number("iterations", iterations)):
        curve = _measured(measure, np.stack(densities), store)
        if curve.shape[:1] + curve.shape[2:] != starts.shape:
            expected = f"({len(starts)} chains, replicates, {starts.shape[1]} angles)"
            raise ValueError(f"measure must return an array of {expected}, not {curve.shape}")
        if lost := np.flatnonzero(~np.isfinite(curve).all(-1).any(-1)).tolist():
            raise RuntimeError(f"no replicate has a finite curve in iteration {n} of chains {lost}")
        log_density, state = step(log_density, *_mean(curve - wanted), state)
        log_density, clipped = normalised(log_density)
        solution = normalised(state["solution"])[0] if "solution" in state else log_density
        for kept, new in ((densities, log_density), (solutions, solution), (clips, clipped), (measured, curve)):
            kept.append(new)
    over = ("iteration", "chain")
    found = xr.Dataset(
        {
            "log_density": ((*over, "angle"), densities),
            "solution": ((*over, "angle"), solutions),
            "log_fisher": ((*over, "replicate", "angle"), [*measured, np.full_like(curve, np.nan)]),
            "clipped": (over, clips),
            "degenerate": (over, degenerate(densities)),
            "target": ("angle", wanted),
        },
        _coords(curve) | {"iteration": np.arange(iterations + 1)},
        {"scheme": scheme, "options": str(options)},
    )
    return results.validate(results.label(found))


def _coords(curve: Array) -> dict[str, Array]:
    chains, replicates, angles = curve.shape
    return {"chain": np.arange(chains), "replicate": np.arange(replicates), "angle": circle.grid(angles)}


def _mean(curve: Array) -> tuple[Array, Array]:
    """Return the mean over replicates with a finite curve, and its standard error; 0 for a single one."""
    sound = np.isfinite(curve).all(-1, keepdims=True)
    count = sound.sum(1)
    mean = np.where(sound, curve, 0.0).sum(1) / count
    squares = (np.where(sound, curve - mean[:, None], 0.0) ** 2).sum(1)
    return mean, np.sqrt(squares / count / np.maximum(count - 1, 1))


def _measured(measure: Measure, densities: Array, store: Store | None) -> Array:
    if not hasattr(measure, "key"):
        return np.asarray(measure(densities), np.float64)
    key = digest([measure.key, densities.round(9)])

    def compute(_missing: list[str]) -> Iterator[tuple[str, xr.Dataset]]:
        curve = np.asarray(measure(densities), np.float64)
        found = xr.Dataset({"log_fisher": (("chain", "replicate", "angle"), curve)}, _coords(curve))
        yield key, results.label(found)

    store = store or default_store()
    return store.fill("adaptation", [key], compute, results.save, results.load, ".nc")[key]["log_fisher"].values


@dataclass(frozen=True)
class Linear:
    """A measure whose answer is known: φ_k = G_k (ℓ_k - ℓ*_k) + ξ_k, k = 1, 2, …, in `coefficients`.

    Parameters
    ----------
    gain, noise : sequence of float
        G_k, and the mean of |ξ_k|² in one replicate; ξ is drawn anew at every iteration, in every chain and replicate.
    replicates : int
    fixed_point : tuple of float, optional
        ℓ* on `angles.grid`. By default uniform.
    seed : int
    """

    gain: tuple[float, ...]
    noise: tuple[float, ...]
    replicates: int = 4
    fixed_point: tuple[float, ...] | None = None
    seed: int = 0

    def __call__(self, densities: Array) -> Array:
        """Return φ (chain, replicate, angle) for the last of the densities ℓ (iteration, chain, angle)."""
        away = densities[-1] - (0.0 if self.fixed_point is None else np.asarray(self.fixed_point))
        rng = np.random.default_rng((self.seed, len(densities)))
        drawn = rng.standard_normal((len(away), self.replicates, away.shape[1]))  # white: mean |c_k|² is 4 / angles
        scale = np.sqrt(np.asarray(self.noise) * away.shape[1] / 4)
        answer, noise = band(away, None, by_scale(self.gain)), band(drawn, None, by_scale(scale))
        return answer[:, None] + noise


def fresh_check(final: ArrayLike, start: ArrayLike, scales: int, target: ArrayLike = 0.0) -> Estimate:
    """Estimate U at the end over U at the start: U is the power that independent networks' curves share.

    U = Σ_k ⟨Re φ_k^a conj φ_k^b⟩ over pairs of replicates a ≠ b and k = 1 … `scales`, averaged over chains.

    Parameters
    ----------
    final, start : array_like, shape (chain, replicate, angle)
        φ of new networks at the scheme's solutions, and φ at the starts.
    scales : int
        Scales kept, fixed beforehand.
    target : array_like, shape (angle,)
        Logarithm of the wanted √F.

    Returns
    -------
    Estimate
        Of the ratio itself, its error by the jackknife over the replicates of both.
    """
    curves = (_finite(c, "chain", "replicate", "angle") for c in (final, start))
    parts = [coefficients(c - target)[..., 1 : scales + 1] for c in curves]

    def shared(c: NDArray) -> float:
        n = len(c)
        return float((np.abs(c.sum(0)) ** 2 - (np.abs(c) ** 2).sum(0)).sum(-1).mean() / (n * (n - 1)))

    ends, begins = (replace(jackknife(shared, c.swapaxes(0, 1)), value=shared(c.swapaxes(0, 1))) for c in parts)
    ratio = ends.value / begins.value
    error = np.hypot(ends.standard_error, ratio * begins.standard_error) / abs(begins.value)
    return replace(ends, value=ratio, standard_error=float(error))


def meeting(found: xr.Dataset, scales: int | None, reference: xr.Dataset | None = None) -> Estimate:
    """Estimate how near the chains have come: the logarithm of a ratio of variances between chains.

    Parameters
    ----------
    found : Dataset
        From `adapt`, started from different densities.
    scales : int or None
        Frequencies k = 1 … `scales`; None takes all.
    reference : Dataset, optional
        Another scheme's: its variance at the end, over that of `found`. By default that of `found` at the end over its
        own at the start.

    Returns
    -------
    Estimate
        Its error by the jackknife over chains.
    """
    last = band(_chains(found.solution, -1), scales)
    other = band(_chains(found.log_density, 0) if reference is None else _chains(reference.solution, -1), scales)
    checks.same_length(found=len(last), reference=len(other))
    sign = 1 if reference is None else -1

    def ratio(both: NDArray) -> float:
        return float(sign * np.log(both.var(0, ddof=1).sum(-1)) @ [1, -1])

    both = np.stack([last, other], 1)
    return replace(jackknife(ratio, both, of="chains"), value=ratio(both))


def _chains(values: xr.DataArray, iteration: int) -> Array:
    return _finite(values.isel(iteration=iteration), "chain", "angle")


def planted(found: xr.Dataset, without: xr.Dataset, gain: ArrayLike, gain_error: ArrayLike = 0.0) -> Estimate:
    """Estimate how much of the shift that a target should cause has come about: 1 if all, 0 if none.

    The target log t should move the solution by t_k / G_k; the shift measured is projected on this one.

    Parameters
    ----------
    found, without : Dataset
        From `adapt`, with the target and without, else the same.
    gain, gain_error : array_like, shape (frequency,)
        G_k at k = 1, 2, …, and its standard error; the target has to lie in these scales.

    Returns
    -------
    Estimate
        Its error from the spread over chains and that of the gain.
    """
    gain, gain_error = first_scales(gain), first_scales(gain_error)
    before = _chains(without.solution.reindex(chain=found.chain.values), -1)
    shifted = _chains(found.solution, -1) - before
    moved, wanted = (coefficients(each)[..., 1 : len(gain) + 1] for each in (shifted, found.target.values))
    expected = wanted / gain
    weight = np.abs(expected) ** 2 / (np.abs(expected) ** 2).sum()
    shift = over_replicates((moved * expected.conj()).real.sum(-1) / (np.abs(expected) ** 2).sum())
    of_gain = shift.value * np.sqrt(((weight * gain_error / gain) ** 2).sum())
    return replace(shift, standard_error=float(np.hypot(shift.standard_error, of_gain)), of="chains")
