"""How large a step: estimates from pairs of angles held against their limit as the step goes to zero."""

from collections.abc import Sequence

import xarray as xr

from .. import checks
from .arrays import Activity
from .estimate import estimate


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
