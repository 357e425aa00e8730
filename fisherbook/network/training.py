"""Training an ensemble of networks in stages: all replicates at once, yet each as if it were alone.

Every random draw comes from a generator keyed by (seed, replicate, purpose, stage name, block of steps), so that
replicate r alone equals replicate r among sixteen, and the same replicate meets the same draws in every condition
(common random numbers). What has been trained is kept in the store, one file per replicate and stage, under the digest
of the curriculum up to that stage: studies that begin alike share their beginning.
"""

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .. import checks
from ..stimulus.stimulus import Stimulus
from ..store import Store, default_store, digest, made_by
from . import banks, resnet
from .banks import FeatureBank
from .ensembles import INITIAL, Ensemble, Stage
from .losses import LIKELIHOOD, LOSSES
from .networks import FEATURES, INPUT_MEAN, INPUT_SCALE, PREFIX, Network, Parameters, choose_device, generator
from .readouts import READOUTS

_IMAGES = 1024  # made together
_ONE_THREAD = 60_000_000  # products of the first layer per step, below which a second thread gains nothing
_BLOCK = 64  # steps whose random draws are made together; part of what a seed means
_CHECKPOINT_EVERY = 60.0  # s
_MOMENTS = ("exp_avg", "exp_avg_sq")  # as torch.optim.Adam names them


def train(
    stimulus: Stimulus | FeatureBank,
    network: Network,
    stages: Sequence[Stage],
    replicates: int | Sequence[int] = 8,
    seed: int = 0,
    device: str = "auto",
    dtype: torch.dtype = torch.float32,
    store: Store | None = None,
    progress: bool = True,
    start: Sequence[str] | None = None,
) -> Ensemble:
    """Train replicates of a network through the stages of a curriculum, or take from the store what was trained before.

    Parameters
    ----------
    stimulus : Stimulus or FeatureBank
        A network with a frozen backbone is trained on its feature bank, which is built if it is not there.
    network : Network
    stages : sequence of Stage
        Each begins where the one before ended; the first begins at the random initialisation.
    replicates : int or sequence of int
        That many, numbered from 0, or these. Replicate r trains on fold r of the faces' splits.
    seed : int
    device : str
        ``"auto"`` takes a GPU where there is one, else ``"cpu"``.
    dtype : torch.dtype
        Of weights and training images.
    store : Store, optional
        By default `default_store()`.
    progress : bool
        Show a progress bar while training.
    start : sequence of str, optional
        Keys of trained replicates that are in the store, one for each of `replicates` (see `Ensemble.keys`): where the
        first stage begins, instead of at a random initialisation. Probes of a frozen backbone may be named for a
        network that fine-tunes it.

    Returns
    -------
    Ensemble

    Warns
    -----
    RuntimeWarning
        If a replicate's loss stops being finite, with replicate, stage and step; the other replicates are not touched.

    Examples
    --------
    >>> stimulus = fb.Stimulus(fb.load_faces("gratings", size=8, limit=40))
    >>> stages = [fb.Stage("uniform", fb.uniform(), steps=2, batch=4)]
    >>> ensemble = fb.train(stimulus, fb.Network(hidden=(4,)), stages, replicates=2, device="cpu", progress=False)
    >>> ensemble.replicate.tolist(), list(ensemble.weights)
    ([0, 1], ['initial', 'uniform'])
    """
    replicate = np.arange(checks.whole_number("replicates", replicates)) if np.ndim(replicates) == 0 else (
        np.array(replicates, np.int64)
    )  # fmt: skip
    store, device = store or default_store(), choose_device(device)
    stages = _checked(stages, network, stimulus, len(replicate), device)
    stimulus = banks.seen(network, stimulus, seed, device, store, progress)
    run = _Run(stimulus, network, seed, device, dtype, progress, store)
    if start is None:
        pieces = {int(r): _Piece(run.initialise(r), None, torch.zeros(0)) for r in replicate}
    else:
        stored = [store.get("weights", key, _Piece.load, ".pt") for key in start]
        if len(start) != len(replicate) or None in stored:
            raise ValueError(f"start must name trained weights that are in the store, one for each of {len(replicate)}")
        # a probe that was trained on a frozen backbone goes on above the same backbone, now trained with it
        pieces = {
            int(r): replace(piece, parameters=run.initialise(r) | piece.parameters)
            for r, piece in zip(replicate, stored, strict=True)
        }
    weights, training_loss = {INITIAL: run.stack(pieces, replicate)}, {}
    begun = tuple(start or ("" for _ in replicate))
    keys, failures = {INITIAL: tuple(run.key((), int(r), b) for r, b in zip(replicate, begun, strict=True))}, {}
    for index, stage in enumerate(stages):
        key_of = {
            int(r): run.key([s.rows([row]) for s in stages[: index + 1]], int(r), begun[row])
            for row, r in enumerate(replicate)
        }
        pieces = _fill(store, run, stage, pieces, key_of)
        keys[stage.name] = tuple(key_of[int(r)] for r in replicate)
        weights[stage.name] = run.stack(pieces, replicate)
        training_loss[stage.name] = torch.stack([pieces[int(r)].loss for r in replicate])
        for r, piece in pieces.items():
            if piece.failed >= 0:
                where = f"stage {stage.name!r} at step {piece.failed}"
                failures.setdefault(r, f"the loss of replicate {r} is not finite in {where}; the others are kept")
    for sentence in failures.values():
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)
    return Ensemble(network, stages, replicate, seed, stimulus.digest, keys, weights, training_loss, failures)


@dataclass(frozen=True)
class _Piece:
    """One replicate after one stage: what the store keeps in a file."""

    parameters: Parameters  # without the replicate dimension
    moments: dict[str, Tensor] | None  # Adam's, and its step count
    loss: Tensor  # (step,); NaN after early stopping
    failed: int = -1  # first step whose loss was not finite

    def save(self, path: Path) -> None:
        torch.save(vars(self), path)

    @classmethod
    def load(cls, path: Path) -> "_Piece":
        return cls(**torch.load(path, weights_only=True))


@dataclass(frozen=True)
class _Run:
    """What stays the same through a curriculum."""

    stimulus: Stimulus | FeatureBank
    network: Network
    seed: int
    device: str
    dtype: torch.dtype
    progress: bool
    store: Store | None = None

    def key(self, stages: Sequence[Stage], replicate: int, start: str = "") -> str:
        made = made_by("network.training", device=self.device, dtype=self.dtype)
        return digest([self._keyed, list(stages), self.seed, replicate, start, self.stimulus.digest, made])

    @cached_property
    def _keyed(self) -> Network:
        return resnet.keyed(self.network)

    @property
    def inputs(self) -> int:
        """Numbers that the first trained layer is shown."""
        return FEATURES if self.network.finetuned else self.stimulus.channels * len(self.stimulus.aperture)

    @cached_property
    def targets(self) -> dict[str, Tensor]:
        """Of the second tasks: who each face is, counted from 0, and which attributes it has."""
        faces, found = self.stimulus.faces, {}
        if faces.identity is not None:
            found["identity"] = torch.from_numpy(np.unique(faces.identity, return_inverse=True)[1])
        if faces.attributes is not None:
            found["attributes"] = torch.from_numpy(faces.attributes)
        return found

    def initialise(self, replicate: int) -> Parameters:
        drawn = self.network.initialise(self.inputs, [generator(self.seed, int(replicate), INITIAL)], self.dtype)
        parameters = {name: tensor[0] for name, tensor in drawn.items()}
        if self.network.finetuned:
            key = (self.seed, int(replicate))
            begun = resnet.start(self.network, self.stimulus, key, self.store, self.device)
            parameters |= {PREFIX + name: tensor.to(self.dtype) for name, tensor in begun.items()}
        return parameters

    def shown(self, parameters: Parameters, pixels: Tensor, mixed: bool = False) -> Tensor:
        """Return what the first layer is shown, (replicate, sample, number): pixels, or a backbone's features."""
        if not self.network.finetuned:
            return pixels
        found, training = [], self.network.weights == "random" and torch.is_grad_enabled()
        for row, own in enumerate(pixels):
            state = {name: tensor[row] for name, tensor in resnet.backbone_of(parameters).items()}
            images = self.stimulus.embed(own.unflatten(-1, (self.stimulus.channels, -1)))
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=mixed):
                features = resnet.forward(state, images, training=training)
            found.append((features.to(self.dtype) - state["mean"]) / state["scale"])
        return INPUT_MEAN + INPUT_SCALE * torch.stack(found)

    def stack(self, pieces: dict[int, _Piece], replicate: Sequence[int]) -> Parameters:
        names = next(iter(pieces.values())).parameters
        return {n: torch.stack([pieces[int(r)].parameters[n] for r in replicate]).to(self.device) for n in names}

    def faces(self, split: str, replicate: int) -> Tensor:
        return torch.from_numpy(self.stimulus.faces.split(split, fold=replicate % self.stimulus.faces.folds))


def _checked(
    stages: Sequence[Stage], network: Network, stimulus: Stimulus | FeatureBank, replicates: int, device: str
) -> tuple[Stage, ...]:
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"stages must be at least one stage, each with its own name, not {names}")
    for stage in stages:
        if isinstance(stage.density, tuple):
            checks.same_length(replicates=replicates, density=len(stage.density))
        if stage.auxiliary:
            _check_second_task(stage, network, stimulus)
        if stage.mixed_precision and not (network.finetuned and torch.device(device).type == "cuda"):
            raise ValueError(f"mixed_precision is for a fine-tuned backbone on a GPU, not for device {device!r}")
    if READOUTS[network.readout].likelihood is None and any(stage.loss == LIKELIHOOD for stage in stages):
        having = ", ".join(readout.name for readout in READOUTS.values() if readout.likelihood)
        raise ValueError(f"the {network.readout} readout has no likelihood of its own, only these have: {having}")
    if not READOUTS[network.readout].full_circle:
        for name, density in ((stage.name, density) for stage in stages for density in stage.densities):
            low, high = (edge * stimulus.symmetry for edge in density.support)
            if not -np.pi < low < high < np.pi:
                raise ValueError(
                    f"the {network.readout} readout needs densities that leave out ±π, but stage {name!r} has "
                    f"its support from {low:.3g} to {high:.3g} rad; use for instance uniform(-1.5, 1.5)"
                )
    return tuple(stages)


def _check_second_task(stage: Stage, network: Network, stimulus: Stimulus | FeatureBank) -> None:
    faces = stimulus.faces
    known = faces.identity if stage.auxiliary == "identity" else faces.attributes
    if known is None:
        raise ValueError(f"stage {stage.name!r}: {faces.source} does not tell the {stage.auxiliary} of its faces")
    needed = len(np.unique(known)) if known.ndim == 1 else known.shape[1]
    if network.auxiliary != needed:
        raise ValueError(f"stage {stage.name!r} needs Network(auxiliary={needed}), one output for each")


def _fill(
    store: Store, run: _Run, stage: Stage, before: dict[int, _Piece], key_of: dict[int, str]
) -> dict[int, _Piece]:
    """Return each replicate's piece after one stage, from the store or trained from the pieces before it."""
    replicate_of = {key: r for r, key in key_of.items()}

    def compute(missing: list[str]) -> Iterator[tuple[str, _Piece]]:
        for keys in [[key] for key in missing] if run.network.finetuned else [missing]:  # together, or in turn
            replicates, interim = [replicate_of[key] for key in keys], digest(keys)
            own = stage.rows([list(key_of).index(r) for r in replicates])
            products = len(keys) * stage.batch * run.inputs * run.network.hidden[0]
            with _threads_for(_ONE_THREAD if run.network.finetuned else products):
                pieces = list(_train_stage(run, own, replicates, before, store, interim))
            yield from zip(keys, pieces, strict=True)
            store.remove("interim", interim, ".pt")

    found = store.fill("weights", list(replicate_of), compute, _Piece.save, _Piece.load, ".pt")
    return {r: found[key] for r, key in key_of.items()}


@contextlib.contextmanager
def _threads_for(products: int) -> Iterator[None]:
    """Use one thread for small steps: it is as fast, and does not stall beside another busy program."""
    threads = torch.get_num_threads()
    if products < _ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_stage(
    run: _Run, stage: Stage, replicates: list[int], before: dict[int, _Piece], store: Store, interim: str
) -> Iterator[_Piece]:
    """Train the given replicates together through one stage and yield one piece for each."""
    parameters = run.stack(before, replicates)
    trained = {n: t.requires_grad_() for n, t in parameters.items() if not resnet.is_statistic(n)}
    below = [tensor for name, tensor in trained.items() if name.startswith(PREFIX)]
    groups = [{"params": [tensor for name, tensor in trained.items() if not name.startswith(PREFIX)]}]
    if below:
        rate = stage.learning_rate if stage.backbone_rate is None else stage.backbone_rate
        groups.append({"params": below, "lr": rate})
    adam = torch.optim.Adam(groups, lr=stage.learning_rate, fused=True)
    if stage.optimizer_state == "kept" and before[replicates[0]].moments is not None:
        _set_moments(adam, trained, [before[r].moments for r in replicates], run)
    loss = torch.full((len(replicates), stage.steps), torch.nan, device=run.device)
    best, first = _Best(run, stage, replicates) if stage.patience else None, 0
    if interrupted := store.get("interim", interim, lambda p: torch.load(p, weights_only=True), ".pt"):
        first, loss = interrupted["step"], interrupted["loss"]
        with torch.no_grad():
            for name, tensor in parameters.items():
                tensor.copy_(interrupted["parameters"][name])
        adam.load_state_dict(interrupted["adam"])
        if best:
            vars(best).update(interrupted["best"])
    saved = time.monotonic()
    bar = tqdm(total=stage.steps, initial=first, desc=f"training {stage.name}", disable=not run.progress, leave=False)
    for start in range(first, stage.steps, _BLOCK):
        draws = _draw(run, stage, replicates, start // _BLOCK)
        for step, batch in enumerate(_batches(run, draws, min(_BLOCK, stage.steps - start)), start):
            loss[:, step] = _step(run, stage, parameters, adam, batch)
        bar.update(step + 1 - start)
        if best and best.all_stopped(parameters, step + 1):
            break
        if time.monotonic() - saved > _CHECKPOINT_EVERY and step + 1 < stage.steps:
            state = {"step": step + 1, "loss": loss, "adam": adam.state_dict(), "best": best and best.state()}
            state["parameters"] = {n: t.detach() for n, t in parameters.items()}
            store.put("interim", interim, state, torch.save, ".pt")
            saved = time.monotonic()
    bar.close()
    loss = loss.cpu()
    failed = [_first_failure(losses[: step + 1]) for losses in loss]
    if best:
        parameters = best.parameters
        loss[torch.arange(stage.steps) >= (best.step + stage.patience)[:, None]] = torch.nan
    moments = {name: adam.state[tensor] for name, tensor in trained.items() if tensor in adam.state}
    for row in range(len(replicates)):
        own = {n: t.detach()[row].cpu().clone() for n, t in parameters.items()}
        states = {f"{n}.{m}": s[m][row].cpu().clone() for n, s in moments.items() for m in _MOMENTS}
        moments_of = states | {"step": next(iter(moments.values()))["step"].cpu().clone()}
        yield _Piece(own, moments_of, loss[row].clone(), failed[row])


def _first_failure(loss: Tensor) -> int:
    failures = (~loss.isfinite()).nonzero()
    return int(failures[0]) if len(failures) else -1


def _step(run: _Run, stage: Stage, parameters: Parameters, adam: torch.optim.Adam, batch: dict[str, Tensor]) -> Tensor:
    """Make one optimiser step and return each replicate's loss before it."""
    loss = _losses(run, stage, parameters, batch["pixels"], batch["face"], batch["angle"], batch.get("masks"))
    adam.zero_grad(set_to_none=True)
    loss.sum().backward()
    if stage.clip is not None:
        gradients = [p.grad for p in parameters.values() if p.grad is not None]
        norm = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]).norm(dim=0)
        scale = (stage.clip / norm).clamp(max=1)
        for g in gradients:
            g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))
    adam.step()
    return loss.detach()


def _losses(
    run: _Run, stage: Stage, parameters: Parameters, pixels: Tensor, faces: Tensor, angles: Tensor,
    masks: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return each replicate's mean loss for pixels (replicate, sample, pixel) of faces at angles."""
    network, readout = run.network, READOUTS[run.network.readout]
    masks = None if masks is None else masks.to(run.device).split(network.hidden, -1)
    currents = network.first(parameters, run.shown(parameters, pixels, stage.mixed_precision))
    last = network.onward(parameters, currents, f"hidden{len(network.hidden)}", masks)
    outputs = network.affine(parameters, last, "output")
    targets = (run.stimulus.symmetry * angles.to(run.device)).to(run.dtype)
    if stage.loss == LIKELIHOOD:
        loss = readout.likelihood(outputs, targets).mean(1)
    else:
        loss = LOSSES[stage.loss](readout.error(outputs, targets)).mean(1)
    if not stage.auxiliary:
        return loss
    second = _second_loss(run, stage, network.affine(parameters, last, "auxiliary"), faces)
    return (1 - stage.weight) * loss + stage.weight * second


def _second_loss(run: _Run, stage: Stage, outputs: Tensor, faces: Tensor) -> Tensor:
    """Return each replicate's loss on the second task: the mean surprise over that of a uniform guess."""
    targets = run.targets[stage.auxiliary][faces].to(run.device)
    if stage.auxiliary == "identity":
        return F.cross_entropy(outputs.mT, targets, reduction="none").mean(1) / np.log(outputs.shape[-1])
    surprise = F.binary_cross_entropy_with_logits(outputs, targets.nan_to_num().to(outputs), reduction="none")
    known = targets.isfinite()
    return (surprise * known).sum((1, 2)) / known.sum((1, 2)).clamp(min=1) / np.log(2)


def _pixels(run: _Run, faces: Tensor, angles: Tensor) -> Tensor:
    """Show faces at angles, both (replicate, ..., sample), as pixels (replicate, ..., sample, pixel)."""
    pixels = run.stimulus.pixels(faces.flatten(), angles.flatten(), dtype=run.dtype, device=run.device)
    return pixels.view(*faces.shape, -1)


def _batches(run: _Run, draws: dict[str, Tensor], steps: int) -> Iterator[dict[str, Tensor]]:
    """Yield each step's pixels, angles and dropout masks; images are made for several steps at a time."""
    together = max(1, _IMAGES // draws["face"][:, 0].numel())
    for step in range(steps):
        if step % together == 0:
            part = slice(step, min(step + together, steps))
            pixels = _pixels(run, draws["face"][:, part], draws["angle"][:, part])
        batch = {name: draw[:, step] for name, draw in draws.items()}
        yield batch | {"pixels": pixels[:, step % together]}


def _draw(run: _Run, stage: Stage, replicates: list[int], block: int) -> dict[str, Tensor]:
    """Draw a block's faces, angles and dropout masks: (replicate, step, sample[, unit])."""
    shape, draws = (_BLOCK, stage.batch), {"face": [], "angle": [], "masks": []}
    for row, r in enumerate(replicates):
        key, faces = (stage.name, block), run.faces(stage.split, r)
        uniforms = {p: torch.rand(shape, generator=generator(run.seed, r, p, *key), dtype=torch.float64)
                    for p in ("face", "angle")}  # fmt: skip
        draws["face"].append(faces[(uniforms["face"] * len(faces)).long()])
        draws["angle"].append(
            torch.from_numpy(stage.densities[row % len(stage.densities)].sample(uniforms["angle"].numpy()))
        )
        if run.network.dropout:
            random = torch.rand((*shape, sum(run.network.hidden)), generator=generator(run.seed, r, "dropout", *key))
            draws["masks"].append((random >= run.network.dropout).to(run.dtype))
    return {name: torch.stack(drawn) for name, drawn in draws.items() if drawn}


class _Best:
    """Early stopping, replicate by replicate: the parameters at the lowest validation loss so far."""

    def __init__(self, run: _Run, stage: Stage, replicates: list[int]) -> None:
        self._run, self._stage = run, stage
        draws = [generator(run.seed, r, "validation", stage.name) for r in replicates]
        uniforms = torch.stack([torch.rand((2, 512), generator=g, dtype=torch.float64) for g in draws])
        faces = [run.faces(stage.validation, r) for r in replicates]
        chosen = [f[(u[0] * len(f)).long()] for f, u in zip(faces, uniforms, strict=True)]
        angles = [stage.densities[row % len(stage.densities)].sample(u[1]) for row, u in enumerate(uniforms.numpy())]
        self._faces, self._angles = torch.stack(chosen), torch.from_numpy(np.stack(angles))
        self.loss, self.step = (
            torch.full((len(replicates),), torch.inf, dtype=run.dtype),
            torch.zeros(len(replicates)),
        )
        self.parameters: Parameters = {}

    def all_stopped(self, parameters: Parameters, step: int) -> bool:
        with torch.no_grad():
            pixels = _pixels(self._run, self._faces, self._angles)
            loss = _losses(self._run, self._stage, parameters, pixels, self._faces, self._angles).cpu()
        running = step - self.step <= self._stage.patience
        better = running & (loss < self.loss)
        self.loss[better], self.step[better] = loss[better], float(step)
        if not self.parameters:
            self.parameters = {n: t.detach().clone() for n, t in parameters.items()}
        for name, tensor in parameters.items():
            self.parameters[name][better] = tensor.detach()[better]
        return not running.any()

    def state(self) -> dict:
        return {"loss": self.loss, "step": self.step, "parameters": self.parameters}


def _set_moments(adam: torch.optim.Adam, parameters: Parameters, moments: list[dict[str, Tensor]], run: _Run) -> None:
    for name, tensor in parameters.items():
        if f"{name}.{_MOMENTS[0]}" not in moments[0]:  # it had no part in the stage before
            continue
        stacked = {m: torch.stack([s[f"{name}.{m}"] for s in moments]).to(run.device) for m in _MOMENTS}
        adam.state[tensor] = {"step": moments[0]["step"].clone(), **stacked}
