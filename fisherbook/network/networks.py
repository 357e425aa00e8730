"""Networks that report an angle, many replicates at once, with their nonlinearities and readouts.

An ensemble's parameters are a plain dictionary of tensors whose first dimension is the replicate; a network is a
frozen description with pure functions on them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from ..store import digest
from .readouts import READOUTS

Parameters = dict[str, Tensor]
_VECTORS = 32  # numbers; what a vectorised function takes at a time divides it
_UNSHARED = 2**14  # numbers that no function shares among threads
INPUT_MEAN, INPUT_SCALE = 0.5, 0.25  # pixels enter the first layer as (I - mean) / scale
INITIAL = "initial"
HIDDEN = {"mlp": (60, 20), "resnet18": (512,), "module": (512,)}  # by architecture


def generator(*key: int | str) -> torch.Generator:
    """Return a random generator of its own for a key such as (seed, replicate, purpose, stage name, block)."""
    return torch.Generator().manual_seed(int(digest(list(key))[:15], 16))


def choose_device(device: str = "auto") -> str:
    """Return ``"cuda"`` or ``"cpu"`` for ``"auto"``, and any other device's name as it is."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.device(device))
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be auto, cpu, cuda or another that torch knows, not {device!r}") from None


@dataclass(frozen=True)
class Nonlinearity:
    """A pointwise nonlinearity; `smooth` says whether its derivative is continuous."""

    name: str
    smooth: bool
    description: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, activity: Tensor) -> Tensor:  # noqa: D102
        return self.function(activity)


#: Nonlinearities, by the names that PyTorch gives them.
NONLINEARITIES = {
    f.name: f
    for f in (
        Nonlinearity("relu", False, "max(0, x)", F.relu),
        Nonlinearity("leaky_relu", False, "x, or 0.01 x below 0", F.leaky_relu),
        Nonlinearity("celu", True, "x, or exp(x) - 1 below 0", F.celu),
        Nonlinearity("elu", True, "x, or exp(x) - 1 below 0 (celu at scale 1)", F.elu),
        Nonlinearity("gelu", True, "x Φ(x), Φ the normal distribution function", F.gelu),
        Nonlinearity("silu", True, "x / (1 + exp(-x))", F.silu),
        Nonlinearity("softplus", True, "log(1 + exp(x))", F.softplus),
        Nonlinearity("tanh", True, "tanh(x)", torch.tanh),
    )
}


def alike(function: Callable[[Tensor], Tensor], currents: Tensor) -> Tensor:
    """Apply a pointwise function to currents (replicate, sample, unit) so that a replicate's values are its own.

    On a CPU vectorised functions round what is left over at a tensor's end, or at the end of a thread's share,
    differently: here nothing is left over, whatever other replicates there are.
    """
    numbers = currents[0].numel()
    shared = currents.numel() > _UNSHARED and torch.get_num_threads() > 1
    if currents.device.type != "cpu" or not (shared or numbers % _VECTORS):
        return function(currents)
    filled = F.pad(currents.mT.flatten(1), (0, -numbers % _VECTORS)).flatten()
    found = torch.cat([function(part) for part in filled.split(_UNSHARED)]).view(len(currents), -1)
    return found[:, :numbers].unflatten(1, currents.mT.shape[1:]).mT


@dataclass(frozen=True)
class Network:
    """A network that reports the angle of a rotated face.

    Parameters
    ----------
    architecture : {"mlp", "resnet18", "module"}
        `mlp`: the aperture's pixels, fully connected hidden layers, a readout. `resnet18`: torchvision's ResNet-18 up
        to its 512 pooled features, and the same on these: a probe. `module`: a probe on a module given as `backbone`,
        which says so by itself.
    hidden : tuple of int, optional
        Units of each hidden layer; by default (60, 20), and (512,) for a probe.
    nonlinearity : str
        One of `NONLINEARITIES`.
    readout : str
        One of `READOUTS`.
    dropout : float
        Probability with which a hidden unit is silenced, in training and, where asked, in recording.
    auxiliary : int
        Outputs for a second task beside the readout's: the number of people, or of attributes (see `Stage`).
    backbone : {"frozen", "finetuned"} or torch.nn.Module
        Of a ``resnet18``; or any module that maps images (sample, channel, height, width) to features: it is copied,
        and frozen unless `tuned` (see `backbones.TorchBackbone`). A frozen backbone is run once for each face and
        angle of a `FeatureBank`, which all replicates share. A fine-tuned one is trained with the probe, replicates in
        turn; from random weights its batch norms train normally, from others their running statistics stay as they are.
    weights : str or Path
        Where a backbone begins: ``"imagenet"`` (through torchvision), ``"random"``, a file with a state dict (.pt or
        .pth, or .safetensors), or the key of an ensemble's replicate whose backbone was trained here (`Ensemble.keys`).
    bank : int
        Angles of a frozen backbone's `FeatureBank`.
    tuned : bool
        Whether a module given as `backbone` is trained with its probe.

    Notes
    -----
    Layers are named ``hidden1``, ``hidden2``, … (after their nonlinearity), ``output`` and, with a second task,
    ``auxiliary``; below them a backbone has ``features``, a ``resnet18`` also ``layer1`` to
    ``layer4``, and a module its submodules, as in ``backbone.conv1``.

    Examples
    --------
    >>> fb.Network(hidden=(60, 20), nonlinearity="celu", readout="angular").layers
    ('hidden1', 'hidden2', 'output')
    """

    architecture: str = "mlp"
    hidden: tuple[int, ...] | None = None
    nonlinearity: str = "celu"
    readout: str = "angular"
    dropout: float = 0.0
    auxiliary: int = 0
    backbone: Any = "frozen"
    weights: str = "imagenet"
    bank: int = 180
    tuned: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.backbone, torch.nn.Module):
            own = import_module(f"{__package__}.backbones").TorchBackbone.of(self.backbone)
            object.__setattr__(self, "backbone", own)
        if not isinstance(self.backbone, str):
            object.__setattr__(self, "architecture", "module")
        elif self.tuned or self.architecture == "module":
            raise ValueError('a module must be given as backbone; a resnet18 is trained by backbone="finetuned"')
        checks.one_of("architecture", self.architecture, HIDDEN)
        if self.hidden is None:
            object.__setattr__(self, "hidden", HIDDEN[self.architecture])
        if isinstance(self.backbone, str):
            checks.one_of("backbone", self.backbone, ["frozen", "finetuned"])
        checks.whole_number("auxiliary", self.auxiliary, 0)
        object.__setattr__(self, "weights", str(self.weights))
        checks.one_of("nonlinearity", self.nonlinearity, NONLINEARITIES)
        checks.one_of("readout", self.readout, READOUTS)
        object.__setattr__(self, "hidden", tuple(checks.whole_number("hidden", n) for n in self.hidden))
        if not self.hidden:
            raise ValueError("hidden must name at least one layer's number of units, as in (60, 20)")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a probability from 0 to below 1, not {self.dropout!r}")

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be recorded."""
        return (*self.kind.layers, *self._hidden, "output", *("auxiliary",) * bool(self.auxiliary))

    @cached_property
    def kind(self) -> "Mlp":
        """What the network's kind answers to training and recording."""
        if self.architecture == "mlp":
            return Mlp(self)
        # found by name, so that the modules of other kinds are not part of what makes an mlp's numbers
        probes = import_module(f"{__package__}.probes")
        return (probes.Tuned if self.tuned or self.backbone == "finetuned" else probes.Probe)(self)

    @property
    def keyed(self) -> list[Any]:
        """The network as it enters keys: a backbone's weights by their contents."""
        return [replace(self, weights="imagenet"), self.kind.keyed]

    @property
    def _hidden(self) -> tuple[str, ...]:
        return tuple(f"hidden{k + 1}" for k in range(len(self.hidden)))

    def initialise(
        self, inputs: int, generators: Sequence[torch.Generator], dtype: torch.dtype = torch.float32
    ) -> Parameters:
        """Draw parameters for one replicate per generator, as torch.nn.Linear does: uniform within ±1/√fan-in.

        Parameters
        ----------
        inputs : int
            Number of input pixels (times channels).

        Returns
        -------
        dict of Tensor
            ``<layer>.weight`` (replicate, unit, input) and ``<layer>.bias`` (replicate, unit).
        """
        ends = {"output": READOUTS[self.readout].outputs, "auxiliary": self.auxiliary}
        units_of = dict(zip(self._hidden, self.hidden, strict=True)) | {name: n for name, n in ends.items() if n}
        fans = (inputs, *self.hidden, self.hidden[-1])
        parameters = {}
        for (layer, units), fan_in in zip(units_of.items(), fans, strict=False):
            for name, shape in (("weight", (units, fan_in)), ("bias", (units,))):
                draws = [torch.rand(shape, generator=g, dtype=torch.float64) for g in generators]
                parameters[f"{layer}.{name}"] = ((2 * torch.stack(draws) - 1) * fan_in**-0.5).to(dtype)
        return parameters

    def first(self, parameters: Parameters, pixels: Tensor) -> Tensor:
        """Return the first layer's input currents (replicate, sample, unit) for pixels (replicate, sample, pixel)."""
        return self.affine(parameters, (pixels - INPUT_MEAN) / INPUT_SCALE, "hidden1")

    def onward(
        self,
        parameters: Parameters,
        currents: Tensor,
        layer: str = "output",
        masks: Sequence[Tensor] | None = None,
        apply: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor] = lambda function, currents: function(currents),
    ) -> Tensor:
        """Carry the first layer's currents (replicate, sample, unit) on to the activity of `layer`.

        Parameters
        ----------
        masks : sequence of Tensor, optional
            One per hidden layer, (replicate, sample, unit), 0 for a unit that is silenced and 1 otherwise; activities
            are divided by the probability of being kept.
        apply : callable
            How a nonlinearity is applied to currents: in training by `alike`.
        """
        chain = (*self._hidden, "auxiliary" if layer == "auxiliary" else "output")
        for depth, (this, following) in enumerate(pairwise(chain)):
            activity = self.activity(currents, apply)
            if masks is not None:
                activity = activity * masks[depth] / (1 - self.dropout)
            if this == layer:
                return activity
            currents = self.affine(parameters, activity, following)
        return currents

    def activity(self, currents: Tensor, apply: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> Tensor:
        """Return a hidden layer's activity for its input currents, the nonlinearity applied by `apply`."""
        return apply(NONLINEARITIES[self.nonlinearity], currents)

    @staticmethod
    def affine(parameters: Parameters, activity: Tensor, layer: str) -> Tensor:
        """Return the input currents of `layer` for the activity (replicate, sample, unit) of the layer before it."""
        # in this order the weights' gradient comes out laid out as the weights are, and is not copied
        return torch.baddbmm(parameters[f"{layer}.bias"][..., None], parameters[f"{layer}.weight"], activity.mT).mT


class Mlp:
    """What training and recording ask of a kind of network; the answers for one that sees the stimulus itself.

    Attributes
    ----------
    layers : tuple of str
        Below the first hidden layer, that can be recorded.
    modules : tuple of str
        Of this package, that make its numbers beside those that train and record (see `store.made_by`).
    keyed : object
        What enters keys beside the description.
    in_turn : bool
        Whether replicates are trained in turn instead of together.
    """

    layers: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    keyed: Any = None
    in_turn = False

    def __init__(self, network: Network) -> None:
        self.network = network

    def seen(self, stimulus: Any, seed: int, device: str, store: Any, progress: bool) -> Any:
        """Return what is shown to what is trained: the stimulus, or a bank in its place."""
        return stimulus

    def initialise(
        self, stimulus: Any, key: tuple[int, int], dtype: torch.dtype, store: Any, device: str
    ) -> Parameters:
        """Draw one replicate's parameters, without the replicate dimension, for seed and replicate."""
        return self.draw(stimulus.channels * len(stimulus.aperture), key, dtype)

    def draw(self, inputs: int, key: tuple[int, int], dtype: torch.dtype) -> Parameters:
        """Draw the parameters of the layers above so many inputs."""
        drawn = self.network.initialise(inputs, [generator(*key, INITIAL)], dtype)
        return {name: tensor[0] for name, tensor in drawn.items()}

    def trains(self, name: str) -> bool:
        """Whether a parameter is trained, and not measured."""
        return True

    def shown(self, parameters: Parameters, pixels: Tensor, stimulus: Any, mixed: bool) -> Tensor:
        """Return what the first layer is shown, (replicate, sample, number), for pixels (replicate, sample, pixel)."""
        return pixels

    def recorder(self, parameters: Parameters, stimulus: Any, layer: str) -> Callable[..., Any] | None:
        """Return what records a layer that needs a backbone to run, else None.

        It maps faces (replicate, face), angles (rad) and whether tangents are wanted to responses and tangents or
        None, (replicate, angle, face, unit), float64.
        """
        return None
