"""Networks that report an angle, many replicates at once, with their nonlinearities and readouts.

An ensemble's parameters are a plain dictionary of tensors whose first dimension is the replicate; a network is a
frozen description with pure functions on them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from ..store import digest
from .readouts import READOUTS

Parameters = dict[str, Tensor]
INPUT_MEAN, INPUT_SCALE = 0.5, 0.25  # pixels enter the first layer as (I - mean) / scale
HIDDEN = {"mlp": (60, 20), "resnet18": (512,)}  # by architecture
BACKBONE_LAYERS, FEATURES, PREFIX = ("layer1", "layer2", "layer3", "layer4", "features"), 512, "backbone."


def generator(*key: int | str) -> torch.Generator:
    """Return a random generator of its own for a key such as (seed, replicate, purpose, stage name, block)."""
    return torch.Generator().manual_seed(int(digest(list(key))[:15], 16))


def choose_device(device: str = "auto") -> str:
    """Return ``"cuda"`` or ``"cpu"`` for ``"auto"``, and any other device's name as it is."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(torch.device(device))


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


@dataclass(frozen=True)
class Network:
    """A network that reports the angle of a rotated face.

    Parameters
    ----------
    architecture : {"mlp", "resnet18"}
        `mlp`: the aperture's pixels, fully connected hidden layers, a readout. `resnet18`: torchvision's ResNet-18 up
        to its 512 pooled features, and the same on these: a probe.
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
    backbone : {"frozen", "finetuned"}
        Of a ``resnet18``. A frozen one is run once for each face and angle of a `FeatureBank`, which all replicates
        share. A fine-tuned one is trained with the probe, replicates in turn; from random weights its batch norms
        train normally, from others their running statistics stay as they are.
    weights : str or Path
        Where a backbone begins: ``"imagenet"`` (through torchvision), ``"random"``, a file with a state dict (.pt or
        .pth, or .safetensors), or the key of an ensemble's replicate whose backbone was trained here (`Ensemble.keys`).
    bank : int
        Angles of a frozen backbone's `FeatureBank`.

    Notes
    -----
    Layers are named ``hidden1``, ``hidden2``, … (after their nonlinearity), ``output`` and, with a second task,
    ``auxiliary``; below them a backbone has ``layer1`` to ``layer4`` and ``features``.

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
    backbone: str = "frozen"
    weights: str = "imagenet"
    bank: int = 180

    def __post_init__(self) -> None:
        checks.one_of("architecture", self.architecture, HIDDEN)
        if self.hidden is None:
            object.__setattr__(self, "hidden", HIDDEN[self.architecture])
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
        below = () if self.architecture == "mlp" else BACKBONE_LAYERS
        return (*below, *self._hidden, "output", *("auxiliary",) * bool(self.auxiliary))

    @property
    def _hidden(self) -> tuple[str, ...]:
        return tuple(f"hidden{k + 1}" for k in range(len(self.hidden)))

    @property
    def frozen(self) -> bool:
        """Whether there is a backbone that is not trained."""
        return self.architecture != "mlp" and self.backbone == "frozen"

    @property
    def finetuned(self) -> bool:
        """Whether there is a backbone that is trained."""
        return self.architecture != "mlp" and self.backbone == "finetuned"

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
    ) -> Tensor:
        """Carry the first layer's currents (replicate, sample, unit) on to the activity of `layer`.

        Parameters
        ----------
        masks : sequence of Tensor, optional
            One per hidden layer, (replicate, sample, unit), 0 for a unit that is silenced and 1 otherwise; activities
            are divided by the probability of being kept.
        """
        function = NONLINEARITIES[self.nonlinearity]
        chain = (*self._hidden, "auxiliary" if layer == "auxiliary" else "output")
        for depth, (this, following) in enumerate(pairwise(chain)):
            activity = function(currents)
            if masks is not None:
                activity = activity * masks[depth] / (1 - self.dropout)
            if this == layer:
                return activity
            currents = self.affine(parameters, activity, following)
        return currents

    @staticmethod
    def affine(parameters: Parameters, activity: Tensor, layer: str) -> Tensor:
        """Return the input currents of `layer` for the activity (replicate, sample, unit) of the layer before it."""
        # in this order the weights' gradient comes out laid out as the weights are, and is not copied
        return torch.baddbmm(parameters[f"{layer}.bias"][..., None], parameters[f"{layer}.weight"], activity.mT).mT
