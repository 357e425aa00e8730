"""How fast fisherbook measures and trains, against what the same machine could do: reports, never asserts.

Numbers that are compared come from one run, take turns with each other, and are medians of the calmer half of
the turns. Each part runs in a process of its own, so that its peak memory is its own.
`--quick` shrinks everything, to see that it runs; its numbers mean nothing.
"""

import argparse
import json
import multiprocessing
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import fisherbook as fb
from fisherbook.network import networks
from fisherbook.network import resnet as backbone
from fisherbook.network import training as training_module
from fisherbook.store import Store

ANGLES, REPLICATES, BATCH = 360, 8, 128
AT_A_TIME = 12  # runs of what measures the machine
NETWORK = fb.Network(hidden=(60, 20))


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    part: str
    what: str
    value: float
    unit: str
    target: str = ""
    note: str = ""


@dataclass(frozen=True)
class Size:
    """How much is done: the full benchmark, or a fraction of it that only shows that it runs."""

    quick: bool = False
    repeats: int = 5
    device: str = "cpu"

    def of(self, full: int, quick: int) -> int:
        return quick if self.quick else full


# ---- timing ------------------------------------------------------------------------------------------------


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def elsewhere() -> float:
    """Return the processor seconds that other processes, but those started and ended here, have used so far."""
    used, own = psutil.cpu_times(), psutil.Process().cpu_times()
    here = time.process_time() + own.children_user + own.children_system
    return used.user + used.system + getattr(used, "nice", 0) - here


def medians(repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Time calls in turns, after one untimed turn, and return the median seconds of each.

    Of the turns of a call, the half during which the machine did least else is counted; `disturbed` is the
    share of the processors that other work took even then, averaged over calls.
    """
    taken = {name: [] for name in calls}
    progress = tqdm(total=(repeats + 1) * len(calls), leave=False, bar_format="{n}/{total} {postfix}")
    for _ in range(repeats + 1):
        for name, call in calls.items():
            progress.set_postfix_str(name)
            before = elsewhere()
            time_taken = seconds(call)
            taken[name].append(((elsewhere() - before) / time_taken / psutil.cpu_count(), time_taken))
            progress.update()
    progress.close()
    calm = {name: sorted(turns[1:])[: (repeats + 1) // 2] for name, turns in taken.items()}
    found = {name: statistics.median(t for _, t in turns) for name, turns in calm.items()}
    return found | {"disturbed": statistics.mean(share for turns in calm.values() for share, _ in turns)}


def disturbance(part: str, taken: dict[str, float]) -> Row:
    note = "of the processors, by other programs" + ("; take no number seriously" if taken["disturbed"] > 0.1 else "")
    return Row(part, "disturbed", 100 * max(taken["disturbed"], 0), "%", "", note)


def machine_calls(size: Size) -> dict[str, Callable[[], object]]:
    """Return what measures the machine: it takes turns with whatever is compared to its rates."""
    single = torch.rand(2 * (size.of(1536, 128),), device=size.device)
    array = torch.ones(size.of(2**25, 2**18), device=size.device)  # 128 MiB, beyond most caches
    double = single.double()
    copied = torch.empty_like(array)
    calls = lambda: single @ single, lambda: double @ double, lambda: copied.copy_(array)
    names = "float32 product", "float64 product", "copy"
    # as long as what is compared to them, lest other work on the machine disturb only the longer
    return {name: lambda call=call: [call() for _ in range(AT_A_TIME)] for name, call in zip(names, calls, strict=True)}


def machine_rates(size: Size, taken: dict[str, float]) -> tuple[float, float, float]:
    """Return float32 and float64 operations, and bytes read and written, per second."""
    flops, moved = 2 * size.of(1536, 128) ** 3, 2 * 4 * size.of(2**25, 2**18)
    single, double, copy = (taken[n] / AT_A_TIME for n in ("float32 product", "float64 product", "copy"))
    return flops / single, flops / double, moved / copy


def machine(size: Size) -> list[Row]:
    taken = medians(2 * size.repeats, **machine_calls(size))
    single, double, copy = machine_rates(size, taken)
    return [
        Row("machine", "threads", torch.get_num_threads(), ""),
        Row("machine", "float32 matrix product", single / 1e9, "GFLOP/s"),
        Row("machine", "float64 matrix product", double / 1e9, "GFLOP/s"),
        Row("machine", "copy, read + written", copy / 1e9, "GB/s"),
        disturbance("machine", taken),
    ]


# ---- 1. measuring a network --------------------------------------------------------------------------------


def study(
    folder: str, steps: int = 1, replicates: int | list[int] = REPLICATES, stimulus=None, device: str = "cpu"
) -> tuple:
    """Return faces at 64 px and an ensemble trained on them, in an empty store."""
    stimulus = stimulus or fb.Stimulus(fb.load_faces("orl", parts={"train": 0.8, "test": 0.2}))
    stage = fb.Stage("uniform", fb.uniform(), steps=steps, batch=BATCH)
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        return stimulus, fb.train(
            stimulus, NETWORK, [stage], replicates, device=device, store=Store(Path(empty)), progress=False
        )


def baseline(stimulus: fb.Stimulus, weights: dict[str, Tensor], faces: np.ndarray) -> Callable:
    """Return θ ↦ the derivative of one replicate's activity for all faces, (face, unit), and that activity.

    It renders and computes as the package does, image by image, and is differentiated by `jacfwd`.
    """
    operator = stimulus._operator(weights["hidden1.weight"].dtype, "cpu")
    spectrum = torch.view_as_complex(operator.spectrum[torch.from_numpy(faces)].to(operator.dtype))[:, 0]

    def activity(theta: Tensor) -> tuple[Tensor, Tensor]:
        turned = spectrum * torch.exp(-1j * theta * operator.orders).to(spectrum.dtype)
        real = torch.view_as_real(turned).flatten(-2)
        pixels = torch.cat([real[:, ring : ring + 2].flatten(1) @ block for ring, *_, block in operator.blocks], 1)
        found = NETWORK.onward(weights, NETWORK.first(weights, pixels[None]))[0]
        return found, found

    return torch.func.jacfwd(activity, has_aux=True)


def tangent(size: Size) -> list[Row]:
    part, angles, at_a_time = "tangent", size.of(ANGLES, 12), 4  # 20 calls in 5 turns
    with tempfile.TemporaryDirectory() as folder:
        stimulus, ensemble = study(folder)
    faces = stimulus.faces.split("test")

    def one_by_one(dtype: torch.dtype) -> Callable[[], list[tuple[Tensor, Tensor]]]:
        weights = {name: tensor.to(dtype) for name, tensor in ensemble["uniform"].items()}
        one = [baseline(stimulus, {n: t[r : r + 1] for n, t in weights.items()}, faces) for r in range(at_a_time)]
        where = torch.from_numpy(fb.grid(at_a_time)).to(dtype)
        return torch.no_grad()(lambda: [call(theta) for call, theta in zip(one, where, strict=True)])

    calls = {
        "record and estimate": lambda: fb.estimate(fb.record(ensemble, stimulus, angles, "test")),
        "jacfwd": one_by_one(torch.float64),
        "jacfwd in float32": one_by_one(torch.float32),
    }
    taken = medians(size.repeats, **calls)
    found, slopes = calls["jacfwd"]()[0][0], fb.record(ensemble, stimulus, at_a_time, "test").whole()[1][0, 0]
    apart = float((found - slopes).abs().max() / slopes.abs().max())
    total = taken["record and estimate"]
    rows = [Row(part, "record and estimate", total, "s", "< 1", f"{angles} angles x {len(faces)} faces x {REPLICATES}")]
    for name in ("jacfwd", "jacfwd in float32"):
        whole = taken[name] / at_a_time * angles * REPLICATES
        note = f"{angles * REPLICATES} calls, from {at_a_time * size.repeats}"
        rows.append(Row(part, f"baseline: {name}", whole, "s", "", note))
        rows.append(Row(part, f"speed over {name}", whole / total, "x", ">= 20" if name == "jacfwd" else ""))
    rows.append(Row(part, "derivatives differ by", apart, "", "", "relative to the largest"))
    return [*rows, disturbance(part, taken)]  # fmt: skip


# ---- 2. training -------------------------------------------------------------------------------------------


def arithmetic(stimulus: fb.Stimulus, samples: int) -> float:
    """Count the operations of one step's matrix products, for `samples` over all replicates."""
    pixels = len(stimulus.aperture)
    # each pixel lies between two rings, of M + 1 complex coefficients each
    synthesis = 2 * samples * pixels * 2 * 2 * (stimulus.orders + 1)
    sizes = (pixels, *NETWORK.hidden, 2)
    products = [2 * samples * inputs * units for inputs, units in pairwise(sizes)]
    # forward, the weights' gradient, and, but for the first layer, the gradient carried back to the inputs
    return synthesis + 3 * sum(products) - products[0]


def traffic(stimulus: fb.Stimulus, samples: int, weights: dict[str, Tensor]) -> float:
    """Count the bytes (float32) that one step must move; hidden activity stays in caches, for nothing."""
    _, channels, rings, orders = stimulus.spectrum.shape
    spectra = samples * channels * rings * orders * 8  # gathered: read once, complex
    images = samples * channels * len(stimulus.aperture) * 4
    parameters = sum(tensor.nbytes for tensor in weights.values())
    return (
        spectra
        + 3 * images  # written; read by the first layer and by its weights' gradient
        + parameters  # read by the forward pass
        + parameters  # their gradients written
        + 4 * parameters  # Adam reads weights, gradients and two moments
        + 3 * parameters  # and writes weights and two moments
    )


def training(size: Size) -> list[Row]:
    part, steps, samples = "training", size.of(64, 4), REPLICATES * BATCH
    with tempfile.TemporaryDirectory() as folder:
        stimulus, ensemble = study(folder)

        def run(steps: int, ensembles: list, threads: int = training_module._ONE_THREAD) -> Callable[[], None]:
            def call() -> None:
                with patch.object(training_module, "_ONE_THREAD", threads):
                    for replicates in ensembles:
                        study(folder, steps, replicates, stimulus, size.device)

            return call

        alone = [[r] for r in range(size.of(REPLICATES, 2))]
        ways = {
            "together": run(steps, [REPLICATES]),
            "in sequence": run(steps, alone),
            "in sequence, all threads": run(steps, alone, 0),
        }
        ends = {"ends of together": run(1, [REPLICATES]), "ends of sequence": run(1, alone)}
        taken = medians(size.repeats, **ways, **ends, **machine_calls(size))
    single, _, copy = machine_rates(size, taken)
    flops, moved = arithmetic(stimulus, samples), traffic(stimulus, samples, ensemble["uniform"])
    bound = flops / single + moved / copy
    # what one more step costs, without initialising and storing, of which long training has no more
    each = {
        name: (taken[name] - taken["ends of " + ("together" if name == "together" else "sequence")]) / (steps - 1)
        for name in ways
    }
    together, sequence = each["together"], min(each["in sequence"], each["in sequence, all threads"])
    work = f"{flops / 1e9:.2f} GFLOP at {single / 1e9:.0f} GFLOP/s"
    carried = f"{moved / 1e6:.0f} MB at {copy / 1e9:.1f} GB/s"
    note = f"a step of {REPLICATES} x {BATCH}, from {steps}"
    return [
        *(Row(part, name, taken * 1e3, "ms", "", note) for name, taken in each.items()),
        Row(part, "speed over sequence at its best", sequence / together, "x", ">= 1.2"),
        Row(part, "bound: arithmetic", flops / single * 1e3, "ms", "", work),
        Row(part, "bound: memory", moved / copy * 1e3, "ms", "", carried),
        Row(part, "share of the bound reached", 100 * bound / together, "%", ">= 50"),
        disturbance(part, taken),
    ]


# ---- 3. a large activity -----------------------------------------------------------------------------------


@dataclass
class Synthetic:
    """Activity r = noise + slope sin θ, made angle by angle when asked for."""

    angles: np.ndarray
    noise: Tensor  # (replicate, face, unit)
    slope: Tensor  # of the same shape
    identity: np.ndarray | None = None
    attrs: dict = field(default_factory=dict)

    @property
    def replicate(self) -> np.ndarray:
        return np.arange(len(self.noise))

    def chunks(self, tangents: bool = True) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        for k, angle in enumerate(self.angles):
            slopes = (self.slope * np.cos(angle))[:, None] if tangents else None
            yield slice(k, k + 1), (self.noise + self.slope * np.sin(angle))[:, None], slopes

    def shifted(self, offset: float) -> "Synthetic":
        return replace(self, angles=self.angles + offset)

    def decoded(self) -> "Synthetic":
        return replace(self, noise=self.noise[..., :1] / 10, slope=torch.ones_like(self.slope[..., :1]))


def synthetic(angles: int, replicates: int, faces: int, units: int, people: int | None = None) -> Synthetic:
    random = torch.Generator().manual_seed(0)
    shape = (replicates, faces, units)
    noise = torch.randn(shape, generator=random, dtype=torch.float64)
    slope = 1 + torch.randn(shape, generator=random, dtype=torch.float64) / 2
    identity = people and np.tile(np.arange(faces) % people, (replicates, 1))
    return Synthetic(fb.grid(angles), noise, slope, identity)


def matrices(size: Size) -> list[Row]:
    part, faces, units, angles = "matrices", size.of(1000, 60), size.of(512, 20), size.of(6, 2)
    activity = synthetic(angles, REPLICATES, faces, units)

    def read() -> None:
        for _ in activity.chunks():
            pass

    taken = medians(size.repeats, tangent=lambda: fb.estimate(activity), reading=read, **machine_calls(size))
    reading = taken["reading"] / angles * ANGLES
    whole = taken["tangent"] / angles * ANGLES - reading
    _, double, _ = machine_rates(size, taken)
    matrix = faces * units**2 * ANGLES * REPLICATES
    least = 2 * matrix + matrix  # the covariance's product, and the solve that whitens the responses
    # the Cholesky factor, the derivatives' solve, and their covariance for the correction and the error
    every = least + matrix * units / faces / 3 + matrix + 2 * matrix
    note = f"{ANGLES} angles, from {angles}; {faces} faces x {units} units x {REPLICATES}"
    return [
        Row(part, "tangent, without reading", whole, "s", note=note),
        Row(part, "reading: making the activity", reading, "s"),
        Row(part, "covariance and solve alone", least / double, "s", note=f"{least / 1e9:.0f} GFLOP"),
        Row(part, "tangent over these", whole * double / least, "x", "<= 3"),
        Row(part, "all of its matrix products alone", every / double, "s", note=f"{every / 1e9:.0f} GFLOP"),
        Row(part, "tangent over all of them", whole * double / every, "x", "<= 3"),
        disturbance(part, taken),
    ]


# ---- 4. the estimators -------------------------------------------------------------------------------------


def estimators(size: Size) -> list[Row]:
    faces, angles, few = size.of(200, 60), size.of(30, 10), 2
    whole, part = (synthetic(n, 1, faces, 20, people=faces // 2) for n in (angles, few))

    def call(name: str, activity: Synthetic) -> Callable[[], object]:
        step = {"delta": 0.1} if fb.ESTIMATORS[name].needs == "pair" else {}
        return lambda: fb.estimate(activity, estimator=name, **step)

    names = [name for name in fb.ESTIMATORS if name != "pooled"]  # which needs other trials at every angle
    # a pair estimator that would take seconds is extrapolated: it works angle by angle
    slow = {
        name for name in names if fb.ESTIMATORS[name].needs == "pair" and seconds(call(name, part)) * angles / few > 3
    }
    taken = medians(size.repeats, **{n: call(n, part if n in slow else whole) for n in names})
    note = f"{angles} angles x {faces} faces x 20 units, {faces // 2} people"
    rows = [Row("estimators", "tangent", taken["tangent"] * 1e3, "ms", "", note)]
    for name in names:
        ratio = taken[name] / taken["tangent"] * (angles / few if name in slow else 1)
        extrapolated = f"from {few} angles" if name in slow else ""
        rows.append(Row("estimators", f"{name} over tangent", ratio, "x", "", extrapolated))
    return [*rows, disturbance("estimators", taken)]


COLD = """
import numpy as np, fisherbook as fb
angles = np.repeat(fb.grid(12), 100)
responses = np.random.default_rng(0).normal(size=(1200, 20)) + np.cos(angles)[:, None]
fb.estimate(responses, angles=angles, estimator="smoothed")
"""


def recordings(size: Size) -> list[Row]:
    """Time what someone with a recording and no network waits for."""

    def trials(units: int, angles: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
        shown = np.tile(fb.grid(angles), repeats)
        return fb.calibration.draw_trials(fb.calibration.population_code(units, "gain"), shown, seed=0), shown

    (large, at), (small, places) = trials(size.of(200, 20), size.of(36, 12), size.of(30, 10)), trials(20, 12, 100)
    calls = {
        "pooled": lambda: fb.estimate(large, angles=at, estimator="pooled"),
        "smoothed": lambda: fb.estimate(small, angles=places, estimator="smoothed"),
        "imported and estimated": lambda: subprocess.run([sys.executable, "-c", COLD], check=True),
    }
    taken = medians(size.repeats, **calls)
    targets, shapes = (
        ("<= 5", "<= 0.2", "<= 2"),
        [f"{len(x)} trials x {x.shape[1]} units" for x in (large, small, small)],
    )
    rows = [Row("recordings", n, taken[n], "s", *more) for n, *more in zip(calls, targets, shapes, strict=True)]
    return [*rows, disturbance("recordings", taken)]


# ---- 5. a large network ------------------------------------------------------------------------------------


def resnet(size: Size) -> list[Row]:
    part, pixels, batch = "resnet", size.of(64, 16), size.of(64, 2)
    random = networks.generator(0)
    layers = {n: tuple(t.to(size.device) for t in v) for n, v in backbone.folded(backbone.draw(random)).items()}
    images, tangents = (torch.rand(batch, 1, pixels, pixels, generator=random).to(size.device) for _ in range(2))
    ways = {
        "response": lambda: backbone.respond(layers, images),
        "response and tangent": lambda: backbone.respond(layers, images, tangents),
    }
    taken = medians(size.repeats, **ways, **machine_calls(size))
    single, _, _ = machine_rates(size, taken)
    with FlopCounterMode(display=False) as counter:
        ways["response"]()
    flops, note = counter.get_total_flops(), f"{batch} images of {pixels} px, batch norm folded"
    return [
        *(Row(part, name, taken[name] * 1e3, "ms", "", note) for name in ways),
        Row(part, "response, of the matrix rate", 100 * flops / taken["response"] / single, "%", ">= 55"),
        Row(part, "both over the response", taken["response and tangent"] / taken["response"], "x", "<= 2.6"),
        disturbance(part, taken),
    ]


# ---- 6. probes on a frozen network's bank --------------------------------------------------------------------


def probes(size: Size) -> list[Row]:
    part, steps, few, conditions, replicates = "probes", 500, size.of(60, 2), 4 * 3, size.of(16, 2)
    faces, angles = size.of(100, 40), size.of(24, 4)
    stimulus = fb.Stimulus(fb.load_faces("orl", size.of(64, 16), limit=faces, split_by="image"))
    network = fb.Network("resnet18", weights="random", bank=angles)
    with tempfile.TemporaryDirectory() as folder:
        bank = fb.FeatureBank(stimulus, network, device=size.device, store=Store(Path(folder, "bank")))
        built = seconds(lambda: bank.pixels(torch.tensor([0]), torch.tensor([0.0])))

        def train(steps: int) -> fb.Ensemble:
            stage = fb.Stage("focused", fb.von_mises(0.0, 3.0), steps=steps)
            with tempfile.TemporaryDirectory(dir=folder) as empty:
                options = {"device": size.device, "store": Store(empty), "progress": False}
                return fb.train(bank, network, [stage], replicates, **options)

        ensemble = train(1)
        calls = {
            "training": lambda: train(few),
            "ends": lambda: train(1),
            "measuring": lambda: [fb.estimate(fb.record(ensemble, bank, angles, s)) for s in ("train", "test")],
        }
        taken = medians(size.repeats, **calls)
    each = taken["ends"] + (steps - 1) * (taken["training"] - taken["ends"]) / (few - 1)
    whole = conditions * (each + taken["measuring"])
    note = f"{replicates} x 4 losses x 3 densities, {steps} steps of 32, {angles} angles; from {few} steps of one"
    return [
        Row(part, "building the bank", built, "s", "", f"{faces} faces x {angles} angles"),
        Row(part, "a study once the bank exists", whole, "s", "<= 180", note),
        disturbance(part, taken),
    ]


# ---- 7. very many faces --------------------------------------------------------------------------------------


def many(size: Size) -> list[Row]:
    part, count, pixels = "many", size.of(200_000, 40), size.of(64, 16)
    with tempfile.TemporaryDirectory() as folder:
        shape = (count, 1, pixels, pixels)
        images = np.lib.format.open_memmap(Path(folder, "faces.npy"), "w+", np.uint8, shape)
        rng = np.random.default_rng(0)
        for start in range(0, count, 10_000):
            images[start : start + 10_000] = rng.integers(0, 256, (min(10_000, count - start), *shape[1:]), np.uint8)
        order = np.arange(count)
        split = {"train": (order[: count * 7 // 10],), "test": (order[-size.of(500, 8) :],)}
        stimulus = fb.Stimulus(fb.Faces(images, "noise", parts=split), orders=size.of(30, 4))
        stage, store = fb.Stage("uniform", fb.uniform(), steps=size.of(20, 2)), Store(Path(folder, "store"))
        taken = {}
        for name, network in {
            "small": NETWORK,
            "frozen": None,
            "fine-tuned": fb.Network("resnet18", weights="random", backbone="finetuned"),
        }.items():
            if network is None:  # one piece of a bank, of which there are as many as the faces need
                network = fb.Network("resnet18", weights="random", bank=4)
                bank = fb.FeatureBank(stimulus, network, device="cpu", store=store)
                bank._each = size.of(500, 4)
                taken[name] = seconds(lambda bank=bank: bank._build(0, [""]))
                continue
            train = partial(fb.train, stimulus, network, [stage], 2, device="cpu", store=store, progress=False)
            few = stimulus.faces.split("test")
            taken[name] = seconds(lambda t=train, f=few: fb.estimate(fb.record(t(), stimulus, 4, f)))
    note = f"{count} faces of {pixels} px in a file; peak memory below"
    return [Row(part, f"{name}: a little of everything", each, "s", "", note) for name, each in taken.items()]


# ---- 8. Dask's workers ---------------------------------------------------------------------------------------


def workers(size: Size) -> list[Row]:
    from distributed import LocalCluster

    part, grid, steps = "workers", {"kappa": [0.5, 1.0, 2.0, 4.0]}, size.of(1500, 2)
    with tempfile.TemporaryDirectory() as folder:

        def condition(kappa: float) -> object:
            faces = fb.load_faces("gratings", size=16, limit=60)
            store = Store(tempfile.mkdtemp(dir=folder))
            options = {"replicates": 4, "angles": 36, "device": "cpu", "store": store, "progress": False}
            stages = [fb.Stage("focused", fb.von_mises(0.0, kappa), steps=steps)]
            return fb.measure(fb.Stimulus(faces), fb.Network(hidden=(60, 20)), stages, **options)

        taken, alone = {}, {"threads_per_worker": 1, "env": {"OMP_NUM_THREADS": "1"}, "dashboard_address": None}
        for count in (1, 2):
            with LocalCluster(n_workers=count, **alone) as cluster:
                run = partial(fb.sweep, condition, grid, cluster.scheduler_address)
                run()  # imports
                turns = size.of(3, 1)
                taken[count] = statistics.median(seconds(run) for _ in range(turns))
    note = f"{len(grid['kappa'])} conditions of {steps} steps"
    return [
        *(Row(part, f"{count} worker{'s' * (count > 1)}", each, "s", "", note) for count, each in taken.items()),
        Row(part, "two over one", taken[1] / taken[2], "x", ">= 1.6", f"{psutil.cpu_count()} processors"),
    ]


# ---- 9. the earlier work's procedure -------------------------------------------------------------------------

CURVE, SHOWN, DELTA = 48, 1000, 0.03  # angles of a curve, faces, and the earlier work's step (rad)
ESTIMANDS = {
    "earlier": "(d'/delta)^2 of robust mean and covariance of the bulk of faces, neither corrected for their noise",
    "robust": "the package's own, of the faces that are outliers on neither side; on the same pairs, corrected",
    "tangent": "linear information of all faces, tails included",
    "decoded": "(1 + b')^2 / Var of the reported angle, large errors included",
}


def varied(pixels: int, photographs: int | None) -> fb.Faces:
    """Return ORL's photographs cut at five places, two of them mirrored; every second photograph is for testing."""
    margin = pixels // 16
    upright = fb.load_faces("orl", pixels + 2 * margin, limit=photographs, split_by="image").images
    corners = [(margin, margin), (0, 0), (0, 2 * margin), (2 * margin, 0), (2 * margin, 2 * margin)]
    cut = [upright[..., y : y + pixels, x : x + pixels] for y, x in corners]
    images = np.concatenate([*cut[:3], *(c[..., ::-1] for c in cut[3:])])
    photograph = np.tile(np.arange(len(upright)), len(cut))
    parts = {name: (np.flatnonzero(photograph % 2 == k),) for k, name in enumerate(("train", "test"))}
    return fb.Faces(images, "orl", parts=parts)  # of nobody known: taken for independent


def trained(network: fb.Network, stimulus: fb.Stimulus, steps: int, batch: int) -> fb.Ensemble:
    stage = fb.Stage("uniform", fb.uniform(), steps=steps, batch=batch)
    with tempfile.TemporaryDirectory() as folder:
        return fb.train(stimulus, network, [stage], 1, device="cpu", store=Store(Path(folder)), progress=False)


def plugin(sides: np.ndarray) -> float:
    """Return the earlier work's estimate from outputs (side, face, output), by scikit-learn's FAST-MCD."""
    from sklearn.covariance import MinCovDet

    minus, plus = (MinCovDet(random_state=0).fit(side) for side in sides)
    slope = (plus.location_ - minus.location_) / DELTA
    return float(slope @ np.linalg.solve((minus.covariance_ + plus.covariance_) / 2, slope))


def by_halves(estimate: Callable[[np.ndarray], np.ndarray], faces: int, turns: int) -> tuple[float, float]:
    """Return an estimate (angle,) of all faces, and its relative standard error: medians over angles.

    The error is half the root mean square difference of disjoint halves of the faces: it holds no bias.
    """
    random, squares = np.random.default_rng(0), []
    for _ in range(turns):
        half, other = np.array_split(random.permutation(faces), 2)
        squares.append((estimate(half) - estimate(other)) ** 2 / 4)
    value = estimate(np.arange(faces))
    return float(np.median(value)), float(np.median(np.mean(squares, 0) ** 0.5 / abs(value)))


def procedures(size: Size, sides: Tensor, activity: fb.Activity) -> dict[str, tuple[float, float]]:
    """Return information (rad^-2) and its relative standard error by each procedure.

    `sides` are the outputs (angle, side, face, output) of the earlier work's pairs, `activity` is ours.
    """
    activity, at = activity.held(2**30), activity.angles  # tangent and decoded take the same pass
    (responses, slopes), (reported, turned) = ((v[0] for v in a.whole()) for a in (activity, activity.decoded()))

    def ours(estimator: str, *arguments: Tensor, **options: object) -> np.ndarray:
        return fb.estimate(*arguments, angles=at, estimator=estimator, **options).fisher_information.values

    ways = {
        "earlier": lambda k: np.array([plugin(pair) for pair in sides[:, :, k].numpy()]),
        "robust": lambda k: ours("robust", sides[:, :, k], delta=DELTA),
        "tangent": lambda k: ours("tangent", responses[:, k], tangents=slopes[:, k]),
        "decoded": lambda k: ours("decoded", estimates=reported[:, k, 0], tangents=turned[:, k, 0]),
    }
    turns = {"earlier": size.of(4, 1), "robust": size.of(2, 1)}  # the others take milliseconds
    return {name: by_halves(way, responses.shape[1], turns.get(name, size.of(100, 2))) for name, way in ways.items()}


def compared(
    name: str, each: dict[str, float], found: dict[str, tuple[float, float]], bound: float, target: str, notes: dict
) -> list[Row]:
    """Return the rows of one network, from seconds per angle and from information and error at `SHOWN` faces."""

    def row(what: str, *rest: object) -> Row:
        return Row("headline", f"{name}: {what}", *rest)

    told = {"earlier": "earlier work", "tangent": "tangent", "decoded": "decoded", "robust": "robust"}
    each = each | {"earlier": each["images"] + each["MCD"]}
    whole = {n: CURVE * each[n] * (found[n][1] / 0.01) ** 2 for n in ("earlier", "tangent", "decoded")}
    return [
        row("earlier work's images and outputs", each["images"] * 1e3, "ms/angle", "", notes["images"]),
        row("earlier work's MCD, two sides", each["MCD"] * 1e3, "ms/angle", "", notes["MCD"]),
        *(row(told[n], each[n] * 1e3, "ms/angle", "", notes["ours"]) for n in ("tangent", "decoded")),
        *(row(f"information, {told[n]}", found[n][0], "rad^-2", "", ESTIMANDS[n]) for n in found),
        *(row(f"standard error, {told[n]}", 100 * found[n][1], "%", "", notes["error"]) for n in found),
        *(row(f"curve to 1 %, {told[n]}", time_taken, "s", "", notes["curve"]) for n, time_taken in whole.items()),
        row("earlier work over tangent", whole["earlier"] / whole["tangent"], "x", target, "to equal relative error"),
        row("earlier work over decoded", whole["earlier"] / whole["decoded"], "x", "", "to equal relative error"),
        row("of which cost alone, over tangent", each["earlier"] / each["tangent"], "x", "", "with the same faces"),
        row("bound: one pass per face", bound * 1e3, "ms/angle", "", notes["bound"]),
        row("share of the bound reached by tangent", 100 * bound / each["tangent"], "%", "", notes["share"]),
    ]


def headline(size: Size) -> list[Row]:
    """Time to equal relative standard error of one curve, against the earlier work's procedure.

    That takes the two outputs for 1,000 faces turned anew by half a step each way, finds robust means and covariances
    by the minimum covariance determinant, and puts these into d' Sigma^-1 d / delta^2.
    """
    part, pixels, shown = "headline", size.of(64, 16), size.of(SHOWN, 100)
    product = {"float32 product": machine_calls(size)["float32 product"]}
    work = AT_A_TIME * 2 * size.of(1536, 128) ** 3
    faces = varied(pixels, size.of(400, 40))
    stimulus, turned = fb.Stimulus(faces), fb.Stimulus(faces, "bilinear")
    seen, pair = torch.from_numpy(faces.split("test")), np.array([-DELTA / 2, DELTA / 2])
    curve = fb.grid(size.of(CURVE, 4))
    disturbed, rows = [], []
    squared = f"{CURVE} angles x (error / 1 %)^2: errors shrink as 1 / root of faces"

    # a small network: all angles of ours, one of the earlier work's, in float32 as it was
    ensemble = trained(NETWORK, stimulus, size.of(600, 2), BATCH)
    weights = ensemble["uniform"]

    def small(at: np.ndarray) -> Tensor:
        found = turned.product(seen, torch.from_numpy(at), dtype=torch.float32).flatten(2)
        return NETWORK.onward(weights, NETWORK.first(weights, found.flatten(0, 1)[None])).view(*found.shape[:2], 2)

    sides = small(0.3 + pair).numpy()
    record = partial(fb.record, ensemble, stimulus, curve, "test")
    taken = medians(
        size.repeats,
        images=lambda: small(0.3 + pair),
        MCD=lambda: plugin(sides),
        tangent=lambda: fb.estimate(record()),
        decoded=lambda: fb.estimate(record(), estimator="decoded"),
        **product,
    )
    disturbed.append(taken)
    each = {
        n: taken[n] / (1 if n in ("images", "MCD") else len(curve)) for n in ("images", "MCD", "tangent", "decoded")
    }
    robust_time = each["MCD"]
    at = curve[:: size.of(8, 2)]
    sides = torch.stack([small(at + side) for side in pair], 1).double()
    found = procedures(size, sides, fb.record(ensemble, stimulus, at, "test"))
    sizes = (len(stimulus.aperture), *NETWORK.hidden, 2)
    flops, single = 2 * shown * sum(a * b for a, b in pairwise(sizes)), work / taken["float32 product"]
    measured = f"halves of {shown} faces, {len(at)} angles"
    notes = {
        "images": f"{shown} faces turned bilinearly, twice; from one angle",
        "MCD": f"{shown} faces; from one angle",
        "ours": f"{shown} faces; the whole curve's {len(curve)} angles, what they share included",
        "error": measured,
        "curve": squared,
        "bound": f"{flops / 1e9:.2g} GFLOP at {single / 1e9:.0f} GFLOP/s, turning the faces not counted",
        "share": "of a pass over images, which tangent never makes: it may exceed 100 %",
    }
    rows += compared(f"MLP, {pixels} px", each, found, flops / single, ">= 100", notes)

    # a large one: what it costs grows with its images, so that few are timed
    network = fb.Network("resnet18", weights="random", backbone="finetuned")
    ensemble = trained(network, stimulus, size.of(120, 1), size.of(32, 4))
    at = curve[:: size.of(16, 2)]
    own, paired = (fb.record(ensemble, of, at, "test") for of in (stimulus, turned))
    found = procedures(size, torch.stack([paired.shifted(side).responses()[0] for side in pair], 1), own)
    measured = f"halves of {shown} faces, {len(at)} angles"
    for width, count in ((pixels, size.of(64, 10)), (size.of(224, 32), size.of(12, 10))):
        faces = varied(width, 2 * count).some(np.arange(count))
        own, paired = (
            fb.record(ensemble, fb.Stimulus(faces, rotation), [0.3], range(count))
            for rotation in ("harmonic", "bilinear")
        )
        paired = paired.at(0.3 + pair)
        taken = medians(
            (size.repeats + 1) // 2,
            images=paired.responses,
            tangent=lambda own=own: fb.estimate(own),
            decoded=lambda own=own: fb.estimate(own, estimator="decoded"),
            **product,
        )
        disturbed.append(taken)
        each = {n: taken[n] * shown / count for n in ("images", "tangent", "decoded")} | {"MCD": robust_time}
        with FlopCounterMode(display=False) as counter:
            own.responses()
        flops, single = counter.get_total_flops() * shown / count, work / taken["float32 product"]
        notes = {
            "images": f"{shown} faces turned bilinearly, twice; from {count} faces at one angle",
            "MCD": f"{shown} faces; as for the MLP, which has two outputs too",
            "ours": f"{shown} faces; from {count} at one angle",
            "error": measured,
            "curve": squared + ("" if width == stimulus.size else f"; errors are those found at {stimulus.size} px"),
            "bound": f"{flops / 1e9:.0f} GFLOP at {single / 1e9:.0f} GFLOP/s, turning the faces not counted",
            "share": "of a pass that carries no tangent",
        }
        new = compared(f"ResNet-18, {width} px", each, found, flops / single, ">= 10", notes)
        # information and errors belong to the size they were found at; at the other only the cost is measured
        rows += [row for row in new if width == stimulus.size or not re.search("information|standard error", row.what)]
    most = max(disturbed, key=lambda taken: taken["disturbed"])
    return [*rows, disturbance(part, most)]


# ---- the report --------------------------------------------------------------------------------------------

ALL = (machine, tangent, training, matrices, estimators, recordings, resnet, probes, headline, many, workers)
PARTS = {f.__name__: f for f in ALL}
ON_DEVICE = ("machine", "training", "resnet", "probes")  # the others measure the processor alone
MEMORY = {"matrices": "< 4", "many": "< 6"}  # GiB


def part(name: str, size: Size, threads: int) -> list[Row]:
    """Run one part, in a process of its own, and add that process's peak memory."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # few faces and people: only the time matters here
    rows = PARTS[name](size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    return [*rows, Row(name, "peak memory", peak / 2**30, "GiB", MEMORY.get(name, ""))]


def table(rows: list[Row]) -> str:
    cells = [[r.what, f"{r.value:.3g}" if r.value < 1000 else f"{r.value:.0f}", r.unit, r.target, r.note] for r in rows]
    wide = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [
        f"  {what:<{wide[0]}}  {value:>{wide[1]}} {unit:<{wide[2]}}  {target:<{wide[3]}}  {note}".rstrip()
        for what, value, unit, target, note in cells
    ]
    return "\n".join(lines)


def named(device: str, threads: int) -> str:
    """Describe what the numbers hold for."""
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    about = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", about.read_text()) if about.is_file() else [platform.processor()]
    return f"{models[0]}, {threads} threads, torch {torch.__version__}"


def publish_rows(file: Path, rows: list[Row], machine: str) -> None:
    """Add rows to a file of earlier ones; they take the place of the same machine's same parts."""
    earlier = json.loads(file.read_text()) if file.is_file() else []
    parts = {row.part for row in rows}
    kept = [e for e in earlier if e["machine"] != machine or e["part"] not in parts]
    found = [asdict(row) | {"value": float(f"{row.value:.4g}"), "machine": machine} for row in rows]
    file.write_text(json.dumps(kept + found, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help=f"parts, of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the numbers to those of this file as well")
    parser.add_argument("--device", default="cpu", help=f"other than the cpu for {', '.join(ON_DEVICE)} alone")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each comparison (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args()
    allowed = PARTS if options.device == "cpu" else ON_DEVICE
    names = options.only.split(",") if options.only else list(allowed)
    if unknown := set(names) - set(allowed):
        parser.error(f"--only takes {', '.join(allowed)}, not {', '.join(sorted(unknown))}")
    rows = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for name in names:
            print(name, file=sys.stderr)
            found = pool.submit(
                part, name, Size(options.quick, options.repeats, options.device), options.threads
            ).result()
            print(f"{name}\n{table(found)}", flush=True)
            rows += found
    if options.json:
        publish_rows(options.json, rows, named(options.device, options.threads))


if __name__ == "__main__":
    main()
