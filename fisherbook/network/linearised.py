"""Linearised training: a network replaced by its first-order expansion in the parameters that it begins with.

The outputs are f(x, w₀) + ∂f(x, w₀)/∂w · (w - w₀): training moves them within the features that the network has at
w₀ and makes no new ones, the regime of the neural tangent kernel (Jacot, Gabriel and Hongler 2018; Lee et al. 2019).
What it does with a density of training angles is foretold without a fit, from the same draws and optimiser.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from .. import derivative
from ..store import Store, default_store
from .networks import NONLINEARITIES, Mlp, Network, Parameters


@dataclass(frozen=True)
class Linearised(Network):
    """An ``mlp`` as its first-order expansion; made by `of`, trained and measured as any other network.

    Attributes
    ----------
    begin : tuple of str
        Keys of the trained weights w₀, one for each replicate from 0 on; empty for random ones.

    Notes
    -----
    Each tensor of parameters holds w₀ and w - w₀, one after the other along its units: (replicate, 2 × unit, input).
    w₀ has no gradient, so Adam leaves it as it is. Only the output can be recorded.

    Examples
    --------
    >>> from fisherbook.network.linearised import Linearised
    >>> Linearised.of(fb.Network(hidden=(8,))).layers
    ('output',)
    """

    begin: tuple[str, ...] = ()

    @classmethod
    def of(cls, network: Network, begin: Sequence[str] = ()) -> "Linearised":
        """Return a network linearised about random weights or, with the `Ensemble.keys` of a stage, trained ones.

        Raises
        ------
        ValueError
            If the network is no plain ``mlp``: it has a backbone, dropout or a second task.
        """
        if network.architecture != "mlp" or network.dropout or network.auxiliary:
            raise ValueError("network must be an mlp without dropout and second task, to be linearised")
        return cls(**{part.name: getattr(network, part.name) for part in fields(network)} | {"begin": tuple(begin)})

    @property
    def layers(self) -> tuple[str, ...]:
        """The output alone: what lies below holds activity and its change apart."""
        return ("output",)

    @cached_property
    def kind(self) -> "Mlp":
        """What the network answers to training and recording."""
        return _Expansion(self)

    def activity(self, currents: Tensor, apply: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> Tensor:
        """Return activity and its change, one after the other, for currents and theirs."""
        function, (own, change) = NONLINEARITIES[self.nonlinearity], currents.chunk(2, -1)

        def slope(values: Tensor) -> Tensor:
            return derivative.along(function, values, torch.ones_like(values))[1]

        return torch.cat([apply(function, own), apply(slope, own) * change], -1)

    def affine(self, parameters: Parameters, activity: Tensor, layer: str) -> Tensor:
        """Return the currents of `layer` and their changes, one after the other; of the output their sum."""
        weight, bias = (
            torch.cat([own.detach(), change], 1)
            for own, change in (parameters[f"{layer}.{n}"].chunk(2, 1) for n in ("weight", "bias"))
        )
        if layer == "hidden1":  # what it sees does not change
            return super().affine({"hidden1.weight": weight, "hidden1.bias": bias}, activity, layer)
        below, below_change = activity.chunk(2, -1)
        own, change = super().affine({"_.weight": weight, "_.bias": bias}, below, "_").chunk(2, -1)
        change = change + below_change @ weight.chunk(2, 1)[0].mT
        return own + change if layer == "output" else torch.cat([own, change], -1)


class _Expansion(Mlp):
    """What training and recording ask of a linearised network."""

    modules = ("network.linearised",)

    def initialise(
        self, stimulus: Any, key: tuple[int, int], dtype: torch.dtype, store: Store, device: str
    ) -> Parameters:
        own = super().initialise(stimulus, key, dtype, store, device)
        if begin := self.network.begin:
            read = partial(torch.load, weights_only=True, map_location="cpu")
            piece = (store or default_store()).get("weights", dict(enumerate(begin)).get(key[1], "none"), read, ".pt")
            if piece is None or any(piece["parameters"][name].shape != own[name].shape for name in own):
                raise ValueError(
                    f"begin must name trained weights of this network that are in the store, for replicate {key[1]}"
                )
            own = piece["parameters"]
        return {name: torch.cat([tensor, torch.zeros_like(tensor)]) for name, tensor in own.items()}
