"""The table of estimators, and Fisher information as a labelled dataset from anybody's activity."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .. import checks, results
from ..checks import FewFaces, Misfit
from . import circular, classifiers, kernels
from .arrays import Activity, recorded
from .covariance import least_faces
from .pooled import MARGIN, pooled

FEW_PEOPLE = 20  # below which an interval by t over people is not to be trusted
FEW_FACES = 3  # effective faces per unit, likewise
DOUBT = 2  # logarithm of the odds against a model of the noise at which to warn
_KINDS = {  # what an estimator needs → in words, what must and what may be given
    "tangents": (
        "responses (angle, face, unit), tangents of the same shape, and angles",
        {"responses", "tangents", "angles"}, {"identity"},
    ),
    "curve": ("responses (angle, face, unit) and angles", {"responses", "angles"}, {"identity"}),
    "pair": (
        "responses (angle, side, face, unit) at theta -/+ delta / 2, delta and angles; design if you like",
        {"responses", "delta", "angles"}, {"identity", "design"},
    ),
    "trials": ("responses (angle, trial, unit) to independent trials and angles", {"responses", "angles"}, set()),
    "estimates": (
        "estimates (angle, face) in rad, and angles; tangents of the same shape are optional",
        {"estimates", "angles"}, {"identity", "tangents"},
    ),
}  # fmt: skip
_EXTRA = {
    "degrees_of_freedom": ("1", "degrees of freedom of the t interval: people - 1"),
    "plugin_information": ("rad-2", "uncorrected Fisher information of this fixed set of faces"),
    "effective_faces": ("1", "effective number of faces less one"),
    "n_units": ("1", "number of units"),
    "misfit": ("1", "logarithm of the odds against the model of the noise"),
    "influence": ("rad-2", "first-order influence of each person on the Fisher information"),
    "person": ("1", "person"),
    "large_error_share": ("1", "share of errors beyond a quarter turn"),
    "fisher_information_without_large_errors": (
        "rad-2",
        "Fisher information of the other errors",
    ),
}


@dataclass(frozen=True)
class Estimator:
    """One row of the table `ESTIMATORS`.

    Attributes
    ----------
    function : callable
        The kernel; it returns a `kernels.Estimate`.
    description : str
        One line.
    needs : {"tangents", "curve", "trials", "pair", "estimates"}
        What it is given: responses with derivatives, responses all the way round the circle, the same with
        other trials at every angle, responses to two stimuli, or estimated angles.
    target : {"linear", "full", "decoded"}
        Which information it estimates.
    design : str
        How faces are sampled, for the correction to hold.
    bound : {"below", "unbiased", "may exceed"}
        How its expectation stands to its target: below it (cross-fitted), equal to it, or possibly above it
        where its assumptions fail. Linear information never exceeds the full one.
    least_faces : callable
        Number of units → the least number of independent faces.
    """

    function: Callable[..., kernels.Estimate]
    description: str
    needs: str
    target: str
    design: str
    bound: str
    least_faces: Callable[[int], int] = least_faces


def _of_trials(responses: Tensor, angles: Tensor, groups: None = None) -> kernels.Estimate:
    """Return `pooled` of each replicate.

    Returns
    -------
    Estimate
        With the extra variable `misfit`, and without influence: that of single trials is not known.
    """
    every = np.repeat(angles.numpy(), responses.shape[-2])
    flat = responses.double().flatten(1, 2).numpy()
    each = [pooled(trials, every, angles.numpy()) for trials in flat]
    odds = [np.full(len(angles), one.misfit) for one in each]
    columns = zip(*([*one[:4], np.full(len(angles), one.effective_trials)] for one in each), strict=True)
    found = [torch.as_tensor(np.stack(column)) for column in columns]
    return kernels.Estimate(*found, found[0][..., None] * torch.nan, {"misfit": torch.as_tensor(np.stack(odds))})


def _folds_need(units: int) -> int:
    return 2 * units + 10


_PEOPLE, _PAIRS = "independent faces or people", "paired, partly correlated or independent faces"
#: The estimators of Fisher information, by name.
ESTIMATORS: dict[str, Estimator] = {
    "tangent": Estimator(
        kernels.tangent, "linear information from derivatives, without a step size",
        "tangents", "linear", _PEOPLE, "unbiased",
    ),
    "gaussian": Estimator(
        kernels.gaussian, "all information of normal responses, in mean and covariance",
        "tangents", "full", _PEOPLE, "may exceed",
    ),
    "direct": Estimator(
        kernels.direct, "linear information from two nearby stimuli",
        "pair", "linear", _PAIRS, "unbiased",
    ),
    "robust": Estimator(
        classifiers.robust, "direct on the faces that are no outliers",
        "pair", "linear", _PAIRS, "may exceed", lambda units: 20 * units + 20,
    ),
    "smoothed": Estimator(
        circular.smoothed, "tangent with the derivative of a smooth periodic fit",
        "curve", "linear", _PEOPLE, "unbiased",
    ),
    "pooled": Estimator(
        _of_trials, "smoothed with one correlation for all angles: few trials at each, or one",
        "trials", "linear", "independent trials, others at every angle", "unbiased", lambda units: units + MARGIN,
    ),
    "discrimination": Estimator(
        classifiers.discrimination, "what tells nearby stimuli apart on unseen faces: a linear classifier",
        "pair", "linear", _PAIRS, "below", _folds_need,
    ),
    "nonlinear": Estimator(
        classifiers.nonlinear, "what tells nearby stimuli apart on unseen faces: a quadratic classifier",
        "pair", "full", _PAIRS, "below", _folds_need,
    ),
    "decoded": Estimator(
        circular.decoded, "what the estimated angle shows: (1 + b')^2 / Var",
        "estimates", "decoded", _PEOPLE, "unbiased", lambda units: least_faces(1),
    ),
    "divergence": Estimator(
        classifiers.divergence, "an f-divergence of nearby stimuli on unseen faces, without normality",
        "pair", "full", _PAIRS, "below", _folds_need,
    ),
}  # fmt: skip


def estimate(
    activity: Activity | ArrayLike | xr.DataArray | None = None,
    *,
    estimator: str | Sequence[str] = "tangent",
    angles: int | ArrayLike | None = None,
    tangents: ArrayLike | xr.DataArray | None = None,
    identity: ArrayLike | None = None,
    delta: float | None = None,
    design: str | None = None,
    estimates: ArrayLike | xr.DataArray | None = None,
    influence: bool = False,
) -> xr.Dataset:
    """Estimate Fisher information about the angle from a network's activity or from anybody's arrays.

    Parameters
    ----------
    activity : Activity or array
        What `record` returns, or responses: ``(angle, face, unit)``, for pair estimators ``(angle, side,
        face, unit)``; numpy, torch or xarray, optionally led by ``replicate``. Faces may be trials, units
        neurons.
    estimator : str or sequence of str
        Names from `ESTIMATORS`; a sequence gives the result the dimension ``estimator``.
    angles : int or array_like, shape (angle,)
        rad; a number means that many on [-pi, pi). An xarray array may bring them as its coordinate.
    tangents : array
        Derivatives of the responses with respect to the angle (per rad), shaped as the responses.
    identity : array_like, shape (face,) or (replicate, face)
        The person of each face. Faces of one person are not independent, and an error that ignores it is far
        too small.
    delta : float
        Step of the pair estimators in rad.
    design : {"paired", "independent"}
        Whether face j is the same on both sides (the default) or not.
    estimates : array, shape ((replicate,) angle, face)
        Estimated angles in rad, for ``decoded``. Without `tangents` their derivative is the central
        difference of each face's estimates between the neighbouring angles.
    influence : bool
        Keep each person's influence on the estimate, from which `intervals` makes errors of differences and
        simultaneous bands.

    Returns
    -------
    xarray.Dataset
        ``fisher_information``, ``standard_error`` (rad-2), ``degrees_of_freedom`` of its t interval,
        ``plugin_information`` (rad-2), ``effective_faces``, ``n_faces`` and ``n_units``, over ``([estimator,]
        [replicate,] angle)``; if asked for, ``influence`` over ``person`` too.

    Raises
    ------
    ValueError
        If the input is not what the estimator needs, not finite, or of too few faces for its units.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> responses, slopes = rng.normal(size=(12, 200, 3)), np.ones((12, 200, 3))
    >>> float(estimate(responses, tangents=slopes, angles=12).fisher_information.mean().round())
    3.0
    """
    names = [estimator] if isinstance(estimator, str) else list(estimator)
    entries = {name: ESTIMATORS[checks.one_of("estimator", name, ESTIMATORS)] for name in names}
    given = {
        "responses": activity, "angles": angles, "tangents": tangents, "identity": identity, "delta": delta,
        "design": design, "estimates": estimates,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    needs = {entry.needs for entry in entries.values()}
    if hasattr(activity, "chunks") and hasattr(activity, "shifted"):
        wanted = {"responses", "delta"} if "pair" in needs else {"responses"}
        _check_given(names, given, wanted, {"delta"})
        if "trials" in needs:
            raise ValueError("'pooled' needs other trials at every angle, but an activity has the same faces at all")
        source, led = activity, True
    else:
        kind = _kind(names, needs)
        main = "estimates" if kind == "estimates" else "responses"
        if "angles" not in given and "angle" in getattr(given.get(main), "coords", ()):
            given["angles"] = given[main]["angle"].values
        _check_given(names, given, *_KINDS[kind][1:])
        source, led = recorded(kind, given)
    if influence and "trials" in needs:
        raise ValueError("'pooled' knows no influence of single trials: leave influence out")
    if "pair" in needs:
        delta = checks.number("delta", delta, above=0)
        design = checks.one_of("design", design or "paired", ("paired", "independent"))
    found = [_labelled(name, entry, source, delta, design, influence) for name, entry in entries.items()]
    _warn_of_few(found)
    whole = found[0] if isinstance(estimator, str) else xr.concat(found, "estimator", join="outer")
    if not led:
        whole = whole.isel(replicate=0, drop=True)
    step = {"delta": delta} if "pair" in needs else {}
    whole.attrs = {"title": "Fisher information", **source.attrs} | step
    return results.label(whole)


def _check_given(names: Sequence[str], given: dict[str, Any], needed: set[str], optional: set[str]) -> None:
    for word, wrong in (("missing", needed - set(given)), ("surplus", set(given) - needed - optional)):
        if wrong:
            kinds = dict.fromkeys(ESTIMATORS[name].needs for name in names)
            brings = " (a recorded activity brings the rest itself)" if "angles" not in needed else ""
            wants = "; ".join(_KINDS[kind][0] for kind in kinds)
            raise ValueError(
                f"estimator {', '.join(map(repr, names))} needs {wants}; {' and '.join(sorted(wrong))} "
                f"{'is' if len(wrong) == 1 else 'are'} {word} here{brings}"
            )


def _kind(names: Sequence[str], needs: set[str]) -> str:
    needs = needs - {"curve"} if needs & {"tangents", "trials"} else needs  # the same responses
    if len(needs) > 1:
        raise ValueError(
            f"estimators {', '.join(map(repr, names))} need different arrays: "
            f"{'; '.join(_KINDS[kind][0] for kind in sorted(needs))}. Call estimate once for each"
        )
    return next(iter(needs))


def _labelled(
    name: str, entry: Estimator, source: Activity, delta: float | None, design: str | None, influence: bool
) -> xr.Dataset:
    identity = None if source.identity is None else np.asarray(source.identity)
    options = {"design": design} if entry.needs == "pair" else {}
    parts = []
    for inputs in _pieces(entry.needs, source, delta):
        faces, units = inputs[0].shape[-2:] if entry.needs != "estimates" else (inputs[0].shape[-1], 1)
        parts.append(_of_replicates(entry.function, inputs, identity, options))
    columns = {
        "fisher_information": [part.information for part in parts],
        "standard_error": [part.standard_error for part in parts],
        "degrees_of_freedom": [part.degrees_of_freedom for part in parts],
        "plugin_information": [part.plugin for part in parts],
        "effective_faces": [part.effective_faces for part in parts],
        **({"influence": [part.influence for part in parts]} if influence else {}),
        **{key: [part.extra[key] for part in parts] for key in parts[0].extra},
    }
    dimensions = ("replicate", "angle", "person")
    dataset = xr.Dataset(
        {key: (dimensions[: each[0].ndim], torch.cat(each, 1).cpu().numpy()) for key, each in columns.items()},
        {"replicate": np.asarray(source.replicate), "angle": np.asarray(source.angles), "estimator": name},
    ).assign(n_faces=faces, n_units=units)
    if influence:
        dataset = dataset.assign_coords(person=np.arange(dataset.sizes["person"]))
    for key in dataset.variables.keys() & _EXTRA.keys():
        dataset[key].attrs = dict(zip(("units", "long_name"), _EXTRA[key], strict=True))
    return dataset


def _pieces(needs: str, source: Activity, delta: float | None) -> Iterator[tuple]:
    if needs == "tangents":
        for _, responses, tangents in source.chunks(tangents=True):
            yield responses, tangents
    elif needs == "pair":
        sides = (source.shifted(sign * delta / 2).chunks(tangents=False) for sign in (-1, 1))
        for (_, minus, _), (_, plus, _) in zip(*sides, strict=True):
            yield torch.stack([minus, plus], -3), delta
    elif needs in ("curve", "trials"):
        whole = torch.cat([responses for _, responses, _ in source.chunks(tangents=False)], 1)
        yield whole, torch.as_tensor(np.asarray(source.angles), device=whole.device)
    else:
        for part, reported, slopes in source.decoded().chunks(tangents=True):
            at = torch.as_tensor(np.asarray(source.angles)[part], device=reported.device)
            yield reported.squeeze(-1), slopes.squeeze(-1), at, 2 * np.pi / source.attrs.get("symmetry", 1)


def _of_replicates(function: Callable, inputs: tuple, identity: NDArray | None, options: dict) -> kernels.Estimate:
    # Where people differ between replicates only by name, all replicates are one batch.
    if identity is None:
        return function(*inputs, groups=None, **options)
    codes = np.stack([pd.factorize(row)[0] for row in np.atleast_2d(identity)])
    if (codes == codes[0]).all():
        return function(*inputs, groups=codes[0], **options)
    each = []
    for r, row in enumerate(codes):
        own = [item[r : r + 1] if isinstance(item, Tensor) and item.ndim > 1 else item for item in inputs]
        each.append(function(*own, groups=row, **options))
    joined = [torch.cat(column) for column in zip(*(part[:-1] for part in each), strict=True)]
    extra = {key: torch.cat([part.extra[key] for part in each]) for key in each[0].extra}
    return kernels.Estimate(*joined, extra)


def _warn_of_few(found: Sequence[xr.Dataset]) -> None:
    people = min(int(one.degrees_of_freedom.min()) + 1 for one in found)
    faces = min(float((one.effective_faces / one.n_units).min()) for one in found)
    for number, least, what in (
        (people, FEW_PEOPLE, "people"),
        (faces, FEW_FACES, "effective faces per unit"),
    ):
        if number < least:
            text = f"{number:.3g} {what} are few: estimates and their errors are rough below {least}"
            warnings.warn(text, FewFaces, stacklevel=3)
    if (odds := max((float(one.misfit.max()) for one in found if "misfit" in one), default=0)) > DOUBT:
        text = (
            f"the noise changes with the angle in a way that 'pooled' has no model for (odds of e^{odds:.0f} to 1): "
            "read its estimates as bounds from below, and compare 'smoothed' or 'direct' where trials allow"
        )
        warnings.warn(text, Misfit, stacklevel=3)
