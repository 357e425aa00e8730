"""Networks that report an angle, many replicates at once, with their nonlinearities and readouts.

An ensemble's parameters are a plain dictionary of tensors whose first dimension is the replicate; a network is a
frozen description with pure functions on them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checks
from .angles import wrap

Parameters = dict[str, Tensor]
INPUT_MEAN, INPUT_SCALE = 0.5, 0.25  # pixels enter the first layer as (I - mean) / scale
BINS = 16  # of the readout `bins`; the first begins at -π
_BIN = 2 * math.pi / BINS  # rad


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
class Readout:
    """How outputs stand for an angle.

    Attributes
    ----------
    outputs : int
        Number of output units.
    decode : callable
        Outputs (..., unit) → reported angle (...), rad.
    error : callable
        Outputs (..., unit) and true angles (...) → signed error Δ (...), rad.
    full_circle : bool
        Whether every angle can be reported.
    likelihood : callable or None
        Outputs (..., unit) and true angles (...) → negative logarithm (...) of the density, in rad⁻¹, that the outputs
        give the true angle; None where they give no density.
    """

    name: str
    outputs: int
    full_circle: bool
    description: str
    decode: Callable[[Tensor], Tensor]
    error: Callable[[Tensor, Tensor], Tensor]
    likelihood: Callable[[Tensor, Tensor], Tensor] | None = None


def _direction(outputs: Tensor) -> Tensor:
    return torch.atan2(outputs[..., 1], outputs[..., 0])


def _direction_error(outputs: Tensor, angles: Tensor) -> Tensor:
    return wrap(_direction(outputs) - angles)


def _von_mises(outputs: Tensor, angles: Tensor) -> Tensor:
    """-log of exp(κ cos(θ - μ)) / (2π I₀(κ)), where the outputs are κ (cos μ, sin μ)."""
    kappa = torch.linalg.vector_norm(outputs, dim=-1)  # i0e(κ) is I₀(κ) exp(-κ)
    along = outputs[..., 0] * angles.cos() + outputs[..., 1] * angles.sin()
    return math.log(2 * math.pi) + torch.special.i0e(kappa).log() + kappa - along


def _bins_mean(outputs: Tensor) -> Tensor:
    """Direction of the mean resultant of the bins' centres, weighted by their probabilities."""
    centres = torch.arange(0.5, BINS, dtype=outputs.dtype, device=outputs.device) * _BIN - math.pi
    return _direction(outputs.softmax(-1) @ torch.stack([centres.cos(), centres.sin()], -1))


def _bins(outputs: Tensor, angles: Tensor) -> Tensor:
    """-log of the probability of the bin that holds θ, per bin width."""
    chosen = ((wrap(angles) + math.pi) / _BIN).long().clamp(max=BINS - 1)
    return math.log(_BIN) - outputs.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]


#: What turns activity into an angle, by name.
READOUTS = {
    readout.name: readout
    for readout in (
        Readout(
            "angular", 2, True, "two outputs, the angle is their direction, atan2",
            _direction, _direction_error,
        ),
        Readout(
            "linear", 1, False, "one output, the angle itself; for densities that leave out ±π",
            lambda outputs: outputs[..., 0], lambda outputs, angles: outputs[..., 0] - angles,
        ),
        Readout(
            "bins", BINS, True, f"softmax over {BINS} angular bins, the angle is the circular mean of their centres",
            _bins_mean, lambda outputs, angles: wrap(_bins_mean(outputs) - angles), _bins,
        ),
        Readout(
            "von_mises", 2, True, "two outputs, κ (cos μ, sin μ) of a von Mises distribution; the angle is μ",
            _direction, _direction_error, _von_mises,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A network that reports the angle of a rotated face.

    Parameters
    ----------
    architecture : {"mlp"}
        `mlp`: the aperture's pixels, fully connected hidden layers, a readout.
    hidden : tuple of int
        Units of each hidden layer.
    nonlinearity : str
        One of `NONLINEARITIES`.
    readout : str
        One of `READOUTS`.
    dropout : float
        Probability with which a hidden unit is silenced, in training and, where asked, in recording.

    Notes
    -----
    Layers are named ``hidden1``, ``hidden2``, … (after their nonlinearity) and ``output``.
    """

    architecture: str = "mlp"
    hidden: tuple[int, ...] = (60, 20)
    nonlinearity: str = "celu"
    readout: str = "angular"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        checks.one_of("architecture", self.architecture, ["mlp"])
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
        return (*(f"hidden{k + 1}" for k in range(len(self.hidden))), "output")

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
        sizes = (inputs, *self.hidden, READOUTS[self.readout].outputs)
        parameters = {}
        for layer, fan_in, units in zip(self.layers, sizes, sizes[1:], strict=False):
            for name, shape in (("weight", (units, fan_in)), ("bias", (units,))):
                draws = [torch.rand(shape, generator=g, dtype=torch.float64) for g in generators]
                parameters[f"{layer}.{name}"] = ((2 * torch.stack(draws) - 1) * fan_in**-0.5).to(dtype)
        return parameters

    def first(self, parameters: Parameters, pixels: Tensor) -> Tensor:
        """Return the first layer's input currents (replicate, sample, unit) for pixels (replicate, sample, pixel)."""
        weight, bias = parameters["hidden1.weight"], parameters["hidden1.bias"]
        inputs = (pixels - INPUT_MEAN) / INPUT_SCALE
        return torch.baddbmm(bias[:, None], inputs, weight.mT)

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
        for depth, (this, following) in enumerate(zip(self.layers, self.layers[1:], strict=False)):
            activity = function(currents)
            if masks is not None:
                activity = activity * masks[depth] / (1 - self.dropout)
            if this == layer:
                return activity
            weight, bias = parameters[f"{following}.weight"], parameters[f"{following}.bias"]
            currents = torch.baddbmm(bias[:, None], activity, weight.mT)
        return currents
