"""Readouts: how a network's outputs stand for an angle."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..angles import wrap

BINS = 16  # of the readout `bins`; the first begins at -π


_BIN = 2 * math.pi / BINS  # rad


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
