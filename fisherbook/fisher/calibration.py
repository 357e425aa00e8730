"""How estimators do on codes whose Fisher information is known, and how many faces are enough."""

import bisect
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import xarray as xr
from scipy.stats import t

from .. import angles as circle
from .. import checks, results
from .codes import (
    NOISES,
    Code,
    curved_code,
    draw_trials,
    gaussian_code,
    poisson_code,
    population_code,
    simulate,
    tuning_code,
)  # fmt: skip
from .estimate import ESTIMATORS, estimate

__all__ = [
    "NOISES", "Code", "calibrate", "calibrate_trials", "curved_code", "draw_trials", "gaussian_code", "plan_faces",
    "plan_trials", "poisson_code", "population_code", "simulate", "tuning_code",
]  # fmt: skip

_BLOCK = 1 << 23  # numbers that a calibration draws at a time


def calibrate(
    code: Callable[[int], Code],
    estimators: Sequence[str] = ("tangent",),
    *,
    faces: Sequence[int] = (200,),
    units: Sequence[int] = (10,),
    delta: Sequence[float] = (0.1,),
    tails: Sequence[float] = (np.inf,),
    correlation: Sequence[float] = (0.0,),
    faces_per_person: int = 1,
    pairing: float = 1.0,
    draws: int = 200,
    angle: float = 0.5,
    seed: int = 0,
) -> xr.Dataset:
    """Hold estimators against a code's known information, over faces × units × δ × tails × clusters.

    Parameters
    ----------
    code : callable
        Number of units → `Code`, such as `gaussian_code`.
    estimators : sequence of str
    faces, units, delta, tails, correlation : sequence
        The conditions, crossed; see `simulate`.
    faces_per_person, pairing, seed
        See `simulate`.
    draws : int
        Independent sets of faces per condition.
    angle : float
        rad; `smoothed` sees 16 angles, this one among them.

    Returns
    -------
    Dataset
        ``relative_bias``, its simulation error ``relative_bias_error``, ``relative_rmse``,
        ``relative_standard_error`` (the root mean square of those claimed) and ``coverage`` of the 95 %
        interval, over ``(estimator, faces, units, delta, tails, correlation)``.
    """
    grid = {"faces": faces, "units": units, "delta": delta, "tails": tails, "correlation": correlation}
    shape = (len(estimators), *map(len, grid.values()))
    table = np.full((len(_JUDGED), *shape), np.nan)
    for index in np.ndindex(shape[1:]):
        here = {name: values[i] for (name, values), i in zip(grid.items(), index, strict=True)}
        made, step = code(here.pop("units")), here.pop("delta")
        here |= {"faces_per_person": faces_per_person, "pairing": pairing}
        table[:, :, *index] = list(_judge(made, list(estimators), step, here, draws, angle, (seed, *index)))
    variables = {
        name: (("estimator", *grid), values, {"units": "1", "long_name": text})
        for (name, text), values in zip(_JUDGED.items(), table, strict=True)
    }
    coords = {
        name: (name, list(values), {"units": "rad" if name == "delta" else "1", "long_name": _CONDITIONS[name]})
        for name, values in grid.items()
    }
    return results.label(xr.Dataset(variables, {"estimator": list(estimators), **coords}))


_CONDITIONS = {
    "faces": "number of faces",
    "units": "number of units",
    "delta": "step",
    "tails": "degrees of freedom of the latents' t distribution",
    "correlation": "intraclass correlation of one person's faces",
}
_JUDGED = {
    "relative_bias": "relative bias",
    "relative_bias_error": "simulation error of the relative bias",
    "relative_rmse": "relative root-mean-square error",
    "relative_standard_error": "root mean square of the relative standard errors claimed",
    "coverage": "coverage of the 95 % interval",
}


def _judge(
    code: Code, names: list[str], delta: float, here: dict, draws: int, angle: float, seed: tuple[int, ...]
) -> Iterator[xr.DataArray]:
    at = angle + circle.grid(16) if "smoothed" in names else np.array([angle])
    block = max(1, _BLOCK // (here["faces"] * code.latents * len(at)))
    found = []
    for start in range(0, draws, block):
        drawn = simulate(code, at, replicates=min(block, draws - start), seed=(*seed, start), **here)
        found.append(estimate(drawn, estimator=names, delta=delta).isel(angle=len(at) // 2))
    whole = xr.concat(found, "replicate", data_vars="minimal")
    known = code.information(angle)
    truth = xr.DataArray([known[ESTIMATORS[name].target] for name in names], dims="estimator")
    yield from _summary(whole, truth)


def _summary(found: xr.Dataset, truth: xr.DataArray) -> Iterator[xr.DataArray]:
    error, claimed = found.fisher_information / truth - 1, found.standard_error / truth
    others = set(error.dims) - {"estimator", "replicate"}
    over = {"replicate", *others}
    yield error.mean(over)
    yield error.mean(others).std("replicate") / error.sizes["replicate"] ** 0.5
    yield (error**2).mean(over) ** 0.5
    yield (claimed**2).mean(over) ** 0.5
    yield (abs(error) <= claimed * t.ppf(0.975, found.degrees_of_freedom)).mean(over)


def calibrate_trials(
    estimators: Sequence[str] = ("pooled",),
    noises: Sequence[str] = NOISES,
    *,
    units: int = 20,
    trials: int = 100,
    angles: int = 12,
    draws: int = 100,
    seed: int = 0,
) -> xr.Dataset:
    """Hold estimators that see the circle against recorded populations, with other trials at every angle.

    Parameters
    ----------
    estimators : sequence of str
        Such as ``pooled`` and ``smoothed``.
    noises : sequence of str
        See `population_code`.
    units, trials, angles : int
        Units, trials at each angle, and angles on the circle.
    draws : int
        Simulated recordings per noise.
    seed : int

    Returns
    -------
    Dataset
        What `calibrate` returns, over ``(estimator, noise)``; angles are averaged.
    """
    at, table = circle.grid(angles), []
    for noise in noises:
        code = population_code(units, noise)
        every = [draw_trials(code, np.repeat(at, trials), (seed, NOISES.index(noise), draw)) for draw in range(draws)]
        found = estimate(np.reshape(every, (draws, angles, trials, units)), angles=at, estimator=estimators)
        truth = xr.DataArray([code.information(angle)["linear"] for angle in at], dims="angle")
        table.append(list(_summary(found, truth)))
    judged = zip(_JUDGED.items(), zip(*table, strict=True), strict=True)
    variables = {
        name: xr.concat(values, "noise").transpose("estimator", "noise").assign_attrs(units="1", long_name=text)
        for (name, text), values in judged
    }
    label = {"units": "1", "long_name": "noise of the population"}
    return results.label(xr.Dataset(variables, {"noise": ("noise", list(noises), label)}))


def plan_faces(
    units: int,
    relative_error: float = 0.1,
    *,
    slope_variation: float = 0.0,
    kurtosis: float = 3.0,
    faces_per_person: int = 1,
    correlation: float = 0.0,
) -> int:
    """Return how many faces `tangent` (or `direct` on paired faces) needs for a wanted relative standard error.

    Parameters
    ----------
    units : int
    relative_error : float
        Standard error over Fisher information.
    slope_variation : float
        Coefficient of variation over faces of the slope of the best linear decoder's output. A pilot tells.
    kurtosis : float
        Of the best linear decoder's output: 3 if normal, 9 for t with 5 degrees of freedom.
    faces_per_person : int
    correlation : float
        Intraclass correlation of one person's faces.

    Notes
    -----
    Relative variance (kurtosis - 1) / (nu - N - 3) + 4 slope_variation^2 / T', with nu = n / (1 + (m - 1)
    rho^2) and T' = T / (1 + (m - 1) rho).

    Examples
    --------
    >>> fb.plan_faces(units=20, relative_error=0.1)
    224
    """
    units, each = checks.whole_number("units", units), checks.whole_number("faces_per_person", faces_per_person)
    wanted = checks.number("relative_error", relative_error, above=0) ** 2
    spread = (checks.number("kurtosis", kurtosis, above=1) - 1) * (1 + (each - 1) * correlation**2)
    noise = 4 * slope_variation**2 * (1 + (each - 1) * correlation)
    least = 1 + (units + 3) * (1 + (each - 1) * correlation**2)
    half = (spread + noise + wanted * least) / (2 * wanted)  # spread / (T - least) + noise / T = wanted
    return each * math.ceil((half + math.sqrt(half**2 - noise * least / wanted)) / each)


def plan_trials(units: int, information: float, delta: float, relative_error: float = 0.1) -> int:
    """Return how many trials at each of two stimuli `direct` needs for a wanted relative standard error.

    Parameters
    ----------
    units : int
    information : float
        Expected, in rad^-2; a pilot tells.
    delta : float
        rad between the two stimuli.
    relative_error : float
        Standard error over Fisher information.

    Notes
    -----
    For T independent normal trials at each stimulus and s = I delta^2 the relative variance is
    2 / (2T - N - 5) [1 + 4 (2T - 3) / (T s) + 4 N (2T - 3) / (T s)^2]. The first term is the covariance's, the others
    are those of the difference of the means: they are why far stimuli need few trials, as long as the tuning
    is straight between them. `pooled` at K angles has the first term with K T for 2T.

    References
    ----------
    Kanitscheider, Coen-Cagli, Kohn and Pouget (2015), PLoS Comput Biol 11(6): e1004218.
    """
    units = checks.whole_number("units", units)
    apart = checks.number("information", information, above=0) * checks.number("delta", delta, above=0) ** 2
    wanted = checks.number("relative_error", relative_error, above=0) ** 2

    def enough(trials: int) -> bool:
        signal = 4 * (2 * trials - 3) / (trials * apart) * (1 + units / (trials * apart))
        return 2 * (1 + signal) <= wanted * (2 * trials - units - 5)

    least = most = units // 2 + 3
    while not enough(most):
        most *= 2
        if most > 1e15:
            raise ValueError("more than 10^15 trials are needed: plan for a larger error, step or information")
    return bisect.bisect_left(range(most), True, lo=least, key=enough)
