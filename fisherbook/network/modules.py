"""Layers of any torch module: what they give for rotated faces and how that changes with the angle.

What is recorded is a copy of what the layer gives, taken at once: what the module does to that tensor afterwards, such
as ``relu(inplace=True)``, comes too late. Where a layer is called several times, or gives several tensors, `call` and
`select` say which is meant.

The module is in evaluation mode while it is recorded: dropout is off, and batch norms use their running statistics.
Afterwards it is as it was: modes, buffers, attributes, hooks and torch's random state, also after an error. Parameters
are never touched. A module whose response to an image is random even so, or depends on which other images it is shown
with (a batch norm without running statistics, or a recurrent layer that takes samples for time steps), is refused.

Images are in [0, 1], mid-grey outside the aperture, in the dtype and on the device of the module's first parameter
(float64 on the CPU if it has none); a normalisation belongs into the module. A module that refuses grey images is shown
them repeated to three channels; one that refuses colours needs grey faces.

Tangents are forward-mode derivatives. Attention is computed by its definition (torch's fused kernels lack them), and
other fused kernels, as of an LSTM, are left out where that helps. What is still without a derivative, or whose own is
not that of its values (as after ``detach``), has central differences of the images turned by ±h and ±h/2, extrapolated
(Richardson); h = ε^(1/5) / 4 rad for the dtype's spacing ε: 2e-4 in float64, 0.01 in float32. ``attrs["derivative"]``
says so then, with the size of the error: what the extrapolation changed, on two images.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from .. import checks, derivative
from ..stimulus.stimulus import Stimulus

Select = int | str | Callable[[Any], Tensor] | None
AT_WORK = 8  # of its largest tensors that a module holds at once: in and out, values and tangents, and room to work


class Run(NamedTuple):
    """How a module's layer is evaluated."""

    evaluate: Callable[[NDArray, bool, slice], tuple[Tensor, Tensor | None]]
    units: int
    working: int  # numbers of 8 bytes, for an image
    attrs: dict[str, str]


_APART = 0.03  # of its size, root mean square over units: how far a derivative may be from differences


class _CannotRecord(ValueError):
    """A sentence about the layer asked for, in distinction from what goes wrong inside the module."""


def evaluator(
    module: torch.nn.Module, stimulus: Stimulus, faces: NDArray, angles: NDArray, layer: str = "output",
    select: Select = None, call: int | None = None,
) -> Run:  # fmt: skip
    """Return what computes a layer's responses and tangents (1, angle, face, unit), after a trial on two images.

    Parameters
    ----------
    module : torch.nn.Module
    stimulus : Stimulus
    faces, angles : array
        Indices, and rad; the trial takes their first.
    layer, select, call
        As `activity.record` takes them.

    Raises
    ------
    ValueError
        One sentence, if the module refuses the images, or the layer gives no tensor that can be recorded.
    """
    if any(torch.nn.parameter.is_lazy(tensor) or tensor.is_meta for tensor in module.parameters()):
        raise ValueError("the module has lazy parameters or meta ones, without numbers yet: call or load it first")
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    reference = next(iter(tensors), torch.zeros((), dtype=torch.float64))
    coarse = max(torch.finfo(tensor.dtype).eps for tensor in (*tensors, reference))
    forward = _tap(module, layer, select, call)
    repeats = 1

    def images(shown: NDArray, at: NDArray, along: bool = False) -> Tensor:
        where = torch.from_numpy(np.asarray(shown)), torch.from_numpy(at)
        pixels = stimulus.product(*where, along, device=str(reference.device))
        return stimulus.embed(pixels, along).flatten(0, 1).to(reference.dtype).repeat(1, repeats, 1, 1)

    step = torch.finfo(reference.dtype).eps ** 0.2 / 4
    one, two = faces[:1], angles[0] + np.array([0.0, 1.0])
    with _undisturbed(module, reference.device):
        try:
            together = forward(images(one, two))
        except _CannotRecord:
            raise
        except Exception as error:
            came = images(one, two)
            repeats = 3 if stimulus.channels == 1 else 1
            together = _second_try(forward, images(one, two), came, error)
        if not _close(forward(images(one, two)), together, coarse):
            raise ValueError(
                "the module's response to an image must always be the same, but it is random even in evaluation mode"
            )
        alone = None
        with contextlib.suppress(RuntimeError, ValueError), Largest() as largest:
            alone = forward(images(one, two[1:]))
        if alone is None or not _close(alone, together[1:], coarse):
            raise ValueError(
                "the module's response to an image must not depend on which others it is shown with, but it does: "
                "look for a norm without running statistics, or a layer that takes samples for time steps"
            )
        differences, error = differences_of(forward, lambda turn: images(one, two + turn), step)
        attrs = {"channels": "grey, repeated to 3"} if repeats > 1 else {}
        kernels = kernels_with_a_derivative(forward, images(one, two), images(one, two, True), differences, error)
        if kernels is None:
            attrs["derivative"] = (
                f"central differences of the images turned by {step:.2g} and {step / 2:.2g} rad either way, "
                f"extrapolated; error about {float(error.norm() / differences.norm()):.1g} of their size"
            )

    def evaluate(at: NDArray, tangents: bool, block: slice) -> tuple[Tensor, Tensor | None]:
        shown = faces[block]
        with _undisturbed(module, reference.device), (kernels or contextlib.nullcontext)():
            if not tangents:
                found = forward(images(shown, at)), None
            elif kernels:
                found = derivative.along(forward, images(shown, at), images(shown, at, True))
            else:
                slopes = differences_of(forward, lambda turn: images(shown, at + turn), step)[0]
                found = forward(images(shown, at)), slopes
        return tuple(v if v is None else v.double().unflatten(0, (1, len(at), len(shown))) for v in found)

    return Run(evaluate, alone.shape[1], AT_WORK * largest.size // 8 + 4 * alone.shape[1], attrs)


def _tap(module: torch.nn.Module, layer: str, select: Select, call: int | None) -> Callable[[Tensor], Tensor]:
    """Return the function from images to a copy of the layer's activity, (sample, unit)."""
    named = dict(module.named_modules(remove_duplicate=False))
    submodule = named.get("" if layer == "output" else layer)
    if submodule is None:
        checks.one_of("layer", layer, ["output", *filter(None, named)])
    if isinstance(submodule, torch.jit.ScriptModule):
        raise ValueError(f"layer {layer!r} is scripted, so it can't be recorded: give the module that it was made from")

    def forward(images: Tensor) -> Tensor:
        caught: list[Tensor | None] = []

        def keep(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            wanted = call is None or call == len(caught)
            caught.append(_selected(output, select, layer).clone() if wanted else None)

        hook = submodule.register_forward_hook(keep)
        try:
            own = {name: buffer.clone() for name, buffer in module.named_buffers()}
            torch.func.functional_call(module, own, (images.clone(),))
        finally:
            hook.remove()
        if not caught:
            raise _CannotRecord(f"layer {layer!r} is not called in the module's forward pass: it gives nothing")
        if len(caught) > 1 if call is None else not 0 <= call < len(caught):
            raise _CannotRecord(
                f"call must say which of the {len(caught)} calls of layer {layer!r} in a forward pass to record, "
                f"from 0 to {len(caught) - 1}, not {call!r}"
            )
        found = caught[call or 0]
        if found.ndim == 0 or len(found) != len(images):
            raise _CannotRecord(
                f"layer {layer!r} gives a tensor of shape {tuple(found.shape)} for {len(images)} images; its first "
                "dimension must count these: give select= a function that brings it there"
            )
        return found.reshape(len(images), -1)

    return forward


def _selected(output: Any, select: Select, layer: str) -> Tensor:
    came = f"a {type(output).__name__}"
    if isinstance(output, dict):
        came += f" of {', '.join(map(repr, output))}"
    elif isinstance(output, tuple | list):
        came += f" of {len(output)}"
    if callable(select):
        output = select(output)
    elif select is not None:
        if isinstance(output, Tensor):
            raise _CannotRecord(f"layer {layer!r} gives one tensor: leave select={select!r} out, or give a function")
        try:
            output = output[select]
        except (LookupError, TypeError):
            raise _CannotRecord(f"select={select!r} is not in what layer {layer!r} gives, {came}") from None
    if not isinstance(output, Tensor):
        raise _CannotRecord(
            f"layer {layer!r} gives {came}: say with select= which tensor of it to record, by an index, a key or a "
            "function"
        )
    if not output.is_floating_point():
        raise _CannotRecord(f"layer {layer!r} must give real numbers to be recorded, not {output.dtype}")
    return output


def _second_try(forward: Callable[[Tensor], Tensor], images: Tensor, came: Tensor, first: Exception) -> Tensor:
    """Return the response to repeated channels, or raise what was wrong with the images as they came."""
    if images.shape != came.shape:
        try:
            return forward(images)
        except _CannotRecord:
            raise
        except Exception:  # what was wrong at first is told
            pass
    hint = ""
    if came.shape[1] == 3:
        with contextlib.suppress(Exception):
            forward(came[:, :1])
            hint = "; it takes one channel, so load the faces in grey"
    reason = str(first).partition("\n")[0]
    raise ValueError(
        f"the module must take images of shape {tuple(came.shape)}, {came.dtype} on {came.device}, but stopped with "
        f"{type(first).__name__}: {reason}{hint}"
    ) from first


@contextlib.contextmanager
def _undisturbed(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode, attention by its definition and no gradients; afterwards all is as it was."""
    before = {part: dict(vars(part)) for part in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    gpus = [device.index or 0] if device.type == "cuda" else []
    try:
        for part in before:
            part.training = False  # not by eval(), which some modules answer with more than that
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.random.fork_rng(gpus), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, attributes in before.items():
            vars(part).clear()
            vars(part).update(attributes)


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    backends = torch.backends.mkldnn, torch.backends.cudnn
    before = [backend.enabled for backend in backends]
    try:
        for backend in backends:
            backend.enabled = False
        yield
    finally:
        for backend, enabled in zip(backends, before, strict=True):
            backend.enabled = enabled


def kernels_with_a_derivative(
    forward: Callable[[Tensor], Tensor], images: Tensor, along: Tensor, differences: Tensor, error: Tensor
) -> Callable[[], Any] | None:
    """Return the context in which the module has its forward-mode derivative, or None if it has none, or a wrong one.

    A derivative counts as wrong only where it is far from the differences, more than these err by, each unit in parts
    of its own; or where units have none at all, as some that were detached, but differences.
    """
    size = differences.norm(dim=0).clamp(min=1e-6 * differences.abs().max())  # of each unit
    for kernels in (contextlib.nullcontext, _plain_kernels):
        with contextlib.suppress(Exception), kernels():  # whatever torch has to say: the values could be had
            own = derivative.along(forward, images, along)[1].double()
            apart, least = (((own - differences) / size).norm(), (error / size).norm())
            lost = ((own == 0) & (differences.abs() > 30 * error.norm())).all(0).any()
            return None if lost or apart > max(_APART * len(size) ** 0.5, 10 * least) else kernels
    return None


def differences_of(
    forward: Callable[[Tensor], Tensor], turned: Callable[[float], Tensor], step: float
) -> tuple[Tensor, Tensor]:
    """Return the derivative along the turn by central differences, (sample, unit), and its error."""
    far, near = ((forward(turned(h)).double() - forward(turned(-h)).double()) / (2 * h) for h in (step, step / 2))
    return (4 * near - far) / 3, (near - far) / 3


def _close(values: Tensor, others: Tensor, coarse: float) -> bool:
    """Whether two responses differ by rounding alone, theirs or that of what made them."""
    apart, size = ((v.nan_to_num() if v.is_floating_point() else v).abs().amax() for v in (values - others, values))
    return bool(apart <= max(torch.finfo(values.dtype).eps, coarse) ** 0.5 * size)


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, Tensor):
                self.size = max(self.size, one.numel() * one.element_size())
        return made
