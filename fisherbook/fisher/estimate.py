"""The table of estimators, and Fisher information as a labelled dataset from anybody's activity."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from .arrays import Activity, Recorded, Trials, circle_period, recorded
from .covariance import least_faces
from .pooled import MARGIN, pooled

FEW_PEOPLE = 20  # below which an interval by t over people is not to be trusted
FEW_FACES = 3  # effective faces per unit, likewise
DOUBT = 2  # logarithm of the odds against a model of the noise at which to warn
_ARRAYS = {"identity", "at", "dims", "unit", "period", "symmetry"}  # what any arrays may come with
_KINDS = {  # what an estimator needs → in words, what must and what may be given
    "tangents": (
        "responses (angle, face, unit), tangents of the same shape, and angles, or all by trial: (trial, unit)",
        {"responses", "tangents", "angles"}, _ARRAYS,
    ),
    "curve": ("responses (angle, face, unit) or (trial, unit), and angles", {"responses", "angles"}, _ARRAYS),
    "pair": (
        "responses (angle, side, face, unit) at theta -/+ delta / 2, or (trial, unit), delta and angles; design if you "
        "like",
        {"responses", "delta", "angles"}, {"design", *_ARRAYS},
    ),
    "estimates": (
        "estimates (angle, face) of the angle, or (trial,), and angles; tangents (angle, face) are optional",
        {"estimates", "angles"}, {"tangents", *_ARRAYS},
    ),
}  # fmt: skip
_MISFIT = {"units": "1", "long_name": "logarithm of the odds against the model of the noise"}


@dataclass(frozen=True)
class Estimator:
    """One row of the table `ESTIMATORS`.

    Attributes
    ----------
    function : callable
        The kernel; it returns a `kernels.Estimate`.
    description : str
        One line.
    needs : {"tangents", "curve", "pair", "estimates"}
        What it is given: responses with derivatives, responses all the way round the circle, responses to two
        stimuli, or estimated angles.
    target : {"linear", "full", "decoded"}
        Which information it estimates.
    design : str
        How faces are sampled, for the correction to hold.
    bound : {"below", "unbiased", "may exceed"}
        How its expectation stands to its target: below it (cross-fitted), equal to it, or possibly above it
        where its assumptions fail. Linear information never exceeds the full one.
    least_faces : callable
        Number of units → the least number of independent faces, below which a warning is given.
    trials : callable, optional
        The kernel for trials, each of an angle of its own. For a curve, ``(responses (..., trial, unit), angles
        (trial,), at (angle,), groups, period)``, estimates likewise; for pairs, one that takes two sides of unequal
        length. Without it, only what `function` takes.
    """

    function: Callable[..., kernels.Estimate]
    description: str
    needs: str
    target: str
    design: str
    bound: str
    least_faces: Callable[[int], int] = least_faces
    trials: Callable[..., kernels.Estimate] | None = None


def _pooled(
    responses: Tensor, angles: Tensor, at: Tensor, groups: NDArray | None = None, period: float = 2 * np.pi
) -> kernels.Estimate:
    """Estimate by `pooled` for trials (replicate, trial, unit), each replicate alone."""
    if groups is not None:
        raise ValueError("pooled takes independent trials, other ones at every angle: leave identity out")
    each = [pooled(trials, angles.numpy(), at.numpy(), period) for trials in responses.double().cpu().numpy()]
    columns = zip(*([*one[:4], np.full(len(at), one.effective_trials)] for one in each), strict=True)
    found = [torch.as_tensor(np.stack(column)) for column in columns]
    misfit = torch.as_tensor(np.stack([np.full(len(at), one.misfit) for one in each]))
    return kernels.Estimate(*found, found[0][..., None] * torch.nan, {"misfit": misfit})


def _pooled_table(responses: Tensor, angles: Tensor, groups: NDArray | None = None) -> kernels.Estimate:
    """Estimate by `pooled` for equally many trials at every angle.

    Notes
    -----
    The trials (replicate, angle, trial, unit) are laid out one after the other; see `pooled`.
    """
    return _pooled(responses.flatten(1, 2), angles.repeat_interleave(responses.shape[-2]), angles, groups)


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
        "pair", "linear", _PAIRS, "unbiased", trials=kernels.direct,
    ),
    "robust": Estimator(
        classifiers.robust, "direct on the faces that are no outliers",
        "pair", "linear", _PAIRS, "may exceed", lambda units: 20 * units + 20,
    ),
    "smoothed": Estimator(
        circular.smoothed, "tangent with the derivative of a smooth periodic fit",
        "curve", "linear", _PEOPLE, "unbiased", trials=circular.smoothed_trials,
    ),
    "pooled": Estimator(
        _pooled_table, "smoothed with one correlation for all angles: few trials at each, or one",
        "curve", "linear", "independent trials, others at every angle", "unbiased", lambda units: units + MARGIN,
        trials=_pooled,
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
        circular.decoded_trials,
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
    at: ArrayLike | None = None,
    period: float | None = 2 * np.pi,
    symmetry: int | None = None,
    unit: str | None = None,
    units: str | None = None,
    shuffled: bool = False,
    diagonal: bool = False,
    dims: Mapping[str, str] | None = None,
    influence: bool = False,
) -> xr.Dataset:
    """Estimate Fisher information about the angle, in rad^-2.

    Parameters
    ----------
    activity : Activity, array_like or DataArray
        A recorded activity, which brings all but `estimator` and `delta` itself; or responses: trials ``(trial, unit)``
        with an angle for each, repeated or all different; a list of ``(trial, unit)``, one for each angle; ``(angle,
        face, unit)`` where the same faces are seen at every angle; or ``(angle, side, face, unit)`` for estimators that
        compare two stimuli. Replicates may lead. Labelled arrays may be in any order; masked trials are left out.
    estimator : str or sequence of str
        Of `ESTIMATORS`; several are stacked along a dimension of that name.
    angles : int or array_like
        One per trial or per entry of the dimension angle; or their number, on the half-open circle. The coordinate
        ``angle`` of labelled responses is used by default.
    tangents : array_like or DataArray
        Derivatives of the single responses with respect to the angle, of the same shape as the responses. Slopes of
        tuning curves, the same for all trials, are none: `smoothed` finds them itself, with their error.
    identity : array_like, shape (face,) or (replicate, face)
        People; faces (or trials) are taken for independent without it.
    delta : float
        Step between the two stimuli. Trials are compared with those of the angle that is `delta` further on.
    design : {"paired", "independent"}
        Of pairs: whether face j is the same on both sides (the default) or not. Trials are independent.
    estimates : array_like, shape ((replicate,) angle, face) or (trial,)
        Estimated angles, for ``decoded``. Without `tangents` their derivative is the central difference of each face's
        estimates between the neighbouring angles, or that of a smooth fit to trials.
    at : array_like, optional
        Angles where the information is wanted: by default those that were shown, or 36 on a grid if these are more
        than 72. Between the angles shown only a smooth fit has a value.
    period : float or None
        After which the stimulus comes back to itself: 2 pi, pi for orientations, None for a stimulus on a line, such as
        contrast or position. `symmetry` says the same as the number of periods in a turn.
    unit : str, optional
        Of all angles given: "deg" are converted to rad. On a line, its name, for the result's units.
    units : {"drop"}, optional
        Leave out units that are constant at some angle, or differ from a constant in one trial alone; ``n_units`` says
        how many are left. Without it they are refused, since their covariance has no inverse.
    shuffled, diagonal : bool
        Instead: the information without noise correlations between units, as if trials were shuffled for each unit; the
        information of a decoder that takes the noise for uncorrelated. For `tangent`, `direct` and `smoothed`; see
        `kernels.combined`.
    dims : mapping of str to str, optional
        What labelled arrays call ``angle``, ``trial`` (or ``face``), ``unit``, ``side`` and ``replicate``.
    influence : bool
        Keep each person's influence on the estimate, from which `intervals` makes errors of differences and
        simultaneous bands.

    Returns
    -------
    xarray.Dataset
        ``fisher_information``, ``standard_error`` (rad-2, or one over the squared unit of a line),
        ``degrees_of_freedom`` of its t interval, ``plugin_information`` (rad-2), ``effective_faces``, ``n_faces`` and
        ``n_units``, over ``([estimator,] [replicate,] angle)``; if asked for, ``influence`` over ``person`` too.

    Raises
    ------
    ValueError
        If the input is not what the estimator needs, not finite, or of too few faces for its units.

    Warns
    -----
    FewFaces
        If faces or people are fewer than an estimator needs to be trusted, or the two stimuli are never confused.

    Examples
    --------
    Spikes of 3 units in 1200 trials, one of 12 angles in each:

    >>> rng = np.random.default_rng(0)
    >>> shown = np.deg2rad(30) * rng.integers(12, size=1200)
    >>> counts = rng.poisson(10 + 5 * np.cos(shown[:, None] - [0, 2, 4]))
    >>> found = fb.estimate(counts, angles=shown, estimator="smoothed")
    >>> dict(found.sizes), float(found.fisher_information.mean().round())
    ({'angle': 12}, 4.0)
    """
    names = [estimator] if isinstance(estimator, str) or not np.iterable(estimator) else list(estimator)
    if not isinstance(dims or {}, Mapping):
        raise ValueError(f"dims must map angle, trial, unit, side or replicate to labelled arrays' names, not {dims!r}")
    if not names:
        raise ValueError(f"estimator must be one or more of {', '.join(ESTIMATORS)}, not none")
    entries = {name: ESTIMATORS[checks.one_of("estimator", name, ESTIMATORS)] for name in names}
    given = {
        "responses": activity, "angles": angles, "tangents": tangents, "identity": identity, "delta": delta,
        "design": design, "estimates": estimates, "at": at, "dims": dims, "unit": unit, "symmetry": symmetry,
        "period": None if period == 2 * np.pi else str(period),
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    options = _options(entries, shuffled, diagonal)
    drop = units is not None and checks.one_of("units", units, ("drop",)) == "drop"
    needs = {entry.needs for entry in entries.values()}
    if hasattr(activity, "chunks") and hasattr(activity, "shifted"):
        wanted = {"responses", "delta"} if "pair" in needs else {"responses"}
        _check_given(names, given, wanted, {"delta"})
        if "pooled" in entries:
            raise ValueError("'pooled' needs other trials at every angle, but an activity has the same faces at all")
        source, led = activity, True
    else:
        kind = _kind(names, needs)
        main = given.get("estimates" if kind == "estimates" else "responses")
        called = (dims or {}).get("angle", "angle")
        if "angles" not in given and called in getattr(main, "coords", ()):
            given["angles"] = main[called]
        _check_given(names, given, *_KINDS[kind][1:])
        line = period is None and symmetry is None
        unit = unit if line else checks.one_of("unit", unit or "rad", ("rad", "deg"))
        if "delta" in given:
            delta = checks.number("delta", delta, above=0) * (np.pi / 180 if unit == "deg" and not line else 1)
            given["delta"] = _step(delta, circle_period(period, unit, symmetry))
        source, led = recorded(kind, given, at, circle_period(period, unit, symmetry), None if line else unit, dims)
    if influence and "pooled" in entries:
        raise ValueError("'pooled' knows no influence of single trials: leave influence out")
    if "pair" in needs:
        delta = _step(delta, _period(source))
        usual = "independent" if isinstance(source, Trials) else "paired"
        design = checks.one_of("design", design or usual, ("paired", "independent"))
        if isinstance(source, Trials) and design == "paired":
            raise ValueError("design must be 'independent' for trials: pairs come as (angle, side, face, unit)")
    options = {n: options | ({"design": design} if e.needs == "pair" else {}) for n, e in entries.items()}
    # Without identity, trials of a table with holes are independent ones to pooled, as those of a whole table are.
    alone = source._replace(identity=None) if isinstance(source, Trials) and identity is None else source
    found = [
        _labelled(name, entry, alone if name == "pooled" else source, delta, options[name], influence, drop)
        for name, entry in entries.items()
    ]
    _warn(found, source)
    whole = found[0] if isinstance(estimator, str) else xr.concat(found, "estimator", join="outer")
    if not led:
        whole = whole.isel(replicate=0, drop=True)
    whole.attrs = {"title": "Fisher information", **source.attrs, **({"delta": delta} if "pair" in needs else {})}
    if shuffled or diagonal:
        whole.attrs["noise_correlations"] = "shuffled" if shuffled else "ignored by the decoder"
    return _per(unit or "1", results.label(whole)) if getattr(source, "period", 0) == np.inf else results.label(whole)


def _step(delta: float | None, period: float) -> float:
    delta = checks.number("delta", delta, above=0)
    if delta > period / 2 - 1e-9:
        raise ValueError(
            f"delta must be less than half a period, {period / 2:.4g} rad, not {delta:.4g}: further on, the two "
            "stimuli come nearer again"
        )
    return delta


def _options(entries: Mapping[str, Estimator], shuffled: bool, diagonal: bool) -> dict[str, str]:
    if not (shuffled or diagonal):
        return {}
    if shuffled and diagonal:
        raise ValueError("shuffled and diagonal are two kinds of information: call estimate once for each")
    kinds = {name: inspect.signature(entry.function).parameters for name, entry in ESTIMATORS.items()}
    able = [name for name, parameters in kinds.items() if "correlations" in parameters]
    for name in entries:
        checks.one_of("estimator (with shuffled or diagonal)", name, able)
    return {"correlations": "shuffled" if shuffled else "ignored"}


def _per(unit: str, dataset: xr.Dataset) -> xr.Dataset:
    # On a line, in the stimulus' own unit.
    power = {"rad-2": "1" if unit == "1" else f"{unit}-2", "rad": unit}
    for variable in dataset.variables.values():
        own = variable.attrs.get("units", "1")
        variable.attrs["units"] = power.get(own, own)
    dataset["angle"].attrs["long_name"] = "stimulus"
    return dataset


def _check_given(names: Sequence[str], given: dict[str, Any], needed: set[str], optional: set[str]) -> None:
    for word, wrong in (("missing", needed - set(given)), ("surplus", set(given) - needed - optional)):
        if wrong:
            hint = {"tangents": "; smoothed and pooled take responses alone"}.get("".join(wrong), "")
            hint = " (a recorded activity brings the rest itself)" if "angles" not in needed else hint
            wants = "; ".join(dict.fromkeys(_KINDS[ESTIMATORS[name].needs][0] for name in names))
            raise ValueError(
                f"estimator {', '.join(map(repr, names))} needs {wants}; {' and '.join(sorted(wrong))} "
                f"{'is' if len(wrong) == 1 else 'are'} {word} here{hint}"
            )


def _kind(names: Sequence[str], needs: set[str]) -> str:
    needs = needs - {"curve"} if "tangents" in needs else needs  # the same responses
    if len(needs) > 1:
        raise ValueError(
            f"estimators {', '.join(map(repr, names))} need different arrays: "
            f"{'; '.join(_KINDS[kind][0] for kind in sorted(needs))}. Call estimate once for each"
        )
    return next(iter(needs))


def _labelled(
    name: str, entry: Estimator, source: Activity | Trials, delta: float | None, options: dict[str, str],
    influence: bool, drop: bool,
) -> xr.Dataset:  # fmt: skip
    identity = None if source.identity is None else np.asarray(source.identity)
    drop = drop and entry.needs != "estimates"
    loud = _loud(_populations(entry.needs, source, delta)) if drop else slice(None)
    if isinstance(source, Trials):
        kept = {key: rows[..., loud] for key in ("values", "slopes") if (rows := getattr(source, key)) is not None}
        source = source._replace(**kept)
        parts, (faces, units) = list(_of_trials(name, entry, source, identity, delta, options)), source.values.shape[1:]
    else:
        parts = []
        for responses, *rest in _pieces(entry.needs, source, delta):
            faces, units = responses.shape[-2:] if entry.needs != "estimates" else (responses.shape[-1], 1)
            if drop:
                responses = responses[..., loud]
                rest = [each[..., loud] if entry.needs == "tangents" else each for each in rest]
                units = responses.shape[-1]
            part = _of_replicates(entry.function, (responses, *rest), identity, options)
            parts.append(part if influence else part._replace(influence=part.information))
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
        rows = None if identity is None else np.atleast_2d(identity)
        known = rows is not None and (rows == rows[0]).all()
        names = pd.unique(rows[0]) if known else getattr(source, "faces", None) if rows is None else None
        dataset = dataset.assign_coords(person=np.arange(dataset.sizes["person"]) if names is None else names)
    for key in dataset.variables.keys() & {"misfit"}:
        dataset[key].attrs = _MISFIT
    chosen = getattr(source, "chosen", slice(None))
    return dataset if isinstance(chosen, slice) else dataset.isel(angle=chosen)


def _populations(needs: str, source: Activity | Trials, delta: float | None) -> Iterator[Tensor]:
    # The responses (..., face, unit) of which each covariance is made.
    if not isinstance(source, Trials):
        yield from (r.flatten(-3, -2) if needs == "pair" else r for r, *_ in _pieces(needs, source, delta))
        return
    for place in source.angles:
        if needs == "curve":
            angles = torch.as_tensor(source.trial_angles)
            yield source.values[:, circular.window(angles, place, source.values.shape[-1], source.period)]
        else:
            sides = (0.0,) if delta is None else (-delta / 2, delta / 2)
            yield source.values[:, np.concatenate([source.near(place + side) for side in sides])]


def _loud(populations: Iterator[Tensor]) -> Tensor:
    # Units that are neither constant in some population nor differ from a constant in one face alone.
    loud = None
    for responses in populations:
        rows = responses.sort(-2).values
        second, last_but_one = min(1, rows.shape[-2] - 1), max(-2, -rows.shape[-2])
        varies = (rows[..., second, :] < rows[..., -1, :]) & (rows[..., 0, :] < rows[..., last_but_one, :])
        varies = varies.flatten(0, -2).all(0)
        loud = varies if loud is None else loud & varies
    if not loud.any():
        raise ValueError(
            f"units='drop' leaves none: all {len(loud)} are constant at some angle, or differ in one trial alone"
        )
    return loud.nonzero().squeeze(-1)


def _of_trials(
    name: str, entry: Estimator, source: Trials, identity: NDArray | None, delta: float | None, options: dict[str, str]
) -> Iterator[kernels.Estimate]:
    values, device = source.values, source.values.device
    if entry.needs in ("curve", "estimates"):
        if entry.trials is None:
            raise ValueError(f"{name} takes (angle, face, unit), not trials")
        angles, at = (torch.as_tensor(each, device=device) for each in (source.trial_angles, source.angles))
        shown = values if entry.needs == "curve" else values.squeeze(-1)

        def whole(shown: Tensor, groups: NDArray | None, **options: str) -> kernels.Estimate:
            return entry.trials(shown, angles, at, groups=groups, period=source.period, **options)

        yield _of_replicates(whole, (shown,), identity, options)
        return
    trials = values.shape[1]
    everyone = np.arange(trials) if identity is None else np.asarray(identity)
    for place in source.angles:
        sides = (0.0,) if delta is None else (-delta / 2, delta / 2)
        chosen = [source.near(place + side) for side in sides]
        sizes = [len(some) for some in chosen]
        if min(sizes) < 2:
            raise ValueError(
                f"{name} needs two or more trials of the same angle, but {min(sizes)} came "
                f"{'at' if delta is None else 'about'} {place:.4g}; smoothed takes trials of different angles"
            )
        shown = [values[:, None, some] for some in chosen]
        if delta is None:
            shown.append(source.slopes[:, None, chosen[0]])
        elif not entry.trials:
            if len({*sizes}) > 1 or identity is not None:
                raise ValueError(
                    f"{name} needs equally many independent trials of both angles, not {sizes[0]} and {sizes[1]}"
                    f"{' with identity' if identity is not None else ''}; direct takes these"
                )
            shown = [torch.stack(shown, -3)]

        def one(*shown: Tensor, groups: NDArray | None, **options: str) -> kernels.Estimate:
            if delta is None:
                return entry.function(*shown, groups=groups, **options)
            return entry.function(shown if entry.trials else shown[0], delta, groups=groups, **options)

        who = everyone[..., np.concatenate(chosen)]
        found = _of_replicates(one, tuple(shown), None if identity is None else who, options)
        if identity is None and found.influence.shape[-1] == len(who):
            people, place = trials, who
        elif identity is None:
            people, place = trials, chosen[0]
        else:
            names = pd.unique(np.atleast_2d(everyone)[0])
            people, place = len(names), pd.Index(names).get_indexer(pd.unique(np.atleast_2d(who)[0]))
        spread = found.influence.new_zeros(*found.influence.shape[:-1], people)
        spread[..., torch.as_tensor(place, device=spread.device)] = found.influence
        yield found._replace(influence=spread)


def _pieces(needs: str, source: Activity, delta: float | None) -> Iterator[tuple]:
    if needs == "tangents":
        for _, responses, tangents in source.chunks(tangents=True):
            checks.enough_room(source, "estimating from one angle", 14 * responses.nbytes)
            yield responses, tangents
    elif needs == "pair":
        sides = (source.shifted(sign * delta / 2).chunks(tangents=False) for sign in (-1, 1))
        for (_, minus, _), (_, plus, _) in zip(*sides, strict=True):
            checks.enough_room(source, "comparing two stimuli", 20 * minus.nbytes)
            yield torch.stack([minus, plus], -3), delta
    elif needs == "curve":
        whole = torch.empty(0)
        for part, responses, _ in source.chunks(tangents=False):
            checks.enough_room(source, "a whole curve", 6 * responses[:, :1].nbytes * len(source.angles))
            whole = whole if len(whole) else responses[:, :1].repeat(1, len(source.angles), 1, 1)
            whole[:, part] = responses
        yield whole, torch.as_tensor(np.asarray(source.angles), device=whole.device)
    else:
        for part, reported, slopes in source.decoded().chunks(tangents=True):
            at = torch.as_tensor(np.asarray(source.angles)[part], device=reported.device)
            yield reported.squeeze(-1), slopes.squeeze(-1), at, _period(source)


def _period(source: Activity) -> float:
    return getattr(source, "period", 2 * np.pi / source.attrs.get("symmetry", 1))


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
    most = max(part.influence.shape[-1] for part in each)
    for r, part in enumerate(each):  # who is not there has no influence
        nobody = part.influence.new_zeros(*part.influence.shape[:-1], most - part.influence.shape[-1])
        each[r] = part._replace(influence=torch.cat([part.influence, nobody], -1))
    joined = [torch.cat(column) for column in zip(*(part[:-1] for part in each), strict=True)]
    extra = {key: torch.cat([part.extra[key] for part in each]) for key in each[0].extra}
    return kernels.Estimate(*joined, extra)


def _warn(found: Sequence[xr.Dataset], source: Activity | Trials) -> None:
    people = min(int(one.degrees_of_freedom.min()) + 1 for one in found)
    faces = min(float((one.effective_faces / one.n_units).min()) for one in found)
    told = [
        f"{number:.3g} {what} are few: estimates and their errors are rough below {least}"
        for number, least, what in ((people, FEW_PEOPLE, "people"), (faces, FEW_FACES, "effective faces per unit"))
        if number < least
    ]
    for one in found:
        name, units = one.estimator.item(), int(one.n_units)
        shown = int(one.n_faces) if source.identity is None and not isinstance(source, Trials) else None
        shown = shown or int(np.ceil(float(one.effective_faces.min()) + 1))
        if shown < ESTIMATORS[name].least_faces(units):
            least = ESTIMATORS[name].least_faces(units)
            told.append(f"{shown} faces are too few for {name}, which is far off below {least} for {units} units")
        if np.isinf(one.standard_error).any():
            told.append(
                f"{name} never confused the two stimuli at {int(np.isinf(one.standard_error).sum())} angles: the value "
                "is no more than a lower bound there, its error infinite; take a smaller delta or more faces"
            )
    for text in told:
        warnings.warn(text, FewFaces, stacklevel=3)
    if (odds := max((float(one.misfit.max()) for one in found if "misfit" in one), default=0)) > DOUBT:
        text = (
            f"the noise changes with the angle in a way that 'pooled' has no model for (odds of e^{odds:.0f} to 1): "
            "read its estimates as bounds from below, and compare 'smoothed' or 'direct' where trials allow"
        )
        warnings.warn(text, Misfit, stacklevel=3)
    pooled_units = [int(one.n_units) for one in found if one.estimator.item() == "pooled"]
    if pooled_units and isinstance(source, Recorded | Trials) and pooled_units[0] == source.values.shape[-1]:
        quiet = [(r.amax(-2) == r.amin(-2)).flatten(0, -2).any(0) for r in _populations("curve", source, None)]
        if (constant := torch.stack(quiet).any(0)).any():
            warnings.warn(
                f"{int(constant.sum())} of {len(constant)} units are constant at some angle (the first is unit "
                f"{int(constant.nonzero()[0])}): 'pooled' takes their variance there from the other angles; "
                "units='drop' leaves them out",
                stacklevel=3,
            )
    if isinstance(source, Recorded | Trials) and (copies := _copies(source.values)):
        warnings.warn(
            f"{copies} trials are exact copies of others, as where a session is given twice: the estimators take them "
            "for independent ones, and their errors are too small; leave the copies out",
            stacklevel=3,
        )
    slopes, needs = getattr(source, "slopes", None), {ESTIMATORS[one.estimator.item()].needs for one in found}
    if slopes is not None and "tangents" in needs and _same_for_all(source, slopes):
        warnings.warn(
            "the tangents are the same for all trials: if they are slopes of tuning curves their own error is not "
            "counted; estimator='smoothed' takes the responses alone",
            stacklevel=3,
        )


def _copies(values: Tensor) -> int:
    # How many trials, or faces at all angles, are the same as another, if more than chance would make so.
    rows = pd.DataFrame(values[0].movedim(-2, 0).flatten(1).cpu().numpy())
    found = int(rows.duplicated(keep=False).sum())
    counts = bool((values[0] == values[0].round()).all())  # small counts agree by chance
    return found * (found == len(rows) and rows.shape[1] > 3 if counts else 2 * found > len(rows))


def _same_for_all(source: Activity | Trials, slopes: Tensor) -> bool:
    if not isinstance(source, Trials):
        return bool((slopes[..., :2, :] == slopes[..., :1, :]).all() and (slopes == slopes[..., :1, :]).all())
    return all(bool((slopes[:, some] == slopes[:, some[:1]]).all()) for some in map(source.near, source.angles))
