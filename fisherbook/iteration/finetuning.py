"""Networks that are fine-tuned on the density of each iteration: a measure for `adaptation.adapt`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from .. import angles as circle
from .. import checks
from ..fisher import log_fisher as fisher
from ..network.activity import record
from ..network.ensembles import Ensemble, Stage
from ..network.networks import Network, choose_device
from ..network.training import train
from ..stimulus.stimulus import Stimulus
from ..store import Store, default_store, digest, made_by
from .schemes import Array


@dataclass(frozen=True)
class Networks:
    """A measure: networks pre-trained once, each fine-tuned on its chain's density at every iteration.

    Parameters
    ----------
    stimulus : Stimulus
        With as many folds as replicates, or a number that divides it.
    network : Network
    pretraining, finetuning : Stage
        The second one's density is replaced.
    replicates : int
        Networks per chain.
    angles : int
        On which curves are measured and densities tabulated.
    split : str
        The faces that drive: whose curve is measured.
    pretrained : {"fixed", "redrawn", "chain"}
        Replicate r of every chain begins at every iteration at pre-trained network r; at a pre-trained network drawn
        anew; or all replicates of chain c begin at pre-trained network c (which needs a single fold).
    pool : int, optional
        Draw from that many sets of pre-trained networks, instead of pre-training new ones each time.
    warm : bool
        Each iteration begins where the one before ended, instead of at pre-trained weights.
    seed : int
    device : str
    store : Store, optional
    """

    stimulus: Stimulus
    network: Network
    pretraining: Stage
    finetuning: Stage
    replicates: int = 4
    angles: int = 128
    split: str = "train"
    pretrained: str = "fixed"
    pool: int | None = None
    warm: bool = False
    seed: int = 0
    device: str = "auto"
    store: Store | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        checks.one_of("pretrained", self.pretrained, ["fixed", "redrawn", "chain"])
        folds = self.stimulus.faces.folds
        if self.replicates % folds or (folds > 1 and self.pretrained == "chain"):
            raise ValueError(f"{folds} folds of faces don't go with {self.replicates} replicates, {self.pretrained!r}")

    @property
    def key(self) -> str:
        """Digest of all that the curves depend on."""
        own = {k: v for k, v in vars(self).items() if k not in ("stimulus", "store", "device")}
        device = choose_device(self.device)
        made = made_by("iteration.finetuning", *self.network.kind.modules, device=device, dtype=torch.float32)
        return digest([own | {"network": self.network.keyed}, self.stimulus.digest, made])

    def __call__(self, densities: Array) -> Array:
        """Return φ (chain, replicate, angle) for the last of the densities ℓ (iteration, chain, angle)."""
        iterations, chains, angles = densities.shape
        checks.same_length(densities=angles, curves=self.angles)
        shared = {"seed": self.seed, "device": self.device, "store": self.store, "progress": False}
        start = self._pretrained(chains, iterations - 1, shared)
        stages = [self._stage(n, densities[n]) for n in range(0 if self.warm else iterations - 1, iterations)]
        replicates = list(range(chains * self.replicates))
        trained = train(self.stimulus, self.network, stages, replicates, start=start, **shared)
        found = log_fisher(trained, self.stimulus, self.angles, self.split)
        if not self.warm:  # nobody will ask for these weights again
            for key in trained.keys[stages[-1].name]:
                (self.store or default_store()).remove("weights", key, ".pt")
        return found.reshape(chains, self.replicates, self.angles)

    def _stage(self, n: int, densities: Array) -> Stage:
        own = tuple(circle.tabulated(p) for p in np.exp(densities) for _ in range(self.replicates))
        return replace(self.finetuning, name=f"{self.finetuning.name} {n}", density=own if len(own) > 1 else own[0])

    def _pretrained(self, chains: int, iteration: int, shared: Mapping[str, Any]) -> list[str]:
        """Keys of the weights where each chain's replicates begin."""
        rows, chain = np.arange(self.replicates), np.arange(chains)[:, None]
        round_ = 0 if self.warm else iteration
        block = round_ * chains + chain
        if self.pool is not None:
            block = np.random.default_rng((self.seed, round_)).integers(self.pool, size=chain.shape)
        members = {"fixed": rows + 0 * chain, "redrawn": self.replicates * block + rows, "chain": chain + 0 * rows}
        members = members[self.pretrained].ravel()
        names = np.unique(members)
        trained = train(self.stimulus, self.network, [self.pretraining], names.tolist(), **shared)
        keys = dict(zip(names.tolist(), trained.keys[self.pretraining.name], strict=True))
        return [keys[m] for m in members.tolist()]


def log_fisher(
    ensemble: Ensemble, stimulus: Stimulus, angles: int, split: str, stage: str | None = None, together: int = 16
) -> Array:
    """Return φ (replicate, angle) after a stage, of so many networks at a time: any number of them fits the memory."""
    blocks = np.split(ensemble.replicate, range(together, len(ensemble.replicate), together))
    found = [record(ensemble.select(block), stimulus, angles, split, stage) for block in blocks]
    return np.concatenate([fisher.log_fisher(activity, bias=False)["log_fisher"].values[0] for activity in found])
