"""Responses and tangents of one layer, for faces × angles × replicates, computed chunk by chunk when asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .. import angles as circle
from .. import checks, derivative
from ..stimulus.rotation import rings
from ..stimulus.stimulus import Stimulus
from ..store import digest, made_by
from . import modules
from .ensembles import Ensemble
from .networks import INPUT_MEAN, INPUT_SCALE, Network, Parameters, generator
from .readouts import READOUTS

if TYPE_CHECKING:
    from .banks import FeatureBank

Evaluate = Callable[[NDArray, bool, slice], tuple[Tensor, Tensor | None]]
Currents = Callable[[NDArray], Callable[[Tensor, bool], Tensor]]
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Activity:
    """One layer's activity, and its derivative with respect to the angle, at given angles.

    Attributes
    ----------
    angles : array, shape (angle,)
        rad.
    replicate : array of int, shape (replicate,)
    face : array of int, shape (replicate, face)
        Which faces each replicate was shown.
    identity : array of int, shape (replicate, face), or None
        Who they are: the clusters of the faces.
    attrs : dict
        ``layer``, and ``stage`` and ``split`` where they are known.
    key : str or None
        Digest of all that made it but the angles; None for a module, of which nobody knows what made it.
    memory : int
        Bytes that what computes it, and what estimates from it, may take.
    """

    angles: NDArray[np.float64]
    replicate: NDArray[np.int64]
    face: NDArray[np.int64]
    identity: NDArray[np.int64] | None
    attrs: dict[str, Any]
    key: str | None
    _evaluate: Evaluate = field(repr=False)  # at angles, of a block of faces: as `chunks` yields
    _decode: Callable[[Tensor], Tensor] | None = field(repr=False, default=None)
    _chunk: int = field(repr=False, default=16)  # angles
    _blocks: tuple[slice, ...] = field(repr=False, default=(slice(None),))  # of faces that are computed together
    memory: int = field(repr=False, default=2**62)
    _shown: NDArray[np.int64] | None = field(repr=False, default=None)  # which of these faces; None for all

    def chunks(self, tangents: bool = True) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield ``(slice over angles, responses, tangents)``, tensors (replicate, angle, face, unit), float64.

        Raises
        ------
        ValueError
            If any of it is NaN or infinite: the layer, the first such angle, and how many. If a single angle of all
            faces takes more than the memory given.
        """
        for start in range(0, len(self.angles), self._chunk):
            part = slice(start, min(start + self._chunk, len(self.angles)))
            found = self._computed(self.angles[part], tangents)
            for what, values in zip(("activity", "tangent"), found, strict=True):
                self._check_finite(what, values, self.angles[part])
            yield part, *found

    def _computed(self, angles: NDArray, tangents: bool) -> tuple[Tensor, Tensor | None]:
        """Return responses and tangents, block by block of the faces."""
        if len(self._blocks) == 1 and self._shown is None:
            return self._evaluate(angles, tangents, self._blocks[0])
        faces = self.face.shape[1]
        shown, whole = np.arange(faces) if self._shown is None else self._shown, None
        for block in self._blocks:
            start, stop = block.start or 0, np.inf if block.stop is None else block.stop
            places = np.flatnonzero((start <= shown) & (shown < stop))
            if len(places):
                found = self._evaluate(angles, tangents, block)
                one = sum(v[:, :1, :1].nbytes for v in found if v is not None) * faces * len(angles)
                checks.enough_room(self, f"a chunk of layer {self.attrs.get('layer')!r} and the next", 2 * one)
                whole = whole or tuple(v if v is None else _empty(v, 2, faces) for v in found)
                for values, v in zip(whole, found, strict=True):
                    if v is not None:
                        values[:, :, places] = v[:, :, shown[places] - start]
        return whole

    def _check_finite(self, what: str, values: Tensor | None, angles: NDArray) -> None:
        if values is None or values.sum().isfinite():  # one pass, and no array of its own
            return
        wrong = (~values.isfinite()).sum((0, 2, 3)).cpu().numpy()
        first = angles[np.flatnonzero(wrong)[0]] if wrong.any() else 0
        if wrong.any():
            raise ValueError(
                f"the {what} of layer {self.attrs.get('layer')!r} must be finite, but {wrong.sum()} of "
                f"{values.numel()} values are NaN or infinite, the first at the angle {first:.4g} rad"
            )

    def whole(self) -> tuple[Tensor, Tensor]:
        """Return all responses and their derivatives with respect to the angle (rad⁻¹), on the CPU; mind the memory."""
        return self._joined(tangents=True)

    def responses(self) -> Tensor:
        """Return all responses, (replicate, angle, face, unit), float64, on the CPU; mind the memory."""
        return self._joined(tangents=False)[0]

    def _joined(self, tangents: bool) -> tuple[Tensor, ...]:
        joined = None
        for part, *found in self.chunks(tangents):
            found = found[: 1 + tangents]
            if joined is None:
                joined = tuple(_empty(v, 1, len(self.angles)).cpu() for v in found)
            for whole, v in zip(joined, found, strict=True):
                whole[:, part] = v
        return joined

    def shifted(self, offset: float) -> "Activity":
        """Return the same faces' activity with every angle turned on by `offset` (rad)."""
        return replace(self, angles=self.angles + offset)

    def at(self, angles: int | ArrayLike) -> "Activity":
        """Return the same faces' activity at other angles (rad, or a number of them)."""
        return replace(self, angles=circle.as_angles(angles))

    def subset(self, chosen: Sequence[int] | NDArray) -> "Activity":
        """Return the activity for some faces, given by their positions in the `face` dimension."""
        chosen = np.asarray(chosen)
        identity = None if self.identity is None else self.identity[:, chosen]
        shown = (np.arange(self.face.shape[1]) if self._shown is None else self._shown)[chosen]
        key = self.key and digest([self.key, chosen])
        return replace(self, face=self.face[:, chosen], identity=identity, key=key, _shown=shown)

    def _mapped(self, change: Callable[[Tensor], Tensor], *made: Any) -> "Activity":
        """Return the activity with its units changed linearly: responses and tangents alike."""

        def evaluate(angles: NDArray, tangents: bool, block: slice) -> tuple[Tensor, Tensor | None]:
            return tuple(v if v is None else change(v) for v in self._evaluate(angles, tangents, block))

        return replace(self, key=self.key and digest([self.key, *made]), _evaluate=evaluate, _decode=None)

    def held(self, memory: int) -> "Activity":
        """Return the same activity, which keeps up to so many bytes of what it computes and computes that only once."""
        kept: dict[tuple, tuple[Tensor, Tensor | None]] = {}

        def evaluate(angles: NDArray, tangents: bool, block: slice) -> tuple[Tensor, Tensor | None]:
            key = angles.tobytes(), block.start, block.stop
            responses, along = kept.get(key, (None, None))
            if responses is None or (tangents and along is None):
                responses, along = self._evaluate(angles, tangents, block)
                room = memory - sum(v.nbytes for both in kept.values() for v in both if v is not None)
                if responses.nbytes * (1 + tangents) <= room:
                    kept[key] = responses, along
            return responses, along if tangents else None

        return replace(self, _evaluate=evaluate)

    def projected(self, units: int, seed: int = 0) -> "Activity":
        """Return the activity on so many fixed random directions, the same for every replicate, stage and face.

        A layer with more units than a covariance of so few faces can hold is measured on these: its information is at
        least what they show. Weights are normal, of variance 1 over the layer's units, and follow from `seed` and the
        number of units alone; what a convolution gives counts channel, row and column as units. A block of faces is
        projected as soon as it is computed, so that a wide layer is never held for all faces.

        Parameters
        ----------
        units : int
            Number of directions, and of the units of what is returned.
        seed : int
            Of the directions.
        """

        def project(values: Tensor) -> Tensor:
            wide = values.shape[-1]
            drawn = torch.randn(wide, units, generator=generator(seed, "projection", wide), dtype=torch.float64)
            return values @ (drawn / wide**0.5).to(values)

        return self._mapped(project, "projected", checks.whole_number("units", units), seed)

    def drop_constant(self, at: str = "any", relative: float = 1e-6) -> "Activity":
        """Return the activity without units that are constant over faces, such as dead ones.

        A unit counts as constant at an angle if, for any replicate, its standard deviation over faces is at most
        `relative` times its largest size there: in single precision that is rounding. The rule is applied at this
        activity's angles, once, now; the units that are left are the same at every angle and for every replicate.
        What a unit shows where it is not constant is lost with it, so the information of the rest is at most that of
        all; one that does not differ between faces but does change with the angle would make it infinite.

        Parameters
        ----------
        at : {"any", "all"}
            Drop what is constant at any of the angles, as a covariance that is to be inverted needs it, or only what
            is constant at all of them.
        relative : float
            From 0.

        Returns
        -------
        Activity
            Its ``attrs`` name the number of ``constant_units`` that are left out.
        """
        checks.one_of("at", at, ["any", "all"])
        found = []
        for _, values, _ in self.chunks(tangents=False):
            constant = values.std(2, correction=0) <= relative * values.abs().amax(2)
            found.append(constant.cpu())
        constant = torch.cat(found, 1)
        constant = (constant.any(1) if at == "any" else constant.all(1)).any(0)
        if constant.all():
            raise ValueError(
                f"all {len(constant)} units of layer {self.attrs.get('layer')!r} are constant over faces at "
                f"{'some angle' if at == 'any' else 'all angles'}: none would be left"
            )
        left = (~constant).nonzero().squeeze(-1)
        kept = self._mapped(lambda values: values[..., left.to(values.device)], "varying", left)
        return replace(kept, attrs=self.attrs | {"constant_units": int(constant.sum())})

    def decoded(self) -> "Activity":
        """Return the reported angle θ̂ (rad) as a layer of one unit, and its derivative dθ̂/dθ."""
        if self._decode is None:
            raise ValueError(f"only a network's output layer can be decoded, not {self.attrs.get('layer')!r}")

        def evaluate(angles: NDArray, tangents: bool, block: slice) -> tuple[Tensor, Tensor | None]:
            responses, along = self._evaluate(angles, tangents, block)
            if along is None:
                return self._decode(responses)[..., None], None
            estimate, slope = derivative.along(self._decode, responses, along)
            return estimate[..., None], slope[..., None]

        attrs, key = self.attrs | {"layer": "estimate"}, self.key and digest([self.key, "decoded"])
        return replace(self, attrs=attrs, key=key, _evaluate=evaluate, _decode=None)


def record(
    network: Ensemble | torch.nn.Module,
    stimulus: "Stimulus | FeatureBank",
    angles: int | ArrayLike = 360,
    split: str | Sequence[int] | None = "test",
    stage: str | None = None,
    layer: str = "output",
    memory: str | int = "1 GiB",
    dropout: bool = False,
    select: int | str | Callable[[Any], Tensor] | None = None,
    call: int | None = None,
) -> Activity:
    """Record a layer's activity and its derivative with respect to the angle.

    Nothing is computed before it is asked for (but a module is tried on two images), and never more at once than
    `memory` allows.

    Parameters
    ----------
    network : Ensemble or torch.nn.Module
        A trained ensemble, or any module that maps images (sample, channel, height, width) to outputs; see Notes.
    stimulus : Stimulus or FeatureBank
        A frozen backbone's probe is recorded from its feature bank, the layers below from the images.
    angles : int or array_like
        Number of angles on the half-open circle, or angles in rad.
    split : str, sequence of int or None
        Which faces: the name of a split (replicate r is shown its own fold r), their indices, or None for all.
    stage : str, optional
        Of the ensemble; by default its last. ``"initial"`` is the untrained network.
    layer : str
        Of the ensemble's network, or the name of a module's submodule as in ``module.named_modules()``; ``"output"``
        is what the module itself returns.
    memory : str or int
        Bound on what is held at once beside the faces and the network, such as ``"1 GiB"``, or a number of bytes (from
        1 MiB); how many angles and faces are computed together follows from it. It holds for `estimate` and
        `log_fisher` of the activity too: a chunk takes at most a sixteenth of it, so that they have room to work, but
        for one angle of all faces and replicates, which is the least. Where that, or the whole curve that ``smoothed``
        needs, is too much, a ValueError says what is needed. `Activity.whole` and what it is asked for are not in it,
        nor are some 30 MiB that allocators keep.
    dropout : bool
        Leave an ensemble's dropout on as internal noise: every face is seen through its own fixed set of silenced
        units.
    select : int, str or callable, optional
        Which tensor of a module's layer that gives several: its place in a tuple, its key in a dict, or a function of
        what the layer gives. That tensor's first dimension counts the images; all others are units.
    call : int, optional
        Which call of a module's layer that is called several times in a forward pass, from 0.

    Returns
    -------
    Activity
        Images, derivatives and activity are in float64, unless a module's own parameters are not; a backbone computes
        in float32.

    Notes
    -----
    How a module is recorded is described in `fisherbook.network.modules`.

    Examples
    --------
    >>> stimulus = fb.Stimulus(fb.load_faces("gratings", size=8, limit=40))
    >>> stages = [fb.Stage("uniform", fb.uniform(), steps=2, batch=4)]
    >>> ensemble = fb.train(stimulus, fb.Network(hidden=(4,)), stages, replicates=2, device="cpu", progress=False)
    >>> activity = fb.record(ensemble, stimulus, angles=6, split="test", layer="hidden1")
    >>> at, responses, tangents = next(activity.chunks())  # (replicate, angle, face, unit)
    >>> responses.shape, tangents.shape
    (torch.Size([2, 6, 12, 4]), torch.Size([2, 6, 12, 4]))
    """
    angles, memory = circle.as_angles(angles), as_bytes(memory)
    room = max(memory, _LEAST)
    if isinstance(network, torch.nn.Module):
        if stage is not None or dropout or not isinstance(stimulus, Stimulus):
            raise ValueError("a module has no stage and no dropout of ours, and is shown a Stimulus: leave these out")
        faces, call = _chosen(stimulus, split, 0)[None], call if call is None else checks.whole_number("call", call, 0)
        run = modules.evaluator(network, stimulus, faces[0], angles, layer, select, call)
        attrs = {"layer": layer, "split": _named(split), "symmetry": stimulus.symmetry} | run.attrs
        each = run.working + _synthesis(stimulus)
        chunk = _together(memory // 4, memory, len(angles), faces, run.units, each)
        replicate, identity = np.zeros(1, np.int64), _identity(stimulus, faces)
        return Activity(angles, replicate, faces, identity, attrs, None, run.evaluate, None, *chunk, room)
    if select is not None or call is not None:
        raise ValueError("select and call are for a torch module; an ensemble's layers give one tensor, once")
    checks.having("network", network, "stages", "an Ensemble or a torch module")
    stage = checks.one_of("stage", stage or network.stages[-1].name, network.weights)
    description, weights = network.network, network.weights[stage]
    checks.one_of("layer", layer, description.layers)
    device = str(next(iter(weights.values())).device)
    stimulus = description.kind.seen(stimulus, network.seed, device, None, False)
    faces = [_chosen(stimulus, split, int(r)) for r in network.replicate]
    if len({len(f) for f in faces}) > 1:
        raise ValueError(f"split {split!r} must have equally many faces in every fold; choose other folds")
    faces = np.stack(faces)
    attrs = {"layer": layer, "stage": stage, "split": _named(split), "symmetry": stimulus.symmetry}
    if dropout:
        attrs["dropout"] = "on"
    made = made_by("network.activity", *description.kind.modules, device=device)
    key = digest([network.fingerprints(stage), stimulus.digest, layer, faces, dropout, made])
    readout, symmetry = READOUTS[description.readout], stimulus.symmetry
    decode = (lambda outputs: readout.decode(outputs) / symmetry) if layer == "output" else None
    recorder = description.kind.recorder(weights, stimulus, layer)
    if recorder and dropout:
        raise ValueError(f"dropout can only be recorded above a stimulus or a bank, not in layer {layer!r}")
    each, held = 4 * sum(description.hidden), 0
    if recorder:
        with modules.Largest() as largest:
            units = recorder(faces[:, :1], angles[:1], False)[0].shape[-1]
        together = max(1, memory // 2 // (modules.AT_WORK * largest.size))  # images, in a backbone
        each = 4 * units if layer in description.kind.layers else each + 4 * weights["hidden1.weight"].shape[-1]

        def evaluate(at: NDArray, tangents: bool, block: slice) -> tuple[Tensor, Tensor | None]:
            return recorder(faces[:, block], at, tangents, together)

    else:
        units = weights[f"{layer}.bias"].shape[-1]
        if _in_memory(stimulus):
            held = 2 * (stimulus.orders + 1) * description.hidden[0]
        each += 0 if held else _synthesis(stimulus)
        evaluate = _evaluator(network, stimulus, stage, layer, faces, dropout, min(room // 16, _CACHE))
    chunk = _together(min(memory // 4, _CACHE), memory, len(angles), faces, units, each, held)
    identity = _identity(stimulus, faces)
    return Activity(angles, network.replicate, faces, identity, attrs, key, evaluate, decode, *chunk, room)


_CACHE = 64 * 2**20  # bytes; arrays much larger than the processor's caches only make it wait for memory
_LEAST = 2**20  # bytes, below which nothing is gained by less at a time
_MANY = 32  # angles, over which the cost of starting on a block of faces is spread


def _together(
    share: int, memory: int, asked: int, faces: NDArray, units: int, each: int, held: int = 0
) -> tuple[int, tuple[slice, ...]]:
    """Return how many of the angles asked for are computed together, and which blocks of faces.

    Parameters
    ----------
    share, memory : int
        Bytes to compute in, and in all.
    asked : int
        Angles.
    faces : array, shape (replicate, face)
    units, each, held : int
        Numbers (of 8 bytes): of the layer, at work for one image, and kept for one face while another angle is asked
        for.
    """
    share, line, replicates = max(share, _LEAST), 8 * faces.size, len(faces)
    whole = line * held <= memory // 2
    # An estimator works in ten to twenty times the responses of a chunk, beside what is kept of the faces.
    yielded = max(1, memory // (32 if held and whole else 16) // (line * 2 * units))
    angles = max(1, min(yielded, share // (line * each)))
    if line * angles * each <= memory // 4 and whole:
        return angles, (slice(None),)
    angles = max(1, min(yielded, _MANY, asked, share // (8 * replicates * each)))
    some = max(1, share // (8 * replicates * (angles * each + held)))
    return angles, tuple(slice(first, first + some) for first in range(0, faces.shape[1], some))


def _in_memory(stimulus: "Stimulus | FeatureBank") -> bool:
    """Whether the first layer's currents are had without images."""
    return stimulus.rotation == "harmonic" and not stimulus.streams


def _synthesis(stimulus: "Stimulus | FeatureBank") -> int:
    """Return how many numbers are at work while an image and its tangent are made."""
    spectrum = 6 * rings(stimulus.size) * (stimulus.orders + 1) if stimulus.rotation == "harmonic" else 0
    return stimulus.channels * (8 * len(stimulus.aperture) + spectrum)


def _evaluator(
    ensemble: Ensemble, stimulus: Stimulus, stage: str, layer: str, faces: NDArray, dropout: bool, share: int
) -> Evaluate:
    """Return what computes a layer's responses and tangents (replicate, angle, face, unit) at any angles."""
    network = ensemble.network
    parameters = {name: tensor.double() for name, tensor in ensemble[stage].items()}
    masks = _masks(network, ensemble, stimulus, faces) if dropout else None
    first = (_harmonic_currents if _in_memory(stimulus) else _sampled_currents)(parameters, stimulus, share)
    last: dict[tuple, Any] = {}  # the block of faces that was asked for last: the next angles are often of the same

    def evaluate(at: NDArray, tangents: bool, block: slice) -> tuple[Tensor, Tensor | None]:
        if (place := (block.start, block.stop)) not in last:
            last.clear()
            last[place] = first(faces[:, block])
        currents = last[place]

        def onward(current: Tensor) -> Tensor:
            mask = masks and [m[:, block].repeat(1, len(at), 1) for m in masks]
            return network.onward(parameters, current.flatten(1, 2), layer, mask).unflatten(1, current.shape[1:3])

        with torch.no_grad():
            angles = torch.from_numpy(at).to(parameters["hidden1.bias"].device)
            if not tangents:
                return onward(currents(angles, False)), None
            return derivative.along(onward, currents(angles, False), currents(angles, True))

    return evaluate


def _harmonic_currents(parameters: Parameters, stimulus: Stimulus, share: int) -> Currents:
    """Input currents of the first layer as a Fourier series over the angle: the layer never sees an image.

    The layer's weights are carried over to the polar spectrum once; a face's currents are then Re Σ_m g_m exp(-imθ),
    made of so many faces at a time as fit into `share` bytes.
    """
    weight = parameters["hidden1.weight"] / INPUT_SCALE
    weight = weight.unflatten(-1, (stimulus.channels, -1))
    constant = parameters["hidden1.bias"] - INPUT_MEAN * weight.sum((-2, -1))
    projected = stimulus.project(weight)  # (replicate, unit, channel, ring, order)
    orders = torch.arange(projected.shape[-1], device=weight.device)
    each = 2 * len(orders) * (projected[0, 0, ..., 0].numel() + weight.shape[1]) + stimulus.channels * stimulus.size**2
    some = max(1, share // (16 * each))

    def of_faces(faces: NDArray) -> Callable[[Tensor, bool], Tensor]:
        # Re(g exp(-imθ)) = Re g cos mθ + Im g sin mθ
        real = weight.new_empty(len(faces), 2, len(orders), faces.shape[1], weight.shape[1])
        for series, p, f in zip(real, projected, faces, strict=True):
            for at, part in zip(torch.arange(len(f)).split(some), torch.from_numpy(f).split(some), strict=True):
                g = torch.einsum("ucrm,fcrm->mfu", p, stimulus.spectrum_of(part).to(weight.device))
                series[:, :, at] = torch.stack([g.real, g.imag])
        real[:, 0, 0] += constant[:, None]
        series, added = real.flatten(1, 2).flatten(2), None
        if stimulus.faces.noise is not None:
            rows, pixels = [], stimulus.aperture
            for w, f in zip(weight, faces, strict=True):
                parts = np.split(f, range(some, len(f), some))
                noises = (torch.from_numpy(stimulus.faces.noise[part]).flatten(2)[..., pixels] for part in parts)
                rows += [torch.einsum("ucp,fcp->fu", w, noise.double().to(weight.device)) for noise in noises]
            added = torch.cat(rows).unflatten(0, faces.shape)[:, None]

        def currents(angles: Tensor, tangents: bool) -> Tensor:
            phase = angles[:, None] * orders
            cos, sin = phase.cos(), phase.sin()
            wave = torch.cat([-orders * sin, orders * cos], 1) if tangents else torch.cat([cos, sin], 1)
            found = (wave @ series).unflatten(-1, real.shape[3:])
            if added is not None:
                found += stimulus.noise_strength(angles, tangents)[:, None, None] * added
            return found

        return currents

    return of_faces


def _sampled_currents(parameters: Parameters, stimulus: Stimulus, _share: int) -> Currents:
    """Input currents of the first layer from the pixels themselves."""
    weight, bias = parameters["hidden1.weight"] / INPUT_SCALE, parameters["hidden1.bias"]

    def of_faces(faces: NDArray) -> Callable[[Tensor, bool], Tensor]:
        shown, where = np.unique(faces, return_inverse=True)
        shown, where = torch.from_numpy(shown), torch.from_numpy(where.reshape(faces.shape))

        def currents(angles: Tensor, tangents: bool) -> Tensor:
            pixels = stimulus.product(shown, angles, tangents, device=weight.device).flatten(2)
            if not tangents:
                pixels -= INPUT_MEAN
            found = torch.stack([pixels[:, w] @ weight[r].mT for r, w in enumerate(where)])
            return found if tangents else found.add_(bias[:, None, None])

        return currents

    return of_faces


def _masks(network: Network, ensemble: Ensemble, stimulus: Stimulus, faces: NDArray) -> list[Tensor]:
    """Dropout masks (replicate, face, unit) of each hidden layer, one set of silenced units per face."""
    shape, drawn = (len(stimulus.faces), sum(network.hidden)), []
    for r, shown in zip(ensemble.replicate, faces, strict=True):
        random = torch.rand(shape, generator=generator(ensemble.seed, int(r), "dropout", "record"))
        drawn.append((random[torch.from_numpy(shown)] >= network.dropout).double())
    return list(torch.stack(drawn).split(network.hidden, -1))


def _chosen(stimulus: Stimulus, split: str | Sequence[int] | None, replicate: int) -> NDArray[np.int64]:
    if split is None or isinstance(split, str):
        return stimulus.faces.split(split, fold=replicate % stimulus.faces.folds)
    return stimulus.indices(split).numpy()


def _empty(values: Tensor, dimension: int, length: int) -> Tensor:
    shape = list(values.shape)
    shape[dimension] = length
    return values.new_empty(shape)


def _named(split: str | Sequence[int] | None) -> str:
    return split if isinstance(split, str) else "all" if split is None else "chosen"


def _identity(stimulus: Stimulus, faces: NDArray) -> NDArray | None:
    return None if stimulus.faces.identity is None else stimulus.faces.identity[faces]


def as_bytes(memory: str | int) -> int:
    """Return the bytes meant by a size such as ``"1 GiB"``; a number is a number of bytes already."""
    if not isinstance(memory, str):
        return checks.whole_number("memory", memory)
    amount, _, unit = memory.partition(" ")
    try:
        return checks.whole_number("memory", int(float(amount) * _UNITS[unit]))
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"memory must be like '1 GiB' or a number of bytes, not {memory!r}") from None
