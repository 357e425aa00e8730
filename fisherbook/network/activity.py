"""Responses and tangents of one layer, for faces × angles × replicates, computed chunk by chunk when asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .. import angles as circle
from .. import checks, derivative
from ..stimulus.stimulus import Stimulus
from ..store import digest, made_by
from . import banks, resnet
from .banks import FeatureBank
from .ensembles import Ensemble
from .networks import BACKBONE_LAYERS, INPUT_MEAN, INPUT_SCALE, Network, Parameters, generator
from .readouts import READOUTS

Evaluate = Callable[[NDArray, bool], tuple[Tensor, Tensor | None]]
Currents = Callable[[Tensor, bool], Tensor]
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
    """

    angles: NDArray[np.float64]
    replicate: NDArray[np.int64]
    face: NDArray[np.int64]
    identity: NDArray[np.int64] | None
    attrs: dict[str, Any]
    key: str | None
    _evaluate: Evaluate = field(repr=False)  # angles → responses, tangents: (replicate, angle, face, unit)
    _decode: Callable[[Tensor], Tensor] | None = field(repr=False, default=None)
    _chunk: int = field(repr=False, default=16)  # angles

    def chunks(self, tangents: bool = True) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield ``(slice over angles, responses, tangents)``, tensors (replicate, angle, face, unit), float64."""
        for start in range(0, len(self.angles), self._chunk):
            part = slice(start, min(start + self._chunk, len(self.angles)))
            yield part, *self._evaluate(self.angles[part], tangents)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Return all responses and their derivatives with respect to the angle (rad⁻¹), on the CPU; mind the memory."""
        both = [(responses.cpu(), tangents.cpu()) for _, responses, tangents in self.chunks()]
        return tuple(torch.cat(parts, 1) for parts in zip(*both, strict=True))

    def responses(self) -> Tensor:
        """Return all responses, (replicate, angle, face, unit), float64, on the CPU."""
        return torch.cat([responses.cpu() for _, responses, _ in self.chunks(tangents=False)], 1)

    def shifted(self, offset: float) -> "Activity":
        """Return the same faces' activity with every angle turned on by `offset` (rad)."""
        return replace(self, angles=self.angles + offset)

    def at(self, angles: int | ArrayLike) -> "Activity":
        """Return the same faces' activity at other angles (rad, or a number of them)."""
        return replace(self, angles=circle.as_angles(angles))

    def subset(self, chosen: Sequence[int] | NDArray) -> "Activity":
        """Return the activity for some faces, given by their positions in the `face` dimension."""
        chosen = np.asarray(chosen)

        def evaluate(angles: NDArray, tangents: bool) -> tuple[Tensor, Tensor | None]:
            return tuple(v if v is None else v[:, :, chosen] for v in self._evaluate(angles, tangents))

        identity = None if self.identity is None else self.identity[:, chosen]
        key = self.key and digest([self.key, chosen])
        return replace(self, face=self.face[:, chosen], identity=identity, key=key, _evaluate=evaluate)

    def held(self, memory: int) -> "Activity":
        """Return the same activity, which keeps up to so many bytes of what it computes and computes that only once."""
        kept: dict[bytes, tuple[Tensor, Tensor | None]] = {}

        def evaluate(angles: NDArray, tangents: bool) -> tuple[Tensor, Tensor | None]:
            key = angles.tobytes()
            responses, along = kept.get(key, (None, None))
            if responses is None or (tangents and along is None):
                responses, along = self._evaluate(angles, tangents)
                room = memory - sum(v.nbytes for both in kept.values() for v in both if v is not None)
                if responses.nbytes * (1 + tangents) <= room:
                    kept[key] = responses, along
            return responses, along if tangents else None

        return replace(self, _evaluate=evaluate)

    def projected(self, units: int, seed: int = 0) -> "Activity":
        """Return the activity on so many fixed random directions, the same for every replicate, stage and face.

        A layer with more units than a covariance of so few faces can hold is measured on these: its information is at
        least what they show. Weights are normal, of variance 1 over the layer's units.
        """

        def project(values: Tensor) -> Tensor:
            wide = values.shape[-1]
            drawn = torch.randn(wide, units, generator=generator(seed, "projection", wide), dtype=torch.float64)
            return values @ (drawn / wide**0.5).to(values)

        def evaluate(angles: NDArray, tangents: bool) -> tuple[Tensor, Tensor | None]:
            return tuple(v if v is None else project(v) for v in self._evaluate(angles, tangents))

        key = self.key and digest([self.key, "projected", units, seed])
        return replace(self, key=key, _evaluate=evaluate, _decode=None)

    def decoded(self) -> "Activity":
        """Return the reported angle θ̂ (rad) as a layer of one unit, and its derivative dθ̂/dθ."""
        if self._decode is None:
            raise ValueError(f"only a network's output layer can be decoded, not {self.attrs.get('layer')!r}")

        def evaluate(angles: NDArray, tangents: bool) -> tuple[Tensor, Tensor | None]:
            responses, along = self._evaluate(angles, tangents)
            if along is None:
                return self._decode(responses)[..., None], None
            estimate, slope = derivative.along(self._decode, responses, along)
            return estimate[..., None], slope[..., None]

        attrs, key = self.attrs | {"layer": "estimate"}, self.key and digest([self.key, "decoded"])
        return replace(self, attrs=attrs, key=key, _evaluate=evaluate, _decode=None)


def record(
    network: Ensemble | torch.nn.Module,
    stimulus: Stimulus | FeatureBank,
    angles: int | ArrayLike = 360,
    split: str | Sequence[int] | None = "test",
    stage: str | None = None,
    layer: str = "output",
    memory: str | int = "1 GiB",
    dropout: bool = False,
) -> Activity:
    """Record a layer's activity and its derivative with respect to the angle.

    Nothing is computed before it is asked for, and never more at once than `memory` allows.

    Parameters
    ----------
    network : Ensemble or torch.nn.Module
        A trained ensemble, or any module that maps images (sample, channel, height, width) to outputs.
    stimulus : Stimulus or FeatureBank
        A frozen backbone's probe is recorded from its feature bank, the layers below from the images.
    angles : int or array_like
        Number of angles on the half-open circle, or angles in rad.
    split : str, sequence of int or None
        Which faces: the name of a split (replicate r is shown its own fold r), their indices, or None for all.
    stage : str, optional
        Of the ensemble; by default its last. ``"initial"`` is the untrained network.
    layer : str
        Of the ensemble's network, or the name of a module's submodule as in ``module.named_modules()``.
    memory : str or int
        Largest size of a chunk's arrays, such as ``"1 GiB"``, or a number of bytes.
    dropout : bool
        Leave dropout on as internal noise: every face is seen through its own fixed set of silenced units.

    Returns
    -------
    Activity
        Images, derivatives and activity are in float64, unless a module's own parameters are not; a backbone computes
        in float32.
    """
    angles = circle.as_angles(angles)
    if isinstance(network, torch.nn.Module):
        return _record_module(network, stimulus, angles, split, layer, as_bytes(memory))
    stage = stage or network.stages[-1].name
    checks.one_of("stage", stage, network.weights)
    description = network.network
    checks.one_of("layer", layer, description.layers)
    device = str(next(iter(network.weights[stage].values())).device)
    stimulus = banks.seen(description, stimulus, network.seed, device)
    faces = [_chosen(stimulus, split, int(r)) for r in network.replicate]
    if len({len(f) for f in faces}) > 1:
        raise ValueError(f"split {split!r} must have equally many faces in every fold; choose other folds")
    faces = np.stack(faces)
    attrs = {"layer": layer, "stage": stage, "split": _named(split), "symmetry": stimulus.symmetry}
    if dropout:
        attrs["dropout"] = "on"
    made = made_by("network.activity", device=device)
    key = digest([network.keys[stage], stimulus.digest, layer, faces, dropout, made])
    readout, symmetry = READOUTS[description.readout], stimulus.symmetry
    decode = (lambda outputs: readout.decode(outputs) / symmetry) if layer == "output" else None
    widest = sum(description.hidden) * 4 + len(stimulus.aperture) * (stimulus.rotation != "harmonic")
    if layer in BACKBONE_LAYERS:
        below = stimulus.stimulus if description.frozen else stimulus
        widest = 4 * resnet.units(layer, below.size)
    chunk = max(1, min(as_bytes(memory), _CACHE) // (8 * faces.size * widest))
    evaluate = _evaluator(network, stimulus, stage, layer, faces, dropout)
    identity = _identity(stimulus, faces)
    return Activity(angles, network.replicate, faces, identity, attrs, key, evaluate, decode, chunk)


def _evaluator(
    ensemble: Ensemble, stimulus: Stimulus, stage: str, layer: str, faces: NDArray, dropout: bool
) -> Evaluate:
    """Return what computes a layer's responses and tangents (replicate, angle, face, unit) at any angles."""
    network = ensemble.network
    if network.finetuned or layer in BACKBONE_LAYERS:
        return _backbone_evaluator(ensemble, stimulus, stage, layer, faces)
    parameters = {name: tensor.double() for name, tensor in ensemble[stage].items()}
    masks = _masks(network, ensemble, stimulus, faces) if dropout else None
    in_memory = stimulus.rotation == "harmonic" and not stimulus.streams
    first = _harmonic_currents if in_memory else _sampled_currents
    currents = first(parameters, stimulus, faces)

    def evaluate(at: NDArray, tangents: bool) -> tuple[Tensor, Tensor | None]:
        def onward(current: Tensor) -> Tensor:
            mask = masks and [m.repeat(1, len(at), 1) for m in masks]
            return network.onward(parameters, current.flatten(1, 2), layer, mask).unflatten(1, current.shape[1:3])

        with torch.no_grad():
            angles = torch.from_numpy(at).to(parameters["hidden1.bias"].device)
            if not tangents:
                return onward(currents(angles, False)), None
            return derivative.along(onward, currents(angles, False), currents(angles, True))

    return evaluate


def _backbone_evaluator(
    ensemble: Ensemble, stimulus: Stimulus | FeatureBank, stage: str, layer: str, faces: NDArray
) -> Evaluate:
    """Return what computes the activity of a backbone, or of a probe above one that was trained with it."""
    network, parameters = ensemble.network, ensemble[stage]
    if network.frozen:
        folded, stimulus = [stimulus.layers] * len(faces), stimulus.stimulus
    else:
        states = resnet.backbone_of(parameters)
        folded = [resnet.folded({n: t[row] for n, t in states.items()}) for row in range(len(faces))]
        probe = {n: t.double() for n, t in parameters.items()}
        mean, scale = states["mean"][:, None].double(), states["scale"][:, None, None].double()
    below = layer if layer in BACKBONE_LAYERS else "features"

    def evaluate(at: NDArray, tangents: bool) -> tuple[Tensor, Tensor | None]:
        turned, found = torch.from_numpy(at).repeat_interleave(faces.shape[1]), []
        for layers, shown in zip(folded, faces, strict=True):
            each = torch.from_numpy(shown).repeat(len(at))
            found.append(resnet.record_features(layers, stimulus, each, turned, tangents, below))
        values, along = (None if v[0] is None else torch.stack(v).double() for v in zip(*found, strict=True))
        if below == "features" and layer != below:

            def onward(features: Tensor) -> Tensor:
                shown = INPUT_MEAN + INPUT_SCALE * (features - mean) / scale
                return network.onward(probe, network.first(probe, shown), layer)

            with torch.no_grad():
                pair = derivative.along(onward, values, along) if tangents else (onward(values), None)
            values, along = pair
        return tuple(v if v is None else v.unflatten(1, (len(at), -1)) for v in (values, along))

    return evaluate


_CACHE = 64 * 2**20  # bytes; chunks much larger than the processor's caches only make it wait for memory


def _harmonic_currents(parameters: Parameters, stimulus: Stimulus, faces: NDArray) -> Currents:
    """Input currents of the first layer as a Fourier series over the angle: the layer never sees an image.

    The layer's weights are carried over to the polar spectrum once; a face's currents are then Re Σ_m g_m exp(-imθ).
    """
    weight = parameters["hidden1.weight"] / INPUT_SCALE
    weight = weight.unflatten(-1, (stimulus.channels, -1))
    constant = parameters["hidden1.bias"] - INPUT_MEAN * weight.sum((-2, -1))
    projected = stimulus.project(weight)  # (replicate, unit, channel, ring, order)
    spectrum = stimulus.spectrum.to(weight.device)
    series = torch.stack(
        [
            torch.einsum("ucrm,fcrm->mfu", p, spectrum[torch.from_numpy(f)])
            for p, f in zip(projected, faces, strict=True)
        ]
    )
    added = None
    if stimulus.faces.noise is not None:
        noise = torch.from_numpy(stimulus.faces.noise).double().flatten(2)[..., stimulus.aperture].to(weight.device)
        each = zip(weight, faces, strict=True)
        added = torch.stack([torch.einsum("ucp,fcp->fu", w, noise[torch.from_numpy(f)]) for w, f in each])[:, None]
    series[:, 0] += constant[:, None]
    # Re(g exp(-imθ)) = Re g cos mθ + Im g sin mθ
    real = torch.cat([series.real, series.imag], 1).flatten(2)
    orders = torch.arange(series.shape[1], device=weight.device)

    def currents(angles: Tensor, tangents: bool) -> Tensor:
        phase = angles[:, None] * orders
        cos, sin = phase.cos(), phase.sin()
        wave = torch.cat([-orders * sin, orders * cos], 1) if tangents else torch.cat([cos, sin], 1)
        found = (wave @ real).unflatten(-1, series.shape[2:])
        if added is not None:
            found += stimulus.noise_strength(angles, tangents)[:, None, None] * added
        return found

    return currents


def _sampled_currents(parameters: Parameters, stimulus: Stimulus, faces: NDArray) -> Currents:
    """Input currents of the first layer from the pixels themselves."""
    weight, bias = parameters["hidden1.weight"] / INPUT_SCALE, parameters["hidden1.bias"]
    shown, where = np.unique(faces, return_inverse=True)
    shown, where = torch.from_numpy(shown), torch.from_numpy(where.reshape(faces.shape))

    def currents(angles: Tensor, tangents: bool) -> Tensor:
        pixels = stimulus.product(shown, angles, tangents, device=weight.device).flatten(2)
        if not tangents:
            pixels = pixels - INPUT_MEAN
        found = torch.stack([pixels[:, w] @ weight[r].mT for r, w in enumerate(where)])
        return found if tangents else found + bias[:, None, None]

    return currents


def _masks(network: Network, ensemble: Ensemble, stimulus: Stimulus, faces: NDArray) -> list[Tensor]:
    """Dropout masks (replicate, face, unit) of each hidden layer, one set of silenced units per face."""
    shape, drawn = (len(stimulus.faces), sum(network.hidden)), []
    for r, shown in zip(ensemble.replicate, faces, strict=True):
        random = torch.rand(shape, generator=generator(ensemble.seed, int(r), "dropout", "record"))
        drawn.append((random[torch.from_numpy(shown)] >= network.dropout).double())
    return list(torch.stack(drawn).split(network.hidden, -1))


def _record_module(
    module: torch.nn.Module,
    stimulus: Stimulus,
    angles: NDArray,
    split: str | Sequence[int] | None,
    layer: str,
    memory: int,
) -> Activity:
    """Record any torch module by forward-mode differentiation through the images."""
    submodule = dict(module.named_modules()).get("" if layer == "output" else layer)
    if submodule is None:
        checks.one_of("layer", layer, ["output", *(name for name, _ in module.named_modules() if name)])
    faces = _chosen(stimulus, split, 0)
    indices = torch.from_numpy(faces)
    reference = next(module.parameters(), torch.zeros((), dtype=torch.float64))

    def at_layer(images: Tensor) -> Tensor:
        caught = []
        hook = submodule.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
        try:
            module(images)
        finally:
            hook.remove()
        return caught[-1].flatten(1)

    def evaluate(at: NDArray, tangents: bool) -> tuple[Tensor, Tensor | None]:
        def images(along: bool) -> Tensor:
            pixels = stimulus.product(indices, torch.from_numpy(at), along, device=reference.device)
            return stimulus.embed(pixels, along).flatten(0, 1).to(reference)

        def shaped(found: Tensor) -> Tensor:
            return found.double().unflatten(0, (1, len(at), len(indices)))

        with torch.no_grad():
            if not tangents:
                return shaped(at_layer(images(False))), None
            return tuple(map(shaped, derivative.along(at_layer, images(False), images(True))))

    attrs = {"layer": layer, "split": _named(split), "symmetry": stimulus.symmetry}
    chunk = max(1, memory // (64 * len(faces) * stimulus.channels * stimulus.size**2))
    replicate, faces = np.zeros(1, np.int64), faces[None]
    return Activity(angles, replicate, faces, _identity(stimulus, faces), attrs, None, evaluate, None, chunk)


def _chosen(stimulus: Stimulus, split: str | Sequence[int] | None, replicate: int) -> NDArray[np.int64]:
    if split is None or isinstance(split, str):
        return stimulus.faces.split(split, fold=replicate % stimulus.faces.folds)
    return stimulus.indices(split).numpy()


def _named(split: str | Sequence[int] | None) -> str:
    return split if isinstance(split, str) else "all" if split is None else "chosen"


def _identity(stimulus: Stimulus, faces: NDArray) -> NDArray | None:
    return None if stimulus.faces.identity is None else stimulus.faces.identity[faces]


def as_bytes(memory: str | int) -> int:
    """Return the bytes meant by a size such as ``"1 GiB"``; a number is a number of bytes already."""
    if isinstance(memory, int):
        return memory
    amount, _, unit = memory.partition(" ")
    try:
        return int(float(amount) * _UNITS[unit])
    except (KeyError, ValueError):
        raise ValueError(f"memory must be like '1 GiB' or a number of bytes, not {memory!r}") from None
