"""A backbone that never saw an angle: ResNet-18 trained on upright faces alone, to tell views of one from others.

SimCLR (Chen et al. 2020) in its plainest form: each image is seen twice, cropped, mirrored and recoloured at random and
never turned; features pass a projection head of two layers, and the two views of an image are to be nearer to each
other than to any other view of the batch.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from .. import checks
from ..store import Store, array_digest, default_store, digest, made_by
from .networks import Parameters, choose_device, generator
from .probes import PREFIX
from .resnet import FEATURES, ResNet18, draw, forward

_TOGETHER, _HEAD = 256, "head."  # images; before the names of the projection head's parameters


@dataclass(frozen=True)
class SimCLR:
    """How a backbone is trained on upright images.

    Parameters
    ----------
    steps, batch : int
        Optimiser steps, and images in each; every image is seen twice.
    learning_rate : float
        Of AdamW, at its highest: it rises over a tenth of the steps and falls as a half cosine.
    decay : float
        Of the weights.
    temperature : float
        Of the softmax over similarities.
    area : tuple of float
        Least and largest share of the image that a crop shows.
    colour : float
        Largest relative change of brightness, contrast and saturation.
    grey : float
        Probability of a view without colour.
    projection : int
        Outputs of the projection head.
    every : int
        Steps after which an interrupted training can be resumed.

    References
    ----------
    Chen, Kornblith, Norouzi and Hinton 2020, A simple framework for contrastive learning of visual representations.
    """

    steps: int = 1000
    batch: int = 128
    learning_rate: float = 1e-3
    decay: float = 1e-4
    temperature: float = 0.2
    area: tuple[float, float] = (0.3, 1.0)
    colour: float = 0.4
    grey: float = 0.2
    projection: int = 128
    every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "projection", "every"):
            checks.whole_number(name, getattr(self, name), 2 if name == "batch" else 1)
        for name in ("learning_rate", "temperature"):
            checks.number(name, getattr(self, name), above=0)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        rising = max(1, self.steps // 10)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * (1 + math.cos(math.pi * (step - rising) / max(1, self.steps - rising))) / 2


def train(
    images: ArrayLike, how: SimCLR, seed: int = 0, device: str = "auto", store: Store | None = None,
    progress: bool = True,
) -> tuple[str, NDArray[np.float32]]:  # fmt: skip
    """Train a ResNet-18 on upright images, and return the key of its weights, which `Network` takes, and its losses.

    It is resumed where an interrupted training ended; who asks for the same meanwhile waits.

    Parameters
    ----------
    images : array_like, shape (image, channel, size, size)
        Upright, in [0, 1], with one or three channels.
    how : SimCLR
    seed : int
        Of the first weights and all draws.
    device : str
    store : Store, optional
        Where the weights are kept.
    progress : bool

    Returns
    -------
    key : str
        For ``Network("resnet18", weights=key)``.
    losses : array, shape (step,)
        In nats; a guess among a batch's views has log(2 batch - 1).

    Raises
    ------
    ValueError
        If there are fewer images than a batch, or the loss is not finite.
    """
    images = torch.as_tensor(np.asarray(images, np.float32))
    checks.shape("images", tuple(images.shape), "image", "channel", "height", "width")
    if len(images) < how.batch:
        raise ValueError(f"images must be at least as many as a batch of {how.batch}, not {len(images)}")
    store, device = store or default_store(), choose_device(device)
    asked = [asdict(how), seed, array_digest(images.numpy()), made_by("network.upright", device=device)]
    ends = [*range(how.every, how.steps, how.every), how.steps]
    keys = {end: digest([*asked, end]) for end in ends}
    read = partial(torch.load, weights_only=True, map_location="cpu")

    def compute(_: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        begun = max((e for e in ends if store.get("upright", keys[e], read, ".pt") is not None), default=0)
        at = store.get("upright", keys[begun], read, ".pt") if begun else None
        with tqdm(total=how.steps, initial=begun, desc="upright faces", disable=not progress, leave=False) as bar:
            for end, state in _trained(images, how, seed, device, begun, at, ends):
                bar.update(end - bar.n)
                if end < how.steps:
                    store.put("upright", keys[end], state, torch.save, ".pt")
                else:
                    own = {PREFIX + n: t for n, t in state["parameters"].items() if not n.startswith(_HEAD)}
                    yield keys[end], {"parameters": own, "losses": state["losses"]}
                if begun:
                    store.remove("upright", keys[begun], ".pt")
                begun = end

    kept = store.fill("weights", [keys[how.steps]], compute, torch.save, read, ".pt")[keys[how.steps]]
    return keys[how.steps], kept["losses"].numpy()


def _trained(
    images: Tensor, how: SimCLR, seed: int, device: str, begun: int, at: dict[str, Any] | None, ends: list[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield how things stand after each of the steps in `ends` that are still to come."""
    state = {n: t.to(device) for n, t in (at["parameters"] if at else _begin(how, seed)).items()}
    own = [t.requires_grad_() for n, t in state.items() if not n.rpartition(".")[2].startswith("running")]
    optimizer = torch.optim.AdamW(own, weight_decay=how.decay)
    if at:
        optimizer.load_state_dict(at["optimizer"])
    losses = at["losses"].tolist() if at else []
    for step in range(begun, how.steps):
        random = generator(seed, "upright", step)
        some = images[torch.randperm(len(images), generator=random)[: how.batch]].to(device)
        seen = torch.cat([view(some, how, random), view(some, how, random)])
        for group in optimizer.param_groups:
            group["lr"] = how.rate(step)
        loss = contrast(project(state, forward(state, seen, training=True)), how.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss is not finite at step {step}; try a lower learning_rate")
        if step + 1 in ends:
            kept = {n: t.detach().cpu().clone() for n, t in state.items()}
            yield step + 1, {"parameters": kept, "optimizer": optimizer.state_dict(), "losses": torch.tensor(losses)}


def _begin(how: SimCLR, seed: int) -> Parameters:
    random = generator(seed, "upright")
    state = draw(random)
    for name, outputs in (("1", FEATURES), ("2", how.projection)):
        state[f"{_HEAD}{name}.weight"] = torch.randn(outputs, FEATURES, generator=random) * FEATURES**-0.5
        state[f"{_HEAD}{name}.bias"] = torch.zeros(outputs)
    return state


def project(state: Parameters, features: Tensor) -> Tensor:
    """Return the projection head's outputs (sample, number), of length 1."""
    hidden = F.relu(F.linear(features, state["head.1.weight"], state["head.1.bias"]))
    return F.normalize(F.linear(hidden, state["head.2.weight"], state["head.2.bias"]), dim=1)


def contrast(projected: Tensor, temperature: float) -> Tensor:
    """Return the mean negative log-likelihood of an image's other view among all other views of the batch.

    Parameters
    ----------
    projected : Tensor, shape (2 n, number)
        Of length 1; view i and view n + i show the same image.
    temperature : float
    """
    count = len(projected)
    similarity = (projected @ projected.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity, (torch.arange(count, device=projected.device) + count // 2) % count)


def view(images: Tensor, how: SimCLR, random: torch.Generator) -> Tensor:
    """Return images cropped, mirrored and recoloured at random, (image, 3, height, width); none is turned."""
    count = len(images)
    images = images.expand(-1, 3, -1, -1)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(count, *shape, generator=random)).to(images.device)

    side = uniform(*how.area).sqrt()
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    place = uniform(-1, 1, 2) * (1 - side)[:, None]
    zero = torch.zeros_like(side)
    rows = torch.stack(
        [torch.stack([side * mirror, zero, place[:, 0]], 1), torch.stack([zero, side, place[:, 1]], 1)], 1
    )
    seen = F.grid_sample(images, F.affine_grid(rows, list(images.shape), align_corners=False), align_corners=False)
    brightness, contrast_, saturation = uniform(1 - how.colour, 1 + how.colour, 3, 1, 1, 1).unbind(1)
    seen = seen * brightness
    seen = (seen - seen.mean((1, 2, 3), True)) * contrast_ + seen.mean((1, 2, 3), True)
    grey = seen.mean(1, True)
    saturation = torch.where(uniform(0, 1, 1, 1, 1) < how.grey, 0.0, saturation)
    return (grey + (seen - grey) * saturation).clamp(0, 1)


def features(weights: str, images: ArrayLike, store: Store | None = None) -> NDArray[np.float32]:
    """Return a ResNet-18's features (image, 512) of upright images; `weights` as in `Network`."""
    images = torch.as_tensor(np.asarray(images, np.float32))
    network = ResNet18(str(weights))
    ready = network.ready(network.state((0,), store))
    return torch.cat([ready(some, None, "features")[0] for some in images.split(_TOGETHER)]).numpy()
