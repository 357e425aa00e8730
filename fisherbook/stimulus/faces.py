"""Face images from a named source, and their splits by person, which rotate over folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import checks, store

PARTS = {"train": 0.7, "test": 0.3}
Parts = Mapping[str, tuple[NDArray[np.int64], ...]]


@dataclass(frozen=True, eq=False)
class Faces:
    """Upright images of faces, who they are, and how they are split.

    Attributes
    ----------
    images : array, float32, shape (face, channel, size, size)
        In [0, 1]. Of very many faces: uint8, a file mapped into memory; `some` reads from it.
    source : str
        ``"orl"``, ``"celeba"``, ``"gratings"``, or the name of the folder or archive.
    identity : array, int64, shape (face,), or None
        Who is who, where that is known.
    attributes : array, float32, shape (face, attribute), or None
        1 where a face has the attribute, 0 where it has not, NaN where that is unknown.
    attribute_names : tuple of str
    noise : array, float32, shape (face, channel, size, size), or None
        Added to the image after rotation: it does not turn.
    symmetry : int
        The source turned by 2 pi / symmetry is itself: 1 for faces, 2 for gratings.
    parts : mapping of str to tuple of arrays
        Name of a split → its faces (indices, int64) in each fold.
    digest : str
        Of all of the above but `source`, which follows from them and is the same in every process.
    """

    images: NDArray[np.float32]
    source: str
    identity: NDArray[np.int64] | None = None
    attributes: NDArray[np.float32] | None = None
    attribute_names: tuple[str, ...] = ()
    noise: NDArray[np.float32] | None = None
    symmetry: int = 1
    parts: Parts = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.shape("images", self.images.shape, "face", "channel", "height", "width")
        seen, single = np.asarray(self.images), self.images.dtype == np.float32
        inside = single and seen.min(initial=0) >= 0 and seen.max(initial=0) <= 1
        if not seen.size or seen.shape[2] != seen.shape[3] or not (inside or seen.dtype == np.uint8):
            raise ValueError(f"images must be squares of float32 in [0, 1], or uint8, not {seen.dtype} {seen.shape}")
        known = {n: np.asarray(v) for n in ("identity", "attributes", "noise") if (v := getattr(self, n)) is not None}
        checks.same_length(images=len(self), **{name: len(each) for name, each in known.items()})
        who, has = (known.get(name, np.zeros(1)) for name in ("identity", "attributes"))
        if np.ma.is_masked(self.identity) or pd.isna(who).any():
            raise ValueError("identity must say of each face whom it shows, and some are missing")
        if np.ma.is_masked(self.attributes) or not (np.isnan(has) | (has == 0) | (has == 1)).all():
            raise ValueError("attributes must be 1 (has it), 0 (has it not) or NaN (unknown)")
        chosen: dict[str, tuple] = {}
        for name, folds in self.parts.items():
            chosen[name] = tuple(checks.positions(f"parts[{name!r}]", fold, len(self)) for fold in folds)
        checks.same_length(**{name: len(folds) for name, folds in chosen.items()})
        vars(self).update(known, parts=chosen)

    @property
    def digest(self) -> str:  # noqa: D102
        return store.digest({part.name: getattr(self, part.name) for part in fields(self) if part.name != "source"})

    def __len__(self) -> int:
        return len(self.images)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.parts)

    @property
    def folds(self) -> int:
        """The number of folds."""
        if not self.parts:
            raise ValueError("these faces have no splits, such as train and test: load_faces or with_splits makes them")
        return len(next(iter(self.parts.values())))

    def split(self, name: str | None, fold: int = 0) -> NDArray[np.int64]:
        """Return the indices of a split's faces, of all for None, in order of person, then of place."""
        if name is None:
            return self._where(np.ones(len(self), bool))
        if not 0 <= fold < self.folds:
            raise ValueError(f"fold must be a whole number from 0 to {self.folds - 1}, not {fold!r}")
        return self.parts[checks.one_of("split", name, self.splits)][fold]

    def with_splits(self, parts: Mapping[str, Sequence[NDArray[np.int64]]]) -> "Faces":
        """Return the same faces with other splits: name → the indices of its faces in each fold."""
        return replace(self, parts={name: tuple(folds) for name, folds in parts.items()})

    def some(self, indices: NDArray[np.int64]) -> "Faces":
        """Return the images (float32), and their noise, of some faces, without what else is known of them."""
        indices = checks.positions("faces", indices, len(self))
        images = self.images[indices]
        images = images if images.dtype == np.float32 else images / np.float32(255)
        noise = None if self.noise is None else self.noise[indices]
        return Faces(images, self.source, noise=noise, symmetry=self.symmetry)

    def _where(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        indices = np.flatnonzero(chosen)
        if self.identity is not None:
            indices = indices[np.argsort(self.identity[indices], kind="stable")]
        return indices
