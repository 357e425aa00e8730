"""Training an ensemble of networks in stages: all replicates at once, yet each as if it were alone.

Every random draw comes from a generator keyed by (seed, replicate, purpose, stage name, block of steps), so that the
same replicate meets the same draws in every condition (common random numbers). On a CPU replicate r alone equals
replicate r among sixteen bit for bit, with any number of threads; a GPU does not promise that, and there the company is
part of the key. What has been trained is kept in the store, one file per replicate and stage, under the digest of the
curriculum up to that stage: studies that begin alike share their beginning.
"""

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam
from tqdm import tqdm

from .. import checks
from ..stimulus.stimulus import Stimulus
from ..store import Store, default_store, digest, made_by
from .ensembles import INITIAL, Ensemble, Stage
from .losses import LIKELIHOOD, LOSSES
from .networks import Network, Parameters, alike, choose_device, generator
from .readouts import READOUTS

if TYPE_CHECKING:
    from .banks import FeatureBank

_IMAGES = 1024  # made together
_ONE_THREAD = 60_000_000  # products of the first layer per step, below which a second thread gains nothing
_BLOCK = 64  # steps whose random draws are made together; part of what a seed means
_CHECKPOINT_EVERY = 60.0  # s
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # as torch.optim.Adam names them
_LINE = 16  # numbers that fused Adam, and the kernels of a product, take at a time


def train(
    stimulus: "Stimulus | FeatureBank",
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
    checks.having("stimulus", stimulus, "faces", "a Stimulus or FeatureBank")
    checks.having("network", network, "kind", "a Network")
    replicate = np.arange(checks.whole_number("replicates", replicates)) if np.ndim(replicates) == 0 else (
        np.array(replicates, np.int64)
    )  # fmt: skip
    if not len(replicate):
        raise ValueError("replicates must be a number of them, or a list of at least one, not []")
    store, device = store or default_store(), choose_device(device)
    stages = _checked(stages, network, stimulus, len(replicate), device)
    stimulus = network.kind.seen(stimulus, seed, device, store, progress)
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
    run = replace(run, company=() if run.apart else tuple(replicate.tolist()))
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

    stimulus: "Stimulus | FeatureBank"
    network: Network
    seed: int
    device: str
    dtype: torch.dtype
    progress: bool
    store: Store | None = None
    company: tuple[int, ...] = ()  # the replicates, where their numbers depend on one another

    @property
    def apart(self) -> bool:
        """Whether a replicate's numbers do not depend on which others are trained."""
        return self.network.kind.in_turn or torch.device(self.device).type == "cpu"

    def key(self, stages: Sequence[Stage], replicate: int, start: str = "") -> str:
        made = made_by("network.training", *self.network.kind.modules, device=self.device, dtype=self.dtype)
        return digest(
            [self._keyed, list(stages), self.seed, replicate, start, self.stimulus.digest, self.company, made]
        )

    @cached_property
    def _keyed(self) -> str:
        return digest(self.network.keyed)

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
        key = (self.seed, int(replicate))
        return self.network.kind.initialise(self.stimulus, key, self.dtype, self.store, self.device)

    def stack(self, pieces: dict[int, _Piece], replicate: Sequence[int]) -> Parameters:
        names = next(iter(pieces.values())).parameters
        return {n: torch.stack([pieces[int(r)].parameters[n] for r in replicate]).to(self.device) for n in names}

    def faces(self, split: str, replicate: int) -> Tensor:
        return torch.from_numpy(self.stimulus.faces.split(split, fold=replicate % self.stimulus.faces.folds))


def _checked(
    stages: Sequence[Stage], network: Network, stimulus: "Stimulus | FeatureBank", replicates: int, device: str
) -> tuple[Stage, ...]:
    names = [stage.name for stage in stages]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"stages must be at least one stage, each with its own name, not {names}")
    for stage in stages:
        if isinstance(stage.density, tuple):
            checks.same_length(replicates=replicates, density=len(stage.density))
        if stage.auxiliary:
            _check_second_task(stage, network, stimulus)
        if stage.mixed_precision and not (network.kind.in_turn and torch.device(device).type == "cuda"):
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


def _check_second_task(stage: Stage, network: Network, stimulus: "Stimulus | FeatureBank") -> None:
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
        together = [missing if run.apart else list(replicate_of)]
        for keys in [[key] for key in missing] if run.network.kind.in_turn else together:
            replicates, interim = [replicate_of[key] for key in keys], digest(keys)
            own = stage.rows([list(key_of).index(r) for r in replicates])
            with _threads_for(run, stage, len(keys)):
                pieces = list(_train_stage(run, own, replicates, before, store, interim))
            yield from ((key, piece) for key, piece in zip(keys, pieces, strict=True) if key in missing)
            store.remove("interim", interim, ".pt")

    found = store.fill("weights", list(replicate_of), compute, _Piece.save, _Piece.load, ".pt")
    return {r: found[key] for r, key in key_of.items()}


@contextlib.contextmanager
def _threads_for(run: _Run, stage: Stage, together: int) -> Iterator[None]:
    """Use one thread for small steps: it is as fast, and does not stall beside another busy program.

    Nor are there more than replicates (threads that share one product sum it in another order), and they are a power of
    two, so that a block of images is shared evenly.
    """
    threads, used = torch.get_num_threads(), 1
    inputs = run.stimulus.channels * len(run.stimulus.aperture)
    if run.network.kind.in_turn:
        used = threads
    elif together * stage.batch * inputs * run.network.hidden[0] >= _ONE_THREAD:
        used = 1 << (min(threads, together).bit_length() - 1)
    torch.set_num_threads(used)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Adam:
    """Adam on some parameters, packed in one tensor with a row for each replicate, a whole number of vectors long.

    What is left over at a tensor's end is updated by other instructions, which round differently: here nothing is.

    Attributes
    ----------
    parameters : dict of Tensor
        Views of the packed tensor, to differentiate with respect to.
    state : dict of Tensor
        ``values``, and Adam's moments and step counts; all lead with the replicate.
    """

    def __init__(self, parameters: Parameters, rate: float, moments: Sequence[dict[str, Tensor] | None]) -> None:
        self._shapes = {name: tensor.shape[1:] for name, tensor in parameters.items()}
        self._rate, values = rate, self._packed(parameters)
        self.state = {"values": values} | {m: torch.zeros_like(values) for m in _MOMENTS[:2]}
        self.state["step"] = values.new_zeros(len(values), dtype=torch.float32)
        first = next(iter(parameters))
        if all(own and f"{first}.step" in own for own in moments):  # else it had no part in the stage before
            for m in _MOMENTS[:2]:
                kept = {n: torch.stack([own[f"{n}.{m}"] for own in moments]) for n in parameters}
                self.state[m].copy_(self._packed(kept))
            self.state["step"].copy_(torch.stack([own[f"{first}.step"] for own in moments]))
        self.parameters = {n: t.requires_grad_() for n, t in self._views(values).items()}
        self._gradient = torch.zeros_like(values)
        self._slope = self._views(self._gradient)

    def _packed(self, parameters: Parameters) -> Tensor:
        packed = torch.cat([parameters[name].flatten(1) for name in self._shapes], 1)
        return F.pad(packed, (0, -packed.shape[1] % _LINE))

    def _views(self, packed: Tensor) -> Parameters:
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = packed[:, : sum(sizes)].split(sizes, 1)
        return {n: part.view(len(packed), *shape) for part, (n, shape) in zip(parts, self._shapes.items(), strict=True)}

    def step(self, gradients: Sequence[Tensor], scale: Tensor | None) -> None:
        """Make a step along gradients, of each replicate multiplied by its own scale."""
        for slope, gradient in zip(self._slope.values(), gradients, strict=True):
            if scale is None:
                slope.copy_(gradient)
            else:
                torch.mul(gradient, scale.view(-1, *[1] * (gradient.ndim - 1)), out=slope)
        lists = [list(t.unbind()) for t in (self.state["values"], self._gradient, *map(self.state.get, _MOMENTS))]
        adam(
            *lists[:4], [], lists[4], fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=self._rate,
            weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip

    def moments(self, row: int) -> dict[str, Tensor]:
        """Return one replicate's moments and step count by the names of the parameters."""
        views = {m: self._views(self.state[m]) for m in _MOMENTS[:2]}
        found = {f"{n}.{m}": view[n][row].cpu().clone() for m, view in views.items() for n in self._shapes}
        return found | {f"{n}.step": self.state["step"][row].cpu().clone() for n in self._shapes}


def _groups(
    network: Network, stage: Stage, parameters: Parameters, moments: Sequence[dict[str, Tensor] | None]
) -> list[_Adam]:
    """Return what a stage trains: groups that have one learning rate and were always trained together."""
    rates = {"": stage.learning_rate, "auxiliary": stage.learning_rate, "backbone": stage.backbone_rate}
    if stage.backbone_rate is None:
        rates["backbone"] = stage.learning_rate
    members: dict[str, Parameters] = {group: {} for group in rates}
    for name, tensor in parameters.items():
        group = name.partition(".")[0]
        if network.kind.trains(name) and (group != "auxiliary" or stage.auxiliary):
            members[group if group in rates else ""][name] = tensor
    return [_Adam(own, rates[group], moments) for group, own in members.items() if own]


def _train_stage(
    run: _Run, stage: Stage, replicates: list[int], before: dict[int, _Piece], store: Store, interim: str
) -> Iterator[_Piece]:
    """Train the given replicates together through one stage and yield one piece for each."""
    parameters = run.stack(before, replicates)
    kept = [before[r].moments if stage.optimizer_state == "kept" else None for r in replicates]
    groups = _groups(run.network, stage, parameters, kept)
    for group in groups:
        parameters |= group.parameters
    loss = torch.full((len(replicates), stage.steps), torch.nan, device=run.device)
    # all that changes, a row for each replicate
    state = {n: t for n, t in parameters.items() if not t.requires_grad} | {"loss": loss}
    state |= {f"{number}.{n}": t for number, group in enumerate(groups) for n, t in group.state.items()}
    best, first = _Best(run, stage, replicates, state) if stage.patience else None, 0
    if interrupted := store.get("interim", interim, lambda p: torch.load(p, weights_only=True), ".pt"):
        first = interrupted["step"]
        for name, tensor in state.items():
            tensor.copy_(interrupted["state"][name])
        if best:
            vars(best).update(interrupted["best"])
    saved = time.monotonic()
    bar = tqdm(total=stage.steps, initial=first, desc=f"training {stage.name}", disable=not run.progress, leave=False)
    for start in range(first, stage.steps, _BLOCK):
        draws = _draw(run, stage, replicates, start // _BLOCK)
        for step, batch in enumerate(_batches(run, draws, min(_BLOCK, stage.steps - start)), start):
            loss[:, step] = _step(run, stage, parameters, groups, batch)
        bar.update(step + 1 - start)
        if best and best.all_stopped(parameters, state, step + 1):
            break
        if time.monotonic() - saved > _CHECKPOINT_EVERY and step + 1 < stage.steps:
            now = {"step": step + 1, "state": state, "best": best and best.state()}
            store.put("interim", interim, now, torch.save, ".pt")
            saved = time.monotonic()
    bar.close()
    last = torch.full((len(replicates),), step + 1)
    if best:
        last = last.minimum(best.step.long() + stage.patience)
        for name, tensor in best.kept.items():
            state[name].copy_(tensor)
        loss[torch.arange(stage.steps) >= last[:, None]] = torch.nan
    loss = loss.cpu()
    for row, steps in enumerate(last.tolist()):
        own = {n: t.detach()[row].cpu().clone() for n, t in parameters.items()}
        moments = {n: m for group in groups for n, m in group.moments(row).items()}
        yield _Piece(own, moments, loss[row].clone(), _first_failure(loss[row, :steps]))


def _first_failure(loss: Tensor) -> int:
    failures = (~loss.isfinite()).nonzero()
    return int(failures[0]) if len(failures) else -1


def _step(run: _Run, stage: Stage, parameters: Parameters, groups: list[_Adam], batch: dict[str, Tensor]) -> Tensor:
    """Make one optimiser step and return each replicate's loss before it."""
    faces, angles = (batch[name][:, : stage.batch] for name in ("face", "angle"))
    loss = _losses(run, stage, parameters, batch["pixels"], faces, angles, batch.get("masks"))
    trained = [tensor for group in groups for tensor in group.parameters.values()]
    gradients, scale = torch.autograd.grad(loss.sum(), trained, materialize_grads=True), None
    if stage.clip is not None:
        norm = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients], 1)
        scale = (stage.clip / torch.linalg.vector_norm(norm, dim=1)).clamp(max=1)
    own = iter(gradients)
    for group in groups:
        group.step(list(islice(own, len(group.parameters))), scale)
    return loss.detach()


def _losses(
    run: _Run, stage: Stage, parameters: Parameters, pixels: Tensor, faces: Tensor, angles: Tensor,
    masks: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return each replicate's mean loss for pixels (replicate, sample, pixel) of faces at angles, of the first samples.

    What pixels have beyond those faces only fills a batch up (see `_draw`).
    """
    network, readout = run.network, READOUTS[run.network.readout]
    masks = None if masks is None else masks.to(run.device).split(network.hidden, -1)
    shown = network.kind.shown(parameters, pixels, run.stimulus, stage.mixed_precision)
    currents = network.first(parameters, shown)
    last = network.onward(parameters, currents, f"hidden{len(network.hidden)}", masks, alike)
    outputs = network.affine(parameters, last, "output")[:, : faces.shape[1]]
    targets = (run.stimulus.symmetry * angles.to(run.device)).to(run.dtype)
    if stage.loss == LIKELIHOOD:
        loss = readout.likelihood(outputs, targets).mean(1)
    else:
        loss = LOSSES[stage.loss](readout.error(outputs, targets)).mean(1)
    if not stage.auxiliary:
        return loss
    outputs = network.affine(parameters, last, "auxiliary")[:, : faces.shape[1]]
    return (1 - stage.weight) * loss + stage.weight * _second_loss(run, stage, outputs, faces)


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
    """Yield each step's pixels, angles and dropout masks; images are made for several steps at a time.

    So many that threads, a power of two of them, share them evenly: none begins within an image.
    """
    together = 1 << max(torch.get_num_threads(), _IMAGES // draws["face"][:, 0].numel(), 1).bit_length() - 1
    for step in range(steps):
        if step % together == 0:
            part = slice(step, step + together)
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
    # columns that are left over in a product are summed in an order that depends on the company: fill them up
    samples = range(stage.batch)
    if not run.network.kind.in_turn and torch.device(run.device).type == "cpu":
        samples = [i % stage.batch for i in range(stage.batch + -stage.batch % _LINE)]
    return {name: torch.stack(drawn)[:, :, samples] for name, drawn in draws.items() if drawn}


class _Best:
    """Early stopping, replicate by replicate: all its state at the lowest validation loss so far."""

    def __init__(self, run: _Run, stage: Stage, replicates: list[int], state: dict[str, Tensor]) -> None:
        self._run, self._stage = run, stage
        draws = [generator(run.seed, r, "validation", stage.name) for r in replicates]
        uniforms = torch.stack([torch.rand((2, 512), generator=g, dtype=torch.float64) for g in draws])
        faces = [run.faces(stage.validation, r) for r in replicates]
        chosen = [f[(u[0] * len(f)).long()] for f, u in zip(faces, uniforms, strict=True)]
        angles = [stage.densities[row % len(stage.densities)].sample(u[1]) for row, u in enumerate(uniforms.numpy())]
        self._faces, self._angles = torch.stack(chosen), torch.from_numpy(np.stack(angles))
        self.loss, self.step = torch.full((len(replicates),), torch.inf, dtype=run.dtype), torch.zeros(len(replicates))
        self.kept = {name: tensor.clone() for name, tensor in state.items() if name != "loss"}

    def all_stopped(self, parameters: Parameters, state: dict[str, Tensor], step: int) -> bool:
        with torch.no_grad():
            pixels = _pixels(self._run, self._faces, self._angles)
            loss = _losses(self._run, self._stage, parameters, pixels, self._faces, self._angles).cpu()
        running = step - self.step <= self._stage.patience
        better = running & (loss < self.loss)
        self.loss[better], self.step[better] = loss[better], float(step)
        for name, tensor in self.kept.items():
            tensor[better] = state[name][better]
        return not running.any()

    def state(self) -> dict:
        return {"loss": self.loss, "step": self.step, "kept": self.kept}
