"""Anybody's arrays in the form of a recorded activity."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from .. import angles as circle
from .. import checks
from .circular import central_difference

_CHUNK = 1 << 22  # numbers of an array that are worked on at a time
_DIMENSIONS = {
    "tangents": ("angle", "face", "unit"),
    "curve": ("angle", "face", "unit"),
    "trials": ("angle", "face", "unit"),
    "pair": ("angle", "side", "face", "unit"),
    "estimates": ("angle", "face"),
}


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
    replicate: NDArray[np.int64]
    identity: NDArray | None
    attrs: dict[str, Any]
    values: Tensor
    slopes: Tensor | None = None

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


def recorded(kind: str, given: dict[str, Any]) -> tuple[Recorded, bool]:
    """Return arrays as an activity, and whether they were led by replicates.

    Parameters
    ----------
    kind : {"tangents", "curve", "trials", "pair", "estimates"}
        What the estimator needs.
    given : dict
        ``responses`` or ``estimates``, ``angles``, and if there are any ``tangents`` and ``identity``.
    """
    main = "estimates" if kind == "estimates" else "responses"
    values, led = _as_tensor(main, given[main], _DIMENSIONS[kind])
    slopes = _as_tensor("tangents", given["tangents"], _DIMENSIONS[kind])[0] if "tangents" in given else None
    if slopes is not None and slopes.shape != values.shape:
        raise ValueError(
            f"tangents must have the shape of the {main}, {tuple(values.shape)}, not {tuple(slopes.shape)}"
        )
    angles = circle.as_angles(given["angles"])
    checks.same_length(angles=len(angles), **{f"the angle dimension of {main}": values.shape[1]})
    if kind == "pair" and values.shape[2] != 2:
        raise ValueError(f"responses must have two sides, theta -/+ delta / 2, not {values.shape[2]}")
    if kind == "estimates":
        values = values.double()
        slopes = central_difference(values, angles) if slopes is None else slopes
        values, slopes = values.unsqueeze(-1), slopes.unsqueeze(-1)
    identity = given.get("identity")
    if identity is not None:
        identity, faces = np.asarray(identity), values.shape[-2]
        if identity.shape not in ((faces,), (len(values), faces)):
            raise ValueError(f"identity must have one label per face, ({faces},), not shape {identity.shape}")
        identity = np.broadcast_to(identity, (len(values), faces))
    return Recorded(angles, np.arange(len(values)), identity, {}, values, slopes), led


def _as_tensor(argument: str, value: Any, dimensions: tuple[str, ...]) -> tuple[Tensor, bool]:
    if isinstance(value, xr.DataArray):
        lead = ("replicate",) if "replicate" in value.dims else ()
        if set(value.dims) != {*lead, *dimensions}:
            raise ValueError(f"{argument} must have the dimensions {dimensions}, not {value.dims}")
        value = value.transpose(*lead, *dimensions).values
    tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.ascontiguousarray(value))
    if tensor.is_complex():
        raise ValueError(f"{argument} must be real numbers, not {tensor.dtype}")
    if tensor.ndim == len(dimensions):
        return tensor.unsqueeze(0), False
    checks.shape(argument, tensor.shape, "replicate", *dimensions)
    return tensor, True
