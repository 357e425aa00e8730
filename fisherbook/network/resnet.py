"""ResNet-18 below a probe: its weights, and its response and tangent in one pass.

The network is torchvision's `resnet18` without its last layer, as functions on a plain dictionary of tensors with
torchvision's names.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..store import Store, default_store, digest
from .banks import Respond
from .networks import Parameters, generator
from .probes import PREFIX, backbone_of

BACKBONE_LAYERS, FEATURES = ("layer1", "layer2", "layer3", "layer4", "features"), 512
IMAGENET = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
_MEAN, _SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels: what the weights expect
_STATISTICS = ("running_mean", "running_var")  # measured, never trained
_NEEDLESS = re.compile(r"fc\..*|.*\.num_batches_tracked|mean|scale")  # names that weights may have besides


def _shapes() -> dict[str, tuple[int, int, int]]:
    """Return outputs, inputs and kernel size of every convolution by its name."""
    shapes = {"conv1": (64, 3, 7)}
    for layer in range(1, 5):
        units = 32 * 2**layer
        for block in range(2):
            inputs = units if block or layer == 1 else units // 2
            shapes[f"layer{layer}.{block}.conv1"] = units, inputs, 3
            shapes[f"layer{layer}.{block}.conv2"] = units, units, 3
            if inputs < units:
                shapes[f"layer{layer}.{block}.downsample.0"] = units, inputs, 1
    return shapes


CONVOLUTIONS = _shapes()


def _norm(convolution: str) -> str:
    """Return the name of the batch norm that follows a convolution."""
    return convolution.replace("conv", "bn").replace("downsample.0", "downsample.1")


# ---- weights -----------------------------------------------------------------------------------------------------


def draw(random: torch.Generator) -> Parameters:
    """Draw weights as torchvision does: normal with variance 2 / fan-out; batch norms begin as the identity."""
    state = {}
    for name, (units, inputs, kernel) in CONVOLUTIONS.items():
        drawn = torch.randn(units, inputs, kernel, kernel, generator=random)
        state[f"{name}.weight"] = drawn * (2 / (units * kernel**2)) ** 0.5
        for part, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            state[f"{_norm(name)}.{part}"] = torch.full((units,), value)
    return state


def load(weights: str, store: Store | None = None) -> Parameters:
    """Read weights: ``"imagenet"``, the path of a file, or the key of what `train` keeps in the store.

    Raises
    ------
    FileNotFoundError, ValueError, ModuleNotFoundError
        One sentence: what is missing and where to put it, or what does not fit.
    """
    if weights == "imagenet":
        state = _imagenet()
    elif re.fullmatch("[0-9a-f]{64}", weights):
        store = store or default_store()
        piece = store.get("weights", weights, partial(torch.load, weights_only=True, map_location="cpu"), ".pt")
        if piece is None:
            raise ValueError(
                f"weights: there are no trained weights of key {weights} in {store.root}; train them first"
            )
        state = backbone_of(piece["parameters"])
    elif not Path(weights).expanduser().is_file():
        raise FileNotFoundError(
            f"weights must be imagenet, random, a key of trained weights or a file, not {weights!r}"
        )
    else:
        state = _read(Path(weights).expanduser())
    state = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    wanted = draw(torch.Generator())
    wrong = [f"{n} is missing" for n in wanted if n not in state]
    wrong += [f"{n} has the shape {(*state[n].shape,)}, not {(*t.shape,)}" for n, t in wanted.items() if n in state
              and state[n].shape != t.shape]  # fmt: skip
    wrong += [f"it has {n} too" for n in state if n not in wanted and not _NEEDLESS.fullmatch(n)]
    if wrong:
        raise ValueError(f"weights {weights!r} don't fit torchvision's resnet18: {wrong[0]}")
    if odd := [name for name in wanted if not state[name].isfinite().all()]:
        raise ValueError(f"weights {weights!r} hold numbers that are not finite, in {odd[0]}")
    return {name: state[name].float() for name in wanted}


def _read(file: Path) -> Parameters:
    """Read a file's state dict of tensors."""
    if file.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file as read
        except ImportError:
            raise ModuleNotFoundError("weights in a .safetensors file need: pip install safetensors") from None
    else:
        read = partial(torch.load, weights_only=True, map_location="cpu")
    try:
        state = read(file)
    except OSError:
        raise
    except Exception:  # of many kinds, with advice that is not ours to give
        state = None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"weights {str(file)!r} is no file of weights: it must hold a state dict, names and tensors")
    return state


def _imagenet() -> Parameters:
    try:
        return torch.hub.load_state_dict_from_url(
            IMAGENET, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise FileNotFoundError(
            f"ResNet-18's ImageNet weights can't be downloaded ({error}): put the file {IMAGENET} into {folder}, "
            "or name other weights: a file, the key of a backbone trained here, or 'random'"
        ) from error


@dataclass(frozen=True)
class ResNet18:
    """ResNet-18 as a `probes.Backbone`; `weights` as `Network` takes them."""

    weights: str

    layers = BACKBONE_LAYERS
    modules = ("network.resnet",)

    @property
    def random(self) -> bool:  # noqa: D102
        return self.weights == "random"

    @property
    def keyed(self) -> "ResNet18":  # noqa: D102
        file = Path(self.weights).expanduser()
        return ResNet18(digest(np.fromfile(file, np.uint8))) if file.is_file() else self

    def state(self, key: Sequence[int], store: Store | None) -> Parameters:  # noqa: D102
        return draw(generator(*key, "backbone")) if self.random else load(self.weights, store)

    def calibrate(self, state: Parameters, images: Tensor) -> Tensor:  # noqa: D102
        if self.random:
            forward(state, images, training=True, momentum=1.0)
        return forward(state, images)

    def forward(self, state: Parameters, images: Tensor, training: bool = False) -> Tensor:  # noqa: D102
        return forward(state, images, training=training)

    def ready(self, state: Parameters) -> Respond:  # noqa: D102
        return partial(respond, folded(state))

    def trains(self, name: str) -> bool:  # noqa: D102
        return name.rpartition(".")[2] not in _STATISTICS


# ---- response and tangent ----------------------------------------------------------------------------------------

Convolve = Callable[[Tensor, str, int], Tensor]


def _walk(
    x: Tensor, convolve: Convolve, relu: Callable[[Tensor], Tensor], pool: Callable[[Tensor], Tensor], layer: str
) -> Tensor:
    """Carry images through the network to the activity of a layer, with the operations given."""
    x = pool(relu(convolve(x, "conv1", 2)))
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = convolve(relu(convolve(x, f"{name}.conv1", stride)), f"{name}.conv2", 1)
            x = relu(y + (convolve(x, f"{name}.downsample.0", stride) if stride == 2 else x))
        if layer == f"layer{stage}":
            return x.flatten(1)
    return x.mean((2, 3))


def normalised(images: Tensor, tangents: bool = False) -> Tensor:
    """Return what enters the first convolution, (sample, 3, height, width), of images with one or three channels."""
    mean, scale = (images.new_tensor(v)[:, None, None] for v in (_MEAN, _SCALE))
    values = (images if tangents else images - mean) / scale
    return values.to(memory_format=torch.channels_last)


def forward(
    state: Parameters, images: Tensor, layer: str = "features", training: bool = False, momentum: float = 0.1
) -> Tensor:
    """Return a layer's activity (sample, unit), differentiable; `training` takes batch statistics and moves the stored.

    Parameters
    ----------
    state : dict of Tensor
    images : Tensor, shape (sample, channel, height, width)
        Nominally in [0, 1].
    """

    def convolve(x: Tensor, name: str, stride: int) -> Tensor:
        weight, norm = state[f"{name}.weight"], _norm(name)
        mean, var, gain, bias = (state[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        y = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        return F.batch_norm(y, mean, var, gain, bias, training, momentum)

    return _walk(normalised(images), convolve, F.relu, lambda x: F.max_pool2d(x, 3, 2, 1), layer)


def folded(state: Parameters) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each convolution's weight and bias with the batch norm after it folded in; `state` stays as it is."""
    found = {}
    for name in CONVOLUTIONS:
        mean, var, gain, bias = (state[f"{_norm(name)}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        gain = gain * (var + 1e-5).rsqrt()
        weight = state[f"{name}.weight"] * gain[:, None, None, None]
        found[name] = weight.to(memory_format=torch.channels_last), bias - mean * gain
    return found


def respond(
    layers: dict[str, tuple[Tensor, Tensor]], images: Tensor, tangents: Tensor | None = None, layer: str = "features"
) -> tuple[Tensor, Tensor | None]:
    """Return a layer's activity and its derivative along `tangents`, both (sample, unit), in one pass.

    Values and tangents go through each convolution as one stacked batch. Biases are the values' alone, and the values
    say where a rectifier passes and which pixel is largest.

    Parameters
    ----------
    layers : dict
        As from `folded`.
    images, tangents : Tensor, shape (sample, channel, height, width)
    """
    n, alone = len(images), tangents is None
    x = normalised(images) if alone else torch.cat([normalised(images), normalised(tangents, True)])

    def convolve(x: Tensor, name: str, stride: int) -> Tensor:
        weight, bias = layers[name]
        y = F.conv2d(x, weight, bias if alone else None, stride, weight.shape[-1] // 2)
        if not alone:
            y[:n] += bias[:, None, None]
        return y

    def relu(x: Tensor) -> Tensor:
        if not alone:
            x[n:] *= x[:n] > 0
        x[:n].relu_()
        return x

    def pool(x: Tensor) -> Tensor:
        if alone:
            return F.max_pool2d(x, 3, 2, 1)
        values, largest = F.max_pool2d(x[:n], 3, 2, 1, return_indices=True)
        along = x[n:].flatten(2).gather(2, largest.flatten(2)).view_as(values)
        return torch.cat([values, along]).to(memory_format=torch.channels_last)

    with torch.no_grad():
        y = _walk(x, convolve, relu, pool, layer)
    return y[:n], None if alone else y[n:]
