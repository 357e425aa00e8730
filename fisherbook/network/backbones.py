"""A torch module of the reader's own as a backbone."""

import copy
import inspect
import runpy
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import derivative
from ..store import Store, digest
from .banks import Respond
from .modules import differences_of, kernels_with_a_derivative
from .networks import Parameters

_OWN = "module."  # of the names of a module's own weights, beside those of its features' statistics
_LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))  # where packages lie
_OF_CLASSES = {"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__"}
_STEP = 1e-2  # rad; of central differences, half of it for the nearer one


@dataclass(frozen=True)
class TorchBackbone:
    """A module that maps images (sample, channel, height, width) in [0, 1] to features, (sample, ...).

    It is copied as it is, and runs in evaluation mode, also while it is trained: dropout is off, batch norms keep
    their statistics. Parameters that need no gradient are not trained. A normalisation of images belongs into it;
    grey images are repeated for a module whose first convolution takes three channels. Tangents are forward-mode
    derivatives or, where the module lacks them or they are wrong, central differences of the images along their
    tangents, with steps of 0.01 and 0.005 rad, extrapolated.

    Attributes
    ----------
    name : str
        The module's class.
    contents : str
        Digest of its structure, source and weights.
    """

    name: str
    contents: str
    module: torch.nn.Module = field(compare=False, repr=False)

    modules = ("network.backbones",)
    random = False

    @classmethod
    def of(cls, module: torch.nn.Module) -> "TorchBackbone":
        """Return a module as a backbone; a ValueError names weights that are not finite."""
        module = copy.deepcopy(module).float().eval()
        if odd := [name for name, tensor in module.state_dict().items() if not tensor.isfinite().all()]:
            raise ValueError(f"backbone must have finite weights, but {odd[0]} holds NaN or an infinity")
        return cls(type(module).__name__, digest(_known(module, {})), module)

    @property
    def keyed(self) -> "TorchBackbone":  # noqa: D102
        return self

    @property
    def layers(self) -> tuple[str, ...]:  # noqa: D102
        return (*(f"backbone.{name}" for name, _ in self.module.named_modules() if name), "features")

    def state(self, key: Sequence[int], store: Store | None) -> Parameters:  # noqa: D102
        named = (*self.module.named_parameters(), *self.module.named_buffers())
        return {_OWN + name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}

    def trains(self, name: str) -> bool:  # noqa: D102
        return any(name == _OWN + own and tensor.requires_grad for own, tensor in self.module.named_parameters())

    def calibrate(self, state: Parameters, images: Tensor) -> Tensor:  # noqa: D102
        try:
            return self.forward(state, images)
        except Exception as error:
            came = f"(sample, {', '.join(map(str, images.shape[1:]))})"
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ValueError(
                f"backbone must map images of shape {came} to one tensor, but stopped with {reason}"
            ) from error

    def forward(  # noqa: D102
        self, state: Parameters, images: Tensor, training: bool = False, layer: str = "features"
    ) -> Tensor:
        module, caught = self.module, []
        first = next((p for p in module.parameters() if p.ndim == 4), None)
        if first is not None and first.shape[1] == 3 and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        below = module if layer == "features" else module.get_submodule(layer.partition(".")[2])
        hook = below.register_forward_hook(lambda _module, _inputs, output: caught.append(output.clone()))
        try:
            own = {n: b.to(images.device) for n, b in module.named_buffers() if not b.is_floating_point()}
            own |= {name.removeprefix(_OWN): tensor for name, tensor in state.items() if name.startswith(_OWN)}
            torch.func.functional_call(module, own, (images,))
        finally:
            hook.remove()
        return caught[-1].reshape(len(images), -1)

    def ready(self, state: Parameters) -> Respond:  # noqa: D102
        return partial(self._respond, state)

    def _respond(
        self, state: Parameters, images: Tensor, tangents: Tensor | None = None, layer: str = "features"
    ) -> tuple[Tensor, Tensor | None]:
        def at(shown: Tensor) -> Tensor:
            return self.forward(state, shown, layer=layer)

        with torch.no_grad():
            if tangents is None:
                return at(images), None
            few, along = images[:4], tangents[:4]
            checked = differences_of(at, lambda h: few + h * along, _STEP)
            if kernels := kernels_with_a_derivative(at, few, along, *checked):
                with kernels():
                    return derivative.along(at, images, tangents)
            return at(images), differences_of(at, lambda h: images + h * tangents, _STEP)[0].to(images.dtype)


def read(file: str | Path) -> torch.nn.Module:
    """Return what the function ``backbone()`` of a Python file returns, a module; the file's text becomes part of it.

    Raises
    ------
    FileNotFoundError, ValueError
        One sentence: there is no such file, it fails, or it has no function that returns a module.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(file)!r} whose function backbone() returns a torch module")
    try:
        module = runpy.run_path(str(path)).get("backbone", lambda: None)()
    except Exception as error:
        raise ValueError(f"{path.name} stopped with {type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"{path.name} must have a function backbone() that returns a torch module")
    module.text_of_file = path.read_text(encoding="utf-8")  # what its numbers are known by
    return module


def features(module: torch.nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a module's features (image, number) of upright images (image, channel, height, width) in [0, 1]."""
    own = TorchBackbone.of(module)
    return own.ready(own.state((), None))(torch.as_tensor(images), None, "features")[0].numpy()


def first(module: torch.nn.Module) -> str:
    """Return the layer of a module's first part with weights, as `Network.layers` has it; its features if it is one."""
    named = (name for name, part in module.named_modules() if name and [*part.parameters(recurse=False)])
    return next((f"backbone.{name}" for name in named), "features")


def _known(value: Any, seen: dict[int, tuple[int, Any]]) -> Any:
    """Return what decides what a value does: contents, code and all that this names; of libraries the name alone."""
    if isinstance(value, np.ndarray | Tensor):
        return value
    if value is None or isinstance(
        value, int | float | complex | str | bytes | np.generic | torch.dtype | torch.device
    ):
        return repr(value)
    if id(value) in seen:
        return {"again": seen[id(value)][0]}
    seen[id(value)] = len(seen), value
    code, parts = getattr(value, "__code__", None), []
    if isinstance(value, CodeType):
        parts = [value.co_code.hex(), value.co_names, value.co_consts]
    elif isinstance(value, set | frozenset):
        parts = [sorted(map(repr, value))]
    elif isinstance(value, Mapping):
        parts = [each for item in value.items() for each in item]
    elif isinstance(value, list | tuple):
        parts = list(value)
    elif isinstance(value, MethodType):
        parts = [value.__func__, value.__self__]
    elif isinstance(value, ModuleType | BuiltinFunctionType) or _of_library(value):
        return f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}"
    elif code:
        names = inspect.getclosurevars(value)
        parts = [code, value.__defaults__, value.__kwdefaults__, names.nonlocals, names.globals]
    elif isinstance(value, type):
        parts = [value.__bases__, {n: v for n, v in vars(value).items() if n not in _OF_CLASSES}]
    elif isinstance(value, staticmethod | classmethod | property):
        parts = [getattr(value, "__func__", None), getattr(value, "fget", None)]
    elif hasattr(value, "__dict__"):
        parts = [type(value), {n: v for n, v in vars(value).items() if n != "training"}]
    else:
        raise ValueError(f"backbone holds a {type(value).__name__}, of which cannot be told what it does")
    return [type(value).__name__, *(_known(part, seen) for part in parts)]


def _of_library(value: Any) -> bool:
    """Whether a function or class is one of an installed package, or of Python itself."""
    if not isinstance(value, type | FunctionType):
        return False
    module = sys.modules.get(value.__module__)
    return value.__module__ == "builtins" or str(getattr(module, "__file__", "")).startswith(_LIBRARIES)
