"""Probes: networks above a backbone, which is frozen, and then stands for all in a bank, or trained with its probe."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from importlib import import_module
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import derivative
from ..stimulus.stimulus import Stimulus
from ..store import Store, default_store, digest, made_by
from .banks import FeatureBank, Respond, record_features
from .networks import INPUT_MEAN, INPUT_SCALE, Mlp, Parameters

PREFIX = "backbone."  # of the names of a backbone's parameters beside those of its probe
_CALIBRATION = 256  # pairs of face and angle
_STANDARD = ("mean", "scale")  # of the features; measured, never trained


class Backbone(Protocol):
    """What maps images to features, below a probe: all that a kind of backbone must answer.

    Attributes
    ----------
    layers : tuple of str
        That can be recorded; the last is ``features``.
    modules : tuple of str
        Of this package, that make its numbers (see `store.made_by`).
    random : bool
        Whether each replicate that is trained draws weights of its own.
    keyed : object
        What enters keys.
    """

    layers: tuple[str, ...]
    modules: tuple[str, ...]
    random: bool
    keyed: Any

    def state(self, key: Sequence[int], store: Store | None) -> Parameters:
        """Return the weights; `key` is a random generator's."""

    def calibrate(self, state: Parameters, images: Tensor) -> Tensor:
        """Return the features (sample, unit) of images, after setting what in `state` depends on them."""

    def forward(self, state: Parameters, images: Tensor, training: bool = False) -> Tensor:
        """Return the features of images (sample, channel, height, width), differentiable in the state."""

    def ready(self, state: Parameters) -> Respond:
        """Return the function from images, tangents or None, and a layer's name to its response and tangent."""

    def trains(self, name: str) -> bool:
        """Whether a part of the state is trained where the backbone is."""


def backbone_of(parameters: Parameters) -> Parameters:
    """Return the backbone's part of a network's parameters, under its own names."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in parameters.items() if name.startswith(PREFIX)}


def start(
    backbone: Backbone, stimulus: Stimulus, key: Sequence[int], store: Store | None = None, device: str = "cpu"
) -> Parameters:
    """Return the weights that a backbone begins with, calibrated on the stimulus, from the store if they are there.

    Calibration shows it 256 images, faces of the first split at angles all around. Random weights take their batch
    norms' statistics from them. The mean of each feature, and one scale for all, are kept as ``mean`` and ``scale``;
    a probe sees ``(feature - mean) / scale``.

    Parameters
    ----------
    backbone : Backbone
    stimulus : Stimulus
    key : sequence of int
        Of the generator, for random weights.
    """
    store, state = store or default_store(), backbone.state(key, store)
    made = made_by("network.probes", *backbone.modules, device=device)
    at = digest([stimulus.digest, backbone.keyed, list(key) if backbone.random else state, made])

    def calibrate(_missing: list[str]) -> list[tuple[str, Parameters]]:
        k = torch.arange(_CALIBRATION)
        shown = torch.from_numpy(stimulus.faces.split(next(iter(stimulus.faces.splits), None)))
        faces, turned = shown[k * len(shown) // len(k)], 2 * math.pi * (k.double() * 0.618034 % 1) - math.pi
        # Training makes another network of another machine's rounding: it begins at what all round alike.
        precision = torch.float64 if backbone.random else torch.float32
        images = stimulus.embed(stimulus.pixels(faces, turned, dtype=precision, device=device))
        own = {name: tensor.to(device, precision, copy=True) for name, tensor in state.items()}
        with torch.no_grad():
            features = backbone.calibrate(own, images)
        own["mean"] = features.mean(0)
        own["scale"] = features.var(0).mean().sqrt()
        if not (own["mean"].isfinite().all() and 0 < own["scale"] < math.inf):
            raise ValueError("the backbone's features must be finite and differ between images, but they do not")
        return [(at, {name: tensor.float().cpu() for name, tensor in own.items()})]

    read = partial(torch.load, weights_only=True)
    return store.fill("backbones", [at], calibrate, torch.save, read, ".pt")[at]


class Probe(Mlp):
    """A network on the bank of a frozen backbone."""

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone itself."""
        network = self.network
        if network.architecture == "module":
            return network.backbone
        return import_module(f"{__package__}.resnet").ResNet18(network.weights)

    @property
    def keyed(self) -> Any:  # noqa: D102
        return self.backbone.keyed

    @property
    def modules(self) -> tuple[str, ...]:  # noqa: D102
        return "network.probes", *self.backbone.modules

    @property
    def layers(self) -> tuple[str, ...]:  # noqa: D102
        return self.backbone.layers

    def seen(  # noqa: D102
        self, stimulus: Stimulus | FeatureBank, seed: int, device: str, store: Store | None, progress: bool
    ) -> Stimulus | FeatureBank:
        if isinstance(stimulus, FeatureBank):
            return stimulus
        return FeatureBank(stimulus, self.network, None, "float32", seed, device, store, progress)

    def begin(self, stimulus: Stimulus, key: Sequence[int], store: Store | None, device: str) -> Parameters:
        """Return the weights that the backbone begins with, for a generator's key."""
        return start(self.backbone, stimulus, key, store, device)

    def recorder(  # noqa: D102
        self, parameters: Parameters, stimulus: FeatureBank, layer: str
    ) -> Callable[[NDArray, NDArray, bool], tuple[Tensor, Tensor | None]] | None:
        if layer not in self.layers:
            return None
        replicates = len(next(iter(parameters.values())))
        device = str(next(iter(parameters.values())).device)
        return partial(_record, [stimulus.respond] * replicates, stimulus.stimulus, layer, device)


class Tuned(Probe):
    """A network whose backbone is trained with its probe, replicates in turn."""

    in_turn = True

    def seen(self, stimulus: Stimulus, *_: Any) -> Stimulus:  # noqa: D102
        return stimulus

    def initialise(  # noqa: D102
        self, stimulus: Stimulus, key: tuple[int, int], dtype: torch.dtype, store: Store | None, device: str
    ) -> Parameters:
        begun = self.begin(stimulus, key, store, device)
        own = {PREFIX + name: tensor.to(dtype) for name, tensor in begun.items()}
        return self.draw(len(begun["mean"]), key, dtype) | own

    def trains(self, name: str) -> bool:  # noqa: D102
        own = name.removeprefix(PREFIX)
        return own == name or (own not in _STANDARD and self.backbone.trains(own))

    def shown(self, parameters: Parameters, pixels: Tensor, stimulus: Stimulus, mixed: bool) -> Tensor:  # noqa: D102
        found, training = [], self.backbone.random and torch.is_grad_enabled()
        for row, own in enumerate(pixels):
            state = {name: tensor[row] for name, tensor in backbone_of(parameters).items()}
            images = stimulus.embed(own.unflatten(-1, (stimulus.channels, -1)))
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=mixed):
                features = self.backbone.forward(state, images, training)
            found.append((features.to(pixels.dtype) - state["mean"]) / state["scale"])
        return INPUT_MEAN + INPUT_SCALE * torch.stack(found)

    def recorder(  # noqa: D102
        self, parameters: Parameters, stimulus: Stimulus, layer: str
    ) -> Callable[[NDArray, NDArray, bool], tuple[Tensor, Tensor | None]]:
        states = backbone_of(parameters)
        ready = [self.backbone.ready({n: t[row] for n, t in states.items()}) for row in range(len(states["mean"]))]
        device = str(states["mean"].device)
        if layer in self.layers:
            return partial(_record, ready, stimulus, layer, device)
        probe = {name: tensor.double() for name, tensor in parameters.items()}
        mean, scale = states["mean"][:, None].double(), states["scale"][:, None, None].double()

        def onward(features: Tensor) -> Tensor:
            shown = INPUT_MEAN + INPUT_SCALE * (features - mean) / scale
            return self.network.onward(probe, self.network.first(probe, shown), layer)

        def record(faces: NDArray, at: NDArray, tangents: bool, *together: int) -> tuple[Tensor, Tensor | None]:
            values, along = _record(ready, stimulus, "features", device, faces, at, tangents, *together)
            with torch.no_grad():
                shapes, values = values.shape[1:3], values.flatten(1, 2)
                pair = derivative.along(onward, values, along.flatten(1, 2)) if tangents else (onward(values), None)
            return tuple(v if v is None else v.unflatten(1, shapes) for v in pair)

        return record


def _record(
    ready: Sequence[Respond], stimulus: Stimulus, layer: str, device: str, faces: NDArray, at: NDArray, tangents: bool,
    *together: int,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return a backbone layer's activity and tangents (replicate, angle, face, unit), each replicate's by its own."""
    turned, found = torch.from_numpy(at).repeat_interleave(faces.shape[1]), []
    for respond, shown in zip(ready, faces, strict=True):
        each = torch.from_numpy(shown).repeat(len(at))
        found.append(record_features(respond, stimulus, each, turned, tangents, layer, device, *together))
    values, along = (None if v[0] is None else torch.stack(v).double() for v in zip(*found, strict=True))
    return tuple(v if v is None else v.unflatten(1, (len(at), -1)) for v in (values, along))
