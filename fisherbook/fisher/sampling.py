"""Where to look: angles added where a rough curve needs them, and steps delta held against their limit."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .. import checks, results
from .arrays import Activity
from .estimate import estimate

_GOLDEN = (5**0.5 - 1) / 2


def interval_means(
    evaluate: Callable[[NDArray[np.float64]], xr.Dataset],
    intervals: int = 16,
    *,
    relative_error: float = 0.1,
    least: int = 4,
    most: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Return the mean Fisher information of each interval of the circle, with more angles where the curve is rough.

    Parameters
    ----------
    evaluate : callable
        Angles (rad) → what `estimate` returns for them, such as ``lambda a: estimate(activity.at(a))``;
        replicates are averaged.
    intervals : int
        Equal parts of the circle.
    relative_error : float
        Wanted standard error of an interval's mean, relative to it.
    least : int
        Angles per interval to begin with; at least 2.
    most : int
        Bound on the evaluations in all.
    seed : int
        Of the first angle's place in the intervals.

    Returns
    -------
    Dataset
        Over ``angle``, the centres of the intervals: ``fisher_information`` (the mean over the interval),
        ``standard_error`` (of that mean, from the scatter of its angles), ``n_angles``, ``interval_width``
        (rad), and ``met``, whether the wanted error was reached.

    Notes
    -----
    Each round doubles the angles of the intervals that have not met the wanted error. Angles follow a
    golden-ratio sequence, so that they stay evenly spread; the scatter of independent angles then errs on the
    safe side.
    """
    intervals, least = checks.whole_number("intervals", intervals), checks.whole_number("least", least, 2)
    checks.whole_number("most", most, intervals * least)
    wanted = checks.number("relative_error", relative_error, above=0)
    width, first = 2 * np.pi / intervals, np.random.default_rng(seed).random()
    values: list[list[float]] = [[] for _ in range(intervals)]
    grow = dict.fromkeys(range(intervals), least)
    while grow:
        places = [(i, len(values[i]) + k) for i, more in grow.items() for k in range(more)]
        index, turn = np.array(places).T
        at = -np.pi + width * (index + (first + turn * _GOLDEN) % 1)
        order = np.argsort(at)
        found = evaluate(at[order]).fisher_information
        for i, value in zip(index[order], found.mean(set(found.dims) - {"angle"}).values, strict=True):
            values[i].append(float(value))
        mean, error = (np.array([f(v) for v in values]) for f in (np.mean, _error_of_mean))
        met = error <= wanted * np.abs(mean)
        left = most - sum(map(len, values))
        grow = {}
        for i in np.argsort(-error / np.abs(mean)):
            if not met[i] and len(values[i]) <= left:
                grow[i] = len(values[i])
                left -= grow[i]
    counts = np.array([len(v) for v in values])
    found = xr.Dataset(
        {
            "fisher_information": ("angle", mean),
            "standard_error": ("angle", error),
            "n_angles": ("angle", counts, {"units": "1", "long_name": "number of angles"}),
            "met": ("angle", met, {"units": "1", "long_name": "wanted error reached"}),
        },
        {"angle": -np.pi + width * (np.arange(intervals) + 0.5)},
        {"title": "interval means of Fisher information", "interval_width": width},
    )
    return results.label(found)


def _error_of_mean(values: Sequence[float]) -> float:
    return np.std(values, ddof=1) / len(values) ** 0.5


def step_sizes(activity: Activity, deltas: Sequence[float], *, estimator: str = "direct") -> xr.Dataset:
    """Hold a pair estimator at several steps against its limit as the step goes to zero.

    Parameters
    ----------
    activity : Activity
        From `record`, or a simulated code.
    deltas : sequence of float
        At least two steps in rad; a factor of two apart is a good choice.
    estimator : str
        Which needs pairs.

    Returns
    -------
    Dataset
        What `estimate` returns over ``(delta, replicate, angle)``, and over ``(replicate, angle)``
        ``extrapolated``, the limit of the two smallest steps (Richardson: the error of a central difference
        goes as delta^2), ``tangent`` (rad-2), and ``disagreement``, their difference relative to the latter,
        with its ``disagreement_error``, which is small since the faces are the same.
    """
    deltas = sorted(checks.number("deltas", delta, above=0) for delta in deltas)
    if len(deltas) < 2:
        raise ValueError(f"deltas must be at least two steps, not {deltas}")
    found = [estimate(activity, estimator=estimator, delta=delta, influence=True) for delta in deltas]
    swept = xr.concat(found, xr.Variable("delta", deltas, {"units": "rad", "long_name": "step"}))
    limit = estimate(activity, estimator="tangent", influence=True)
    ratio = (deltas[0] / deltas[1]) ** 2
    value, psi = (
        (swept[name].isel(delta=0) - ratio * swept[name].isel(delta=1)) / (1 - ratio)
        for name in ("fisher_information", "influence")
    )
    size = limit.fisher_information
    error = ((psi - limit.influence) ** 2).sum("person") ** 0.5 / abs(size)
    swept = swept.drop_vars(("influence", "person")).assign(
        extrapolated=value.assign_attrs(units="rad-2", long_name="Fisher information extrapolated to no step"),
        tangent=size.assign_attrs(units="rad-2", long_name="Fisher information by tangents"),
        disagreement=(value / size - 1).assign_attrs(units="1", long_name="relative disagreement of the two"),
        disagreement_error=error.assign_attrs(units="1", long_name="standard error of the disagreement"),
    )
    return swept
