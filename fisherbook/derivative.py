"""Forward-mode derivatives: a function's value and its derivative along a direction, in one pass."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor


def along(function: Callable[[Tensor], Tensor], point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``function(point)`` and its derivative along `direction`, both of the value's shape."""
    with warnings.catch_warnings():  # what torch loads for its first forward-mode derivative, torch itself deprecates
        warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
        return torch.func.jvp(function, (point,), (direction,))[:2]  # pyrefly: ignore[bad-return]
