"""Anybody's arrays in one of two forms: faces shown at every angle, or trials that each have an angle of their own."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .. import angles as circle
from .. import checks
from .circular import central_difference, wrap

_CHUNK = 1 << 22  # numbers of an array that are worked on at a time
_MANY, _GRID = 72, 36  # different angles beyond which a curve is estimated on a grid, of so many
_SAME = 1e-6  # rad, or share of a line: two angles within it are one, as single precision asks
_DIMENSIONS = {
    "tangents": ("angle", "face", "unit"),
    "curve": ("angle", "face", "unit"),
    "pair": ("angle", "side", "face", "unit"),
    "estimates": ("angle", "face"),
}
_UNITS = {"radian": "rad", "radians": "rad", "1": "rad"}


class Activity(Protocol):
    """Anything that yields responses and tangents (replicate, angle, face, unit) in chunks over angles."""

    angles: NDArray[np.float64]
    replicate: NDArray[np.int64]
    identity: NDArray | None
    attrs: dict[str, Any]

    def chunks(self, tangents: bool = True) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield ``(slice over angles, responses, tangents or None)``."""

    def shifted(self, offset: float) -> "Activity":
        """Return the same faces' activity at ``angles + offset``."""

    def decoded(self) -> "Activity":
        """Return the estimated angle (rad) as the one unit."""


class Recorded(NamedTuple):
    """Plain arrays in the form of an `Activity`; the values may have a side after the angle."""

    angles: NDArray[np.float64]
    replicate: NDArray
    identity: NDArray | None
    attrs: dict[str, Any]
    values: Tensor
    slopes: Tensor | None = None
    period: float = 2 * np.pi
    chosen: NDArray[np.int64] | slice = slice(None)  # the angles at which the curve is wanted
    faces: NDArray | None = None  # their labels, if they have some

    def chunks(self, tangents: bool = True) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield ``(slice over angles, responses, tangents or None)``."""
        step = max(1, _CHUNK * len(self.angles) // max(1, self.values.numel()))
        for start in range(0, len(self.angles), step):
            part = slice(start, start + step)
            yield part, self.values[:, part], self.slopes[:, part] if tangents else None

    def shifted(self, offset: float) -> "Recorded":
        """Return the side of the pair on which the offset lies."""
        return self._replace(values=self.values[:, :, int(offset > 0)])

    def decoded(self) -> "Recorded":
        """Return the same: these are estimates."""
        return self


class Trials(NamedTuple):
    """Trials (replicate, trial, unit), one angle each, and the angles where the curve is wanted."""

    angles: NDArray[np.float64]
    replicate: NDArray
    identity: NDArray | None
    attrs: dict[str, Any]
    trial_angles: NDArray[np.float64]
    values: Tensor
    slopes: Tensor | None
    period: float

    def near(self, place: float) -> NDArray[np.int64]:
        """Return the trials of one angle."""
        return np.flatnonzero(_same(self.trial_angles, place, self.period))


class _Array(NamedTuple):
    """Numbers led by replicates, whose dimensions and labels are known."""

    values: Tensor
    dims: tuple[str, ...]
    labels: dict[str, NDArray]
    missing: NDArray[np.bool_] | None  # behind a mask; over the dimensions but the unit
    counts: list[int] | None = None  # trials of each angle, where these came as a list
    led: bool = False  # whether it came with replicates


def recorded(
    kind: str,
    given: Mapping[str, Any],
    at: ArrayLike | None = None,
    period: float = 2 * np.pi,
    unit: str | None = None,
    dims: Mapping[str, str] | None = None,
) -> tuple[Recorded | Trials, bool]:
    """Return arrays as an activity or as trials, and whether they were led by replicates.

    Parameters
    ----------
    kind : {"tangents", "curve", "pair", "estimates"}
        What the estimator needs.
    given : mapping
        ``responses`` or ``estimates``, ``angles``, and if there are any ``tangents``, ``identity`` and ``delta`` (rad).
    at : array_like, optional
        Angles where the curve is wanted.
    period : float
        rad; infinite for a line.
    unit : str, optional
        Of all angles given.
    dims : mapping of str to str, optional
        What labelled arrays call ``angle``, ``trial`` (or ``face``), ``unit``, ``side`` and ``replicate``.
    """
    name = "estimates" if kind == "estimates" else "responses"
    main = _array(name, given[name], kind, dims or {})
    angles = _angles(given, name, main, period, unit, dims or {})
    identity = _identity(given.get("identity"), name, main, dims or {})
    turn = np.pi / 180 if unit == "deg" else 1.0
    values, slopes, missing = main.values, None, main.missing
    if "tangents" in given:
        other = _aligned("tangents", _array("tangents", given["tangents"], kind, dims or {}), name, main)
        if other.values.shape != values.shape or (main.counts and other.counts not in (None, main.counts)):
            shapes = [each.counts or tuple(each.values.shape) for each in (main, other)]
            raise ValueError(f"tangents must have the shape of the {name}, {shapes[0]}, not {shapes[1]}")
        masks = [mask for mask in (missing, other.missing) if mask is not None]
        missing = np.logical_or.reduce(masks) if masks else None
        slopes = other.values if kind == "estimates" else other.values / turn
    if kind == "estimates":
        if float((values * turn).abs().max()) > 2 * period + 1e-9:
            raise ValueError(
                f"estimates of up to {float(values.abs().max()):.4g} lie beyond two periods of the stimulus: they have "
                "the unit of the angles; np.deg2rad converts degrees, or unit='deg' where both are"
            )
        values, slopes = (v if v is None else v.double().unsqueeze(-1) for v in (values * turn, slopes))
    if "side" in main.dims and values.shape[main.dims.index("side")] != 2:
        sides = values.shape[main.dims.index("side")]
        raise ValueError(f"responses must have two sides, theta -/+ delta / 2, not {sides}")
    if "side" in main.dims and (same := (values[:, :, 0] == values[:, :, 1]).flatten(2).all(2)).any():
        raise ValueError(
            f"both sides are the very same responses at {int(same.any(0).sum())} of {same.shape[1]} angles: side 0 is "
            "theta - delta / 2, side 1 theta + delta / 2"
        )
    replicate = main.labels.get("replicate", np.arange(len(values)))
    wanted = None if at is None else as_angles(at, period, unit, "at")
    ends, spare = (angles.min(), angles.max()), _nearness(angles, period)
    if wanted is not None and period == np.inf and np.abs(wanted - np.clip(wanted, *ends)).max() > spare:
        raise ValueError(f"at must lie among the places shown, {ends[0]:.4g} to {ends[1]:.4g}: no fit knows of others")
    if "angle" in main.dims:
        whole = Recorded(angles, replicate, identity, {}, values, slopes, period, faces=main.labels.get("face"))
        whole, missing = _unmasked(whole, missing, kind)
        whole = whole if missing is not None else _merged(whole)
        places = [] if wanted is None else [np.flatnonzero(_same(whole.angles, place, period)) for place in wanted]
        if missing is None and len(distinct(whole.angles, period)) == len(whole.angles) and all(map(len, places)):
            if wanted is not None:
                whole = whole._replace(chosen=np.concatenate(places))
            if kind == "estimates" and slopes is None:
                found = central_difference(whole.values.squeeze(-1), whole.angles, period)
                whole = whole._replace(slopes=found.unsqueeze(-1))
            return whole, main.led
        if kind == "pair":
            raise ValueError("pairs must have every angle equally often and whole faces masked, and `at` among angles")
        angles, values, slopes, identity = _flattened(whole)
    if missing is not None:
        keep = _kept(missing.reshape(len(missing), -1).any(0))
        angles, values = angles[keep], values[:, keep]
        slopes, identity = (v if v is None else v[:, keep] for v in (slopes, identity))
    if kind == "estimates" and slopes is not None:
        raise ValueError("tangents of estimates must be (angle, face), each angle once; of trials the slope is fitted")
    if wanted is None:
        wanted = _default(distinct(angles, period), kind, given.get("delta"), period)
    return Trials(wanted, replicate, identity, {}, angles, values, slopes, period), main.led


def _default(shown: NDArray, kind: str, delta: float | None, period: float) -> NDArray[np.float64]:
    if kind == "pair":
        found = [one + delta / 2 for one in shown if _same(shown, one + delta, period).any()]
        if not found:
            raise ValueError(f"no two of the {len(shown)} angles given are delta = {delta:.4g} apart")
        return np.array(found)
    if len(shown) <= _MANY or kind == "tangents":
        return shown
    return np.linspace(shown[0], shown[-1], _GRID) if period == np.inf else circle.grid(_GRID) * (period / 2 / np.pi)


def circle_period(period: float | None, unit: str | None, symmetry: int | None = None) -> float:
    """Return the stimulus' period in rad, infinite for a line, from what a user calls it.

    A whole fraction of a turn, which is 360 too where `unit` is "deg".
    """
    if symmetry is not None:
        if period is None:
            raise ValueError("symmetry is a circle's, and period=None says that the stimulus lies on a line")
        return 2 * np.pi / checks.whole_number("symmetry", symmetry)
    if period is None:
        return np.inf
    for turn in (360.0, 2 * np.pi) if unit == "deg" else (2 * np.pi,):
        parts = turn / checks.number("period", period, above=0)
        if parts > 0.5 and abs(parts - round(parts)) < 1e-6:
            return 2 * np.pi / round(parts)
    raise ValueError(f"period must be a turn (2 pi), a half (pi), ..., or None for a line, not {period!r}")


def as_angles(value: Any, period: float, unit: str | None, argument: str = "angles", one: bool = False) -> NDArray:
    """Return angles in rad, or places on a line in their own unit; `one` number is no count where there is one."""
    text = str(getattr(value, "attrs", {}).get("units") or "").strip().casefold()
    said = "deg" if text.startswith(("deg", "°")) or "degree" in text else _UNITS.get(text, text)
    if period < np.inf and said and said != (unit or "rad"):
        hint = f"say unit={said!r}, or convert them" if said in ("deg", "rad") else "convert them to rad or degrees"
        raise ValueError(f"{argument} are labelled {value.attrs['units']}: {hint}")
    if np.ma.is_masked(value):
        raise ValueError(
            f"{argument} are masked in {np.ma.getmaskarray(value).sum()} of {value.size} places: leave these out, and "
            "their trials"
        )
    plain = checks.plain(value)
    if plain.dtype.kind == "b" if isinstance(plain, np.ndarray) else isinstance(plain, bool):
        raise ValueError(f"{argument} must be numbers, not a boolean choice of them")
    plain = np.atleast_1d(plain) if one or period == np.inf else plain
    return circle.as_angles(plain, period, unit if period < np.inf else None, argument)


def distinct(angles: NDArray, period: float) -> NDArray[np.float64]:
    """Return the different angles, in rising order."""
    return np.unique(_snapped(angles, period))


def _snapped(angles: NDArray, period: float) -> NDArray[np.float64]:
    # Angles that are the same but for rounding, or for whole periods, as one number.
    shown, of = np.unique(angles, return_inverse=True)
    turned = shown if period == np.inf else shown % period
    order = np.argsort(turned, kind="stable")
    new = np.diff(turned[order], prepend=turned[order[-1:]] - period) > _nearness(angles, period)
    new[0] |= not new.any()
    place = np.empty_like(shown)
    place[order] = shown[order][new][new.cumsum() - 1]  # what lies before the first is the last, across the seam
    return place[of]


def _nearness(angles: NDArray, period: float) -> float:
    return _SAME * (np.ptp(angles) if period == np.inf else 1.0)


def _same(angles: NDArray, place: float, period: float) -> NDArray[np.bool_]:
    return wrap(torch.as_tensor(angles - place), period).abs().numpy() <= _nearness(angles, period)


def _numbers(argument: str, value: Any) -> tuple[Tensor, NDArray | None]:
    # Real numbers in a type that torch takes, and where they are masked.
    if isinstance(value, Tensor):
        if value.is_complex() or value.is_meta or value.layout != torch.strided:
            raise ValueError(f"{argument} must be real numbers, not {value.dtype}, {value.layout} on {value.device}")
        short = value.dtype == torch.bool or (value.is_floating_point() and value.itemsize < 4)
        return _finite(argument, value.detach().double() if short else value.detach()), None
    missing = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value) else None
    try:
        array = np.asarray(value if missing is None else value.filled(0))
        if array.dtype.kind in "cmM":
            raise TypeError(f"real numbers, not {array.dtype}")
        single = array.dtype.kind == "f" and array.dtype.itemsize == 4
        array = np.ascontiguousarray(array, np.float32 if single else np.float64)
    except (TypeError, ValueError) as error:
        said = error if "real numbers" in str(error) else "an array of numbers, or a list of such, one for each angle"
        raise ValueError(f"{argument} must be {said}") from None
    array = array.copy() if any(step < 0 for step in array.strides) else array
    return _finite(argument, torch.from_numpy(array)), missing


def _finite(argument: str, values: Tensor) -> Tensor:
    if not values.isfinite().all():
        bad = ~values.isfinite().reshape(-1, values.shape[-1]).all(-1)
        raise ValueError(
            f"activity must be finite, but {argument} have NaN or infinity in {bad.sum()} of {len(bad)} trials: leave "
            "these out, or mask them (numpy.ma)"
        )
    return values


def _array(argument: str, value: Any, kind: str, dims: Mapping[str, str]) -> _Array:
    full = _DIMENSIONS[kind]
    flat = tuple(dim for dim in full if dim in ("face", "unit"))
    labels, counts, names, missing = {}, None, None, None
    if isinstance(value, xr.Dataset):
        raise ValueError(
            f"{argument} must be an array, not a dataset: choose one of {', '.join(map(str, value.data_vars))}"
        )
    value = _labelled(value, flat, dims)
    if isinstance(value, xr.DataArray):
        lead = ("replicate",) if "replicate" in value.dims else ()
        names = next((n for n in ((*lead, *full), (*lead, *flat)) if set(n) == set(value.dims)), None)
        if names is None:
            raise ValueError(
                f"{argument} must have the dimensions {full}, not {value.dims}; or of trials {flat}; `dims` says which "
                "is which"
            )
        value = value.transpose(*names)
        labels = {dim: value.indexes[dim].to_numpy() for dim in names if dim in value.indexes}
        tensor, missing = _numbers(argument, value.values)
    elif isinstance(value, list | tuple) and len(value) and np.ndim(value[0]):
        value, labels = _entries(argument, value, full[1:] if np.ndim(value[0]) == len(full) - 1 else flat, dims)
        each, masks = zip(*(_numbers(argument, item) for item in value), strict=True)
        if any(mask is not None for mask in masks):
            masks = [np.zeros(e.shape, bool) if m is None else m for e, m in zip(each, masks, strict=True)]
        if len({item.shape for item in each}) == 1:
            tensor, missing = torch.stack(each), None if masks[0] is None else np.stack(masks)
        elif {item.ndim for item in each} == {len(flat)} and len({item.shape[1:] for item in each}) == 1:
            tensor, missing = torch.cat(each), None if masks[0] is None else np.concatenate(masks)
            counts = [len(item) for item in each]
        else:
            shapes = ", ".join(str(tuple(item.shape)) for item in each[:3])
            raise ValueError(f"{argument} must be one ({', '.join(flat)}) array for each angle, not {shapes}")
    else:
        tensor, missing = _numbers(argument, value)
    if names is None:
        names = {len(flat): flat, len(full): full}.get(tensor.ndim, ("replicate", *full))
        checks.shape(argument, tensor.shape, *names)
    if 0 in tensor.shape:
        raise ValueError(f"{argument} are empty: ({', '.join(names)}) is {tuple(tensor.shape)}")
    led = "replicate" in names
    if missing is not None and "unit" in names:
        if (missing.any(-1) != missing.all(-1)).any():
            raise ValueError(f"{argument} have trials that are masked in part: mask whole trials, or leave out units")
        missing = missing.all(-1)
    if not led:
        tensor, missing = tensor.unsqueeze(0), None if missing is None else missing[None]
    return _Array(tensor, names if led else ("replicate", *names), labels, missing, counts, led)


def _entries(argument: str, value: Any, names: tuple[str, ...], dims: Mapping[str, str]) -> tuple[Any, dict]:
    # The arrays of a list, with dimensions and labels in the order of the first one's, and the labels of units.
    each = [_labelled(item, names, dims) for item in value]
    if not all(isinstance(item, xr.DataArray) and {*item.dims} == {*names} for item in each):
        return value, {}
    labels = {}
    for dim in (name for name in names if all(name in item.indexes for item in each)):
        own = [item.indexes[dim].to_numpy() for item in each]
        if dim != "face" or all({*some} == {*own[0]} and len(some) == len(own[0]) for some in own):
            labels[dim] = own[0]
            orders = (_order(f"one of {argument}", some, "the first", own[0], dim) for some in own)
            each = [item.isel({dim: order}) for item, order in zip(each, orders, strict=True)]
    return [item.transpose(*names).to_numpy() for item in each], labels


def _listed(argument: str, value: Any, counts: list[int] | None) -> Any:
    # One list for each list of trials, as one.
    if not (isinstance(value, list | tuple) and len(value) and all(np.ndim(one) for one in value)):
        return value
    lengths = [len(one) for one in value]
    if counts is not None and lengths != counts:
        raise ValueError(f"{argument} and trials come in lists of other lengths: {lengths} and {counts}")
    return np.concatenate([checks.plain(one) for one in value])


def _labelled(value: Any, flat: tuple[str, ...], dims: Mapping[str, str]) -> Any:
    # pandas' tables and series have labels too; what users call their dimensions is called as we do.
    if isinstance(value, pd.DataFrame | pd.Series):
        axes = dict(zip(flat, value.axes, strict=False))
        return xr.DataArray(value.to_numpy(), axes, list(axes)) if value.ndim == len(axes) else value.to_numpy()
    if isinstance(value, xr.DataArray):
        named = {"trial": "face"} | {theirs: "face" if ours == "trial" else ours for ours, theirs in dims.items()}
        known = {*value.dims, *value.coords}
        return value.rename({old: new for old, new in named.items() if old in known and new != old})
    return value


def _aligned(argument: str, other: _Array, name: str, main: _Array) -> _Array:
    values, missing = other.values, other.missing
    for axis, dim in enumerate(other.dims):
        if dim in other.labels and dim in main.labels:
            order = _order(argument, other.labels[dim], name, main.labels[dim], dim)
            values = values.index_select(axis, torch.as_tensor(order, device=values.device))
            missing = missing if missing is None or dim == "unit" else missing.take(order, axis)
    return other._replace(values=values, missing=missing)


def _order(argument: str, mine: NDArray, name: str, theirs: NDArray, dim: str) -> NDArray[np.int64]:
    if len(mine) == len(theirs) and (mine == theirs).all():
        return np.arange(len(mine))
    index = pd.Index(mine)
    order = index.get_indexer(theirs) if index.is_unique else np.full(1, -1)
    if len(mine) != len(theirs) or (order < 0).any() or len({*order}) < len(order):
        alone = [label for label in theirs if label not in index] or [label for label in mine if label not in theirs]
        what = f"{alone[0]} is in one only" if alone else "some are repeated"
        raise ValueError(f"{argument} and {name} have different labels along {dim}: {what}")
    return order


def _angles(
    given: Mapping[str, Any], name: str, main: _Array, period: float, unit: str | None, dims: Mapping[str, str]
) -> NDArray[np.float64]:
    along = "angle" if "angle" in main.dims else "face"
    length = main.values.shape[main.dims.index(along)]
    value = _listed("angles", _labelled(given["angles"], (along,), dims), main.counts)
    angles = as_angles(value, period, unit, one=length == 1)
    if main.counts is not None and len(angles) == len(main.counts):
        angles = np.repeat(angles, main.counts)
    checks.same_length(
        angles=len(angles), **{f"the {'trial' if along == 'face' else along} dimension of {name}": length}
    )
    labels = value.indexes.get(value.dims[0]) if isinstance(value, xr.DataArray) and value.ndim == 1 else None
    if labels is not None and along in main.labels and value.dims[0] == along and value.name != along:
        angles = angles[_order("angles", labels.to_numpy(), name, main.labels[along], along)]
    own = _labelled(given[name], (), dims)
    own = own["angle"] if isinstance(own, xr.DataArray) and "angle" in own.coords else None
    if own is not None and own.ndim == 1 and not np.allclose(as_angles(own, period, unit), angles, rtol=0, atol=1e-6):
        raise ValueError(f"angles differ from the coordinate angle of {name}: leave out one of them")
    return _snapped(angles, period)


def _identity(value: Any, name: str, main: _Array, dims: Mapping[str, str]) -> NDArray | None:
    if value is None:
        return None
    value = _labelled(_listed("identity", value, main.counts) if main.counts else value, ("face",), dims)
    labels = checks.plain(value)
    masked = value if isinstance(value, np.ma.MaskedArray) else labels
    gone = pd.isna(labels) | (labels == "") | np.ma.getmaskarray(masked)
    if gone.any():
        raise ValueError(f"identity must have a label for every face, but {gone.sum()} of {gone.size} are missing")
    if labels.dtype == bool:
        raise ValueError("identity must be labels of people, not a boolean choice of faces")
    replicates, faces = len(main.values), main.values.shape[main.dims.index("face")]
    if labels.shape not in ((faces,), (replicates, faces)):
        raise ValueError(f"identity must have one label per face, ({faces},), not shape {labels.shape}")
    if isinstance(value, xr.DataArray) and "face" in value.indexes and "face" in main.labels:
        order = _order("identity", value.indexes["face"].to_numpy(), name, main.labels["face"], "face")
        labels = labels.take(order, value.dims.index("face"))
    if isinstance(value, xr.DataArray) and "replicate" in value.indexes and "replicate" in main.labels:
        order = _order("identity", value.indexes["replicate"].to_numpy(), name, main.labels["replicate"], "replicate")
        labels = labels.take(order, value.dims.index("replicate"))
    return np.broadcast_to(labels, (replicates, faces))


def _unmasked(whole: Recorded, missing: NDArray | None, kind: str) -> tuple[Recorded, NDArray | None]:
    # Faces that are masked at every angle are left out.
    if missing is None:
        return whole, None
    if kind == "pair":
        missing = np.logical_or.reduce(missing, axis=2)
    gone = missing.reshape(-1, missing.shape[-1])
    if (gone != gone[0]).any():
        return whole, missing
    keep = _kept(gone[0])
    values, slopes = (v if v is None else v[..., keep, :] for v in (whole.values, whole.slopes))
    identity, faces = (v if v is None else v[..., keep] for v in (whole.identity, whole.faces))
    return whole._replace(values=values, slopes=slopes, identity=identity, faces=faces), None


def _kept(masked: NDArray[np.bool_]) -> NDArray[np.int64]:
    if masked.all():
        raise ValueError(f"all {len(masked)} trials are masked: none is left")
    return np.flatnonzero(~masked)


def _merged(whole: Recorded) -> Recorded:
    # Angles that came equally often, such as sessions stacked: each once, with the faces of all.
    shown = distinct(whole.angles, whole.period)
    rows = [np.flatnonzero(_same(whole.angles, place, whole.period)) for place in shown]
    if len(shown) == len(whole.angles) or len({*map(len, rows)}) > 1:
        return whole
    rows = np.stack(rows)  # (angle, repeat)

    def merged(values: Tensor | None) -> Tensor | None:
        # (replicate, angle, repeat, (side,) face, unit)
        return values if values is None else values[:, rows].movedim(2, -3).flatten(-3, -2)

    identity = None if whole.identity is None else np.tile(whole.identity, rows.shape[1])
    own = {"values": merged(whole.values), "slopes": merged(whole.slopes), "identity": identity, "faces": None}
    return whole._replace(angles=shown, **own)


def _flattened(whole: Recorded) -> tuple[NDArray, Tensor, Tensor | None, NDArray]:
    # Faces at every angle as trials; each face is one cluster of them.
    angles, faces = whole.values.shape[1:3]
    identity = np.arange(faces)[None].repeat(len(whole.values), 0) if whole.identity is None else whole.identity
    values, slopes = (v if v is None else v.flatten(1, 2) for v in (whole.values, whole.slopes))
    return np.repeat(whole.angles, faces), values, slopes, np.tile(identity, angles)
