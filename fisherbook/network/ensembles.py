"""What is trained and what comes of it: the stages of a curriculum, and the ensemble of networks after each."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import checks
from ..angles import Density
from ..store import atomic, digest
from .losses import LIKELIHOOD, LOSSES
from .networks import INITIAL, Network, Parameters

_CHECKSUM = hashlib.sha256().digest_size  # bytes at the end of a saved ensemble


@dataclass(frozen=True)
class Stage:
    """One stage of a curriculum.

    Parameters
    ----------
    name : str
        Labels the stage in results and keys its random draws. ``initial`` is taken: the untrained network.
    density : Density or tuple of Density
        From which training angles are drawn; a tuple has one for each of the replicates that are trained together.
    loss : str
        One of `LOSSES`, or ``likelihood``: the readout's own.
    steps, batch : int
        Optimiser steps, and samples (face, angle) per step and replicate.
    learning_rate : float
        Of Adam.
    optimizer_state : {"reset", "kept"}
        Whether Adam's moments start anew or go on from the previous stage.
    clip : float, optional
        Largest norm of a replicate's gradient. Unclipped, samples whose outputs lie near the origin, where the angular
        readout turns fastest, make training noisier: the loss after 1,000 steps was twice as large.
    patience : int, optional
        Early stopping: steps without a lower loss on `validation` after which a replicate stays as it was at its best.
    split, validation : str
        Splits of the faces that are trained on, and watched for early stopping.
    auxiliary : {"identity", "attributes"}, optional
        A second task: to tell people apart, or which attributes a face has (for which the network has as many
        auxiliary outputs). Its loss, the mean negative log-likelihood over that of a uniform guess, is trained in
        the mean ``(1 - weight) * loss + weight * auxiliary loss``, so that weight 1 trains the second task alone.
    weight : float
        From 0 to 1.
    backbone_rate : float, optional
        Learning rate of a fine-tuned backbone, by default that of the probe; 0 trains the probe alone.
    mixed_precision : bool
        Run a fine-tuned backbone's convolutions in bfloat16; only on a GPU.

    Examples
    --------
    >>> fb.Stage("focused", fb.von_mises(loc=0.0, kappa=3), loss="cosine", steps=600).learning_rate
    0.001
    """

    name: str
    density: Density | tuple[Density, ...]
    loss: str = "cosine"
    steps: int = 1000
    batch: int = 32
    learning_rate: float = 1e-3
    optimizer_state: str = "reset"
    clip: float | None = 0.5
    patience: int | None = None
    split: str = "train"
    validation: str = "test"
    auxiliary: str | None = None
    weight: float = 0.0
    backbone_rate: float | None = None
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        if not self.name or self.name == INITIAL:
            raise ValueError(f"a stage's name must be a word other than {INITIAL!r}, not {self.name!r}")
        if not self.densities or not all(isinstance(density, Density) for density in self.densities):
            raise TypeError(f"density must come from uniform, von_mises or tabulated, not {self.density!r}")
        checks.one_of("loss", self.loss, [*LOSSES, LIKELIHOOD])
        checks.one_of("optimizer_state", self.optimizer_state, ["reset", "kept"])
        checks.whole_number("steps", self.steps)
        checks.whole_number("batch", self.batch)
        checks.number("learning_rate", self.learning_rate, above=0)
        if self.clip is not None:
            checks.number("clip", self.clip, above=0, below=None)
        if self.patience is not None:
            checks.whole_number("patience", self.patience)
        if self.auxiliary is not None:
            checks.one_of("auxiliary", self.auxiliary, ["identity", "attributes"])
        if not 0 <= self.weight <= (self.auxiliary is not None):
            raise ValueError(f"weight must be from 0 to 1, and 0 without an auxiliary task, not {self.weight!r}")

    @property
    def densities(self) -> tuple[Density, ...]:
        """The density as a tuple: one for all replicates, or one for each."""
        return self.density if isinstance(self.density, tuple) else (self.density,)

    def rows(self, rows: Sequence[int]) -> "Stage":
        """Return the stage as it is for some of the replicates that it was given densities for."""
        if not isinstance(self.density, tuple):
            return self
        own = tuple(self.density[row] for row in rows)
        return replace(self, density=own[0] if len(own) == 1 else own)


@dataclass(frozen=True)
class Ensemble:
    """Trained replicates of one network, after every stage of a curriculum.

    Attributes
    ----------
    network : Network
    stages : tuple of Stage
    replicate : array of int, shape (replicate,)
    seed : int
    data : str
        Digest of the stimulus it was trained on.
    keys : dict
        Stage name → one key per replicate, the digest of all that made that replicate's weights.
    weights : dict
        Stage name (and ``initial``) → parameters, tensors that lead with the replicate.
    training_loss : dict
        Stage name → Tensor (replicate, step).
    failures : dict
        Replicate → sentence, for replicates whose training met a loss that is not finite.
    """

    network: Network
    stages: tuple[Stage, ...]
    replicate: NDArray[np.int64]
    seed: int
    data: str
    keys: dict[str, tuple[str, ...]]
    weights: dict[str, Parameters]
    training_loss: dict[str, Tensor]
    failures: dict[int, str]
    _fingerprints: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __getitem__(self, stage: str) -> Parameters:
        return self.weights[checks.one_of("stage", stage, self.weights)]

    def select(self, replicate: Sequence[int]) -> "Ensemble":
        """Return the ensemble of some of the replicates, in the order given."""
        rows = [list(self.replicate).index(r) for r in replicate]
        return replace(
            self,
            stages=tuple(stage.rows(rows) for stage in self.stages),
            replicate=self.replicate[rows],
            keys={s: tuple(k[r] for r in rows) for s, k in self.keys.items()},
            weights={s: {n: t[rows] for n, t in w.items()} for s, w in self.weights.items()},
            training_loss={s: loss[rows] for s, loss in self.training_loss.items()},
            failures={r: f for r, f in self.failures.items() if r in replicate},
        )

    def fingerprints(self, stage: str) -> tuple[str, ...]:
        """Return each replicate's digest of what made its weights and of the weights themselves, for keys."""
        if stage not in self._fingerprints:
            weights = self[stage]
            self._fingerprints[stage] = tuple(
                digest([key, {name: tensor[row] for name, tensor in weights.items()}])
                for row, key in enumerate(self.keys[stage])
            )
        return self._fingerprints[stage]

    def save(self, path: str | Path) -> None:
        """Write the ensemble to one file, whole or not at all; `load` reads it without unpickling any code."""
        kept = {part.name: getattr(self, part.name) for part in fields(self) if part.init}
        kept |= {"network": _described(self.network), "stages": [asdict(stage) for stage in self.stages]}
        with atomic(Path(path)) as temporary:
            torch.save(kept | {"replicate": self.replicate.tolist()}, temporary)
            checksum = hashlib.sha256(temporary.read_bytes()).digest()
            with temporary.open("ab") as file:
                file.write(checksum)

    @classmethod
    def load(cls, path: str | Path, backbone: torch.nn.Module | None = None) -> "Ensemble":
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or Path
        backbone : torch.nn.Module, optional
            The module that the network was given as its backbone: it is not in the file.

        Raises
        ------
        ValueError
            If the file is not as it was written, or the backbone is another.
        """
        content = Path(path).read_bytes()
        body, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
        if hashlib.sha256(body).digest() != checksum:
            raise ValueError(f"{path} is damaged, or was not written by Ensemble.save: its checksum does not agree")
        kept = torch.load(io.BytesIO(body), weights_only=True)
        densities = [
            Density(**s["density"]) if isinstance(s["density"], dict) else tuple(Density(**d) for d in s["density"])
            for s in kept["stages"]
        ]
        stages = tuple(Stage(**s | {"density": d}) for s, d in zip(kept.pop("stages"), densities, strict=True))
        replicate = np.array(kept.pop("replicate"), np.int64)
        described = kept.pop("network")
        if not isinstance(own := described["backbone"], str):
            network = backbone and Network(**described | {"backbone": backbone})
            if not backbone or _described(network) != described:
                raise ValueError(
                    f"{path} needs the module that was its network's backbone, a {own['name']} with its weights of "
                    "then: give it as Ensemble.load(path, backbone=module)"
                )
        else:  # a linearised network says where it begins
            kind = import_module(f"{__package__}.linearised").Linearised if "begin" in described else Network
            network = kind(**described)
        return cls(network=network, stages=stages, replicate=replicate, **kept)


def _described(network: Network) -> dict[str, Any]:
    """Return a network's description as plain values: of a module of the reader's own, its name and digest."""
    own = network.backbone
    named = own if isinstance(own, str) else {"name": own.name, "contents": own.contents}
    return {part.name: getattr(network, part.name) for part in fields(network)} | {"backbone": named}
