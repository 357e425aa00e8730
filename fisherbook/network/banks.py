"""The bank of what a frozen backbone sees.

A frozen backbone is run once for each face and each angle of a grid; a `FeatureBank` keeps responses and tangents, and
stands in for the stimulus wherever a probe is trained on it or recorded with it.
"""

import copy
import math
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .. import angles as circle
from .. import checks
from ..stimulus.stimulus import Stimulus
from ..store import Store, default_store, digest, made_by
from .networks import INPUT_MEAN, INPUT_SCALE, Network, choose_device

Respond = Callable[[Tensor, Tensor | None, str], tuple[Tensor, Tensor | None]]
TOGETHER = 64  # images
_PIECE = 2**26  # bytes of a bank's file


class FeatureBank:
    """What a frozen backbone makes of every face at every angle of a grid, on disk: a stimulus for probes.

    Responses and tangents are computed once, kept in the store in pieces of some faces each (memory-mapped when read;
    what an interrupted build has finished stays), and shared by all that is trained on it or recorded with it. At the
    grid's angles both are the backbone's own; between them a response is the cubic that has the responses and tangents
    of its two neighbours, and its tangent is that cubic's derivative.

    Parameters
    ----------
    stimulus : Stimulus
    network : Network
        With a backbone; only that matters here.
    angles : int, optional
        Of the grid; by default the network's.
    dtype : {"float32", "float16"}
        Of the files.
    seed : int
        Of random weights.
    device : str
        Where the backbone runs; ``"auto"`` takes a GPU where there is one.
    store : Store, optional
        By default `default_store()`.

    Attributes
    ----------
    stimulus : Stimulus
    respond : callable
        The backbone: images, tangents or None, and a layer's name → its response and tangent.
    faces, symmetry, channels, aperture, rotation, digest
        As a stimulus has them; its pixels are the features, centred and scaled.
    """

    channels, rotation = 1, "bank"

    def __init__(
        self, stimulus: Stimulus, network: Network, angles: int | None = None, dtype: str = "float32", seed: int = 0,
        device: str = "auto", store: Store | None = None, progress: bool = False,
    ) -> None:  # fmt: skip
        if not network.kind.layers:
            raise ValueError("FeatureBank needs a network with a backbone, such as Network('resnet18')")
        self.stimulus, self.faces, self.symmetry = stimulus, stimulus.faces, stimulus.symmetry
        self.angles = checks.whole_number("angles", angles or network.bank, 2)
        self.indices, self._device = stimulus.indices, choose_device(device)
        self._dtype = np.dtype(checks.one_of("dtype", dtype, ["float32", "float16"]))
        self._store, self._progress = store or default_store(), progress
        self._between, self._last = True, {}
        state = network.kind.begin(stimulus, (seed,), self._store, self._device)
        self._mean, self._scale = state["mean"].double(), state["scale"].double()
        self._features, self.aperture = len(self._mean), torch.arange(len(self._mean))
        self.respond = network.kind.backbone.ready({n: t.to(self._device) for n, t in state.items()})
        self._each = max(1, _PIECE // (self.angles * 2 * self._features * self._dtype.itemsize))  # faces of a piece
        made = made_by("network.banks", *network.kind.modules, device=self._device, dtype=dtype)
        self.digest = digest([stimulus.digest, network.kind.keyed, state, self.angles, made])

    def pixels(
        self, faces: Tensor, angles: Tensor, tangents: bool = False, dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Tensor:  # fmt: skip
        """Return what a probe sees, or its derivative (rad⁻¹), (pair, 1, feature), for pairs of face and angle."""
        faces, angles = torch.as_tensor(faces).cpu(), torch.as_tensor(angles, dtype=torch.float64).cpu()
        values = (self._cubic if self._between else self._computed)(faces, angles, tangents, dtype)
        values = (values if tangents else values - self._mean.to(dtype)) * (INPUT_SCALE / self._scale.to(dtype))
        return (values if tangents else values + INPUT_MEAN)[:, None].to(device)

    def _cubic(self, faces: Tensor, angles: Tensor, tangents: bool, dtype: torch.dtype) -> Tensor:
        step = 2 * math.pi / self.angles
        place = (angles + math.pi) / step
        left = (place + 1e-9).floor()
        t = (place - left).to(dtype)[:, None]
        found = self._rows(faces, left.long()).to(dtype)
        (a, da), (b, db) = (side.unbind(1) for side in found.unbind(1))
        if tangents:
            return 6 * t * (1 - t) * (b - a) / step + (1 - t) * (1 - 3 * t) * da + t * (3 * t - 2) * db
        return a + t**2 * (3 - 2 * t) * (b - a) + step * t * (1 - t) * ((1 - t) * da - t * db)

    def exact(self) -> "FeatureBank":
        """Return the same of the backbone itself, run for each pair that is asked for: nothing lies between angles."""
        bank = copy.copy(self)
        bank._between, bank._last, bank.digest = False, {}, digest([self.digest, "exact"])
        return bank

    def _computed(self, faces: Tensor, angles: Tensor, tangents: bool, dtype: torch.dtype) -> Tensor:
        """Run the backbone, unless these pairs were the last: their tangents are asked for after their responses."""
        key = digest([faces.numpy(), angles.numpy()])
        if key not in self._last:
            found = record_features(self.respond, self.stimulus, faces, angles, device=self._device)
            self._last = {key: found}
        return self._last[key][tangents].cpu().to(dtype)

    def product(
        self, faces: Tensor, angles: Tensor, tangents: bool = False, dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Tensor:  # fmt: skip
        """Return the same, (angle, face, 1, feature), of every face at every angle."""
        at, shown = angles.repeat_interleave(len(faces)), faces.repeat(len(angles))
        return self.pixels(shown, at, tangents, dtype, device).unflatten(0, (len(angles), len(faces)))

    def _rows(self, faces: Tensor, left: Tensor) -> Tensor:
        """Return what the files hold, (pair, side, response or tangent, feature), left and right of each angle."""
        found = torch.empty((len(faces), 2, 2, self._features), dtype=torch.float32)
        columns = torch.stack([left, left + 1], 1).numpy() % self.angles
        for number in (faces // self._each).unique().tolist():
            inside = faces // self._each == number
            rows = (faces[inside] % self._each).numpy()[:, None]
            found[inside] = torch.from_numpy(self._pieces[number][rows, columns[inside.numpy()]].astype(np.float32))
        return found

    @cached_property
    def _pieces(self) -> list[np.ndarray]:
        starts = range(0, len(self.faces), self._each)
        keys = [f"{self.digest}-{start}-{self._each}" for start in starts]
        read = partial(np.load, mmap_mode="r")
        bar = tqdm(zip(keys, starts, strict=True), "feature bank", len(keys), disable=not self._progress, leave=False)
        build, save = self._build, _save
        return [self._store.fill("banks", [k], partial(build, start), save, read, ".npy")[k] for k, start in bar]

    def _build(self, start: int, missing: list[str]) -> list[tuple[str, np.ndarray]]:
        shown = torch.arange(start, min(start + self._each, len(self.faces)))
        piece = np.empty((len(shown), self.angles, 2, self._features), self._dtype)
        part, at = self.stimulus.part(shown), torch.from_numpy(circle.grid(self.angles))
        for face in range(len(shown)):
            both = record_features(self.respond, part, torch.full((len(at),), face), at, device=self._device)
            piece[face] = torch.stack(both, 1).cpu().numpy()
        return [(missing[0], piece)]


def _save(piece: np.ndarray, path: Path) -> None:
    np.save(path, piece)


def seen(
    network: Network, stimulus: Stimulus | FeatureBank, seed: int, device: str = "cpu", store: Store | None = None,
    progress: bool = False,
) -> Stimulus | FeatureBank:  # fmt: skip
    """Return what a network's trained part is shown: the bank of a frozen backbone, else the stimulus itself."""
    return network.kind.seen(stimulus, seed, device, store, progress)


def record_features(
    respond: Respond, stimulus: Stimulus, faces: Tensor, angles: Tensor, tangents: bool = True,
    layer: str = "features", device: str = "cpu", together: int = TOGETHER,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return a backbone layer's responses and tangents (pair, unit), float32, for pairs of face and angle."""
    found, together = [], min(together, TOGETHER)
    for shown, at in zip(faces.split(together), angles.split(together), strict=True):
        images, along = (
            stimulus.embed(stimulus.pixels(shown, at, t, torch.float32, device), t) if t <= tangents else None
            for t in (False, True)
        )
        found.append(respond(images, along, layer))
    return tuple(torch.cat(part) if part[0] is not None else None for part in zip(*found, strict=True))
