"""Losses on the angular error: what training is asked to make small.

They are made of operations that round alike wherever a number lies (a fourth root by `pow` does not). Instead of one of
these, training may take each readout's own `LIKELIHOOD`, a function of its outputs (see networks).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LIKELIHOOD = "likelihood"
_ROUNDING = 0.01  # rad; below it |Δ|^½ and log|Δ| are rounded off, so that their gradients stay finite


@dataclass(frozen=True)
class Loss:
    """A loss on the angular error.

    Attributes
    ----------
    name, description : str
    exponent : float
        q, where the loss grows as |Δ|^q for small errors (0 for the logarithm).
    function : callable
        Maps errors Δ (rad, any shape) to losses of the same shape.
    """

    name: str
    exponent: float
    description: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, errors: Tensor) -> Tensor:  # noqa: D102
        return self.function(errors)


#: Losses of the angular error, by name.
LOSSES = {
    loss.name: loss
    for loss in (
        Loss("cosine", 2, "1 - cos Δ", lambda e: 1 - e.cos()),
        Loss("square_root", 0.5, "|Δ|^½, rounded off as (Δ² + ε²)^¼", lambda e: (e**2 + _ROUNDING**2).sqrt().sqrt()),
        Loss("absolute", 1, "|Δ|", torch.abs),
        Loss("square", 2, "Δ²", torch.square),
        Loss("quartic", 4, "Δ⁴", lambda e: e.square().square()),
        Loss("log", 0, "½ log(Δ² + ε²), ε = 0.01 rad", lambda e: 0.5 * torch.log(e**2 + _ROUNDING**2)),
        Loss(
            "log_cosine", 2, "-log((1 + cos Δ)/2), kept finite at Δ = π",
            lambda e: -torch.log((1 + e.cos()).clamp(min=1e-6) / 2),
        ),
    )
}  # fmt: skip
