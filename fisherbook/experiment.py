"""Train, record, estimate, store: one call from a curriculum to a labelled dataset, and sweeps over conditions."""

import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from . import angles as circle
from . import checks, results
from .fisher import log_fisher
from .fisher.estimate import ESTIMATORS, estimate
from .network.activity import Activity, as_bytes, record
from .network.banks import FeatureBank, seen
from .network.ensembles import INITIAL, Ensemble, Stage
from .network.networks import Network, choose_device
from .network.readouts import READOUTS
from .network.training import train
from .statistics import curves
from .stimulus.stimulus import Stimulus
from .store import Store, closure, default_store, digest, made_by

_ORDER = ("stage", "replicate", "split", "layer", "estimator", "angle", "step")


def measure(
    stimulus: Stimulus | FeatureBank,
    network: Network,
    stages: Sequence[Stage],
    replicates: int | Sequence[int] = 8,
    angles: int | ArrayLike = 360,
    estimators: Sequence[str] = ("tangent",),
    splits: Sequence[str] = ("train", "test"),
    layers: Sequence[str] = ("output",),
    delta: float = 0.05,
    seed: int = 0,
    device: str = "auto",
    memory: str | int = "1 GiB",
    store: Store | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Train an ensemble, and measure the Fisher information about the angle after every stage.

    The untrained network is measured too, as stage ``initial``. Whatever of this the store has is not computed again:
    weights by replicate and stage, and measurements by replicate and stage.

    Parameters
    ----------
    stimulus : Stimulus
    network : Network
    stages : sequence of Stage
    replicates : int or sequence of int
        That many, numbered from 0, or these.
    angles : int or array_like
        That many on the half-open circle, or angles in rad, rising on [-pi, pi).
    estimators : sequence of str
        Of `ESTIMATORS`.
    splits : sequence of str
        Splits of the faces to measure with.
    layers : sequence of str
        Of ``network.layers``.
    delta : float
        Step in rad of the estimators that compare two angles.
    seed : int
    device : str
        ``"auto"`` takes a GPU where there is one.
    memory : str or int
        Bound on the activity held at once, such as ``"1 GiB"``.
    store : Store, optional
        By default `default_store()`.
    progress : bool
        Show progress bars.

    Returns
    -------
    Dataset
        ``fisher_information`` and ``standard_error`` (rad⁻²; stage, replicate, split, layer, estimator, angle),
        ``n_faces`` (split), ``bias``, ``rmse`` (rad) and ``encoded_density`` (rad⁻¹) of the reported angle (stage,
        replicate, split, angle), ``stimulus_density`` (rad⁻¹; stage, angle) and ``training_loss`` (replicate, step).
        A replicate whose training failed is missing (NaN); with a readout that cannot report every angle, so is the
        information outside the support of the stage's density.

    Examples
    --------
    >>> stimulus = fb.Stimulus(fb.load_faces("gratings", size=8, limit=100))
    >>> stages = [fb.Stage("uniform", fb.uniform(), steps=2, batch=4)]
    >>> network = fb.Network(hidden=(4,))
    >>> found = fb.measure(stimulus, network, stages, replicates=2, angles=6, device="cpu", progress=False)
    >>> dict(found.fisher_information.sizes)
    {'stage': 2, 'replicate': 2, 'split': 2, 'layer': 1, 'estimator': 1, 'angle': 6}
    >>> found.fisher_information.units
    'rad-2'
    """
    began = time.monotonic()
    what = _What(circle.as_angles(angles), tuple(estimators), tuple(splits), tuple(layers), delta)
    what.check(stimulus, network)
    stimulus = seen(network, stimulus, seed, choose_device(device), store, progress)
    if any(isinstance(stage.density, tuple) for stage in stages):
        raise ValueError("measure takes one density per stage, the same for all replicates")
    store, device, memory = store or default_store(), choose_device(device), as_bytes(memory)
    ensemble = train(stimulus, network, stages, replicates, seed, device, store=store, progress=progress)
    sound = [int(r) for r in ensemble.replicate if r not in ensemble.failures]
    if not sound:
        raise RuntimeError("no replicate was trained to its end; try a lower learning_rate or a clip on the gradient")
    made = made_by("experiment", device=device)
    parts = {}
    for stage in tqdm(ensemble.weights, desc="measuring", disable=not progress, leave=False):
        keys = [digest([key, what, stimulus.digest, made]) for key in ensemble.select(sound).keys[stage]]
        compute = functools.partial(
            _measure_stage, what, ensemble, stimulus, stage, dict(zip(keys, sound, strict=True)), memory
        )
        found = store.fill("measurements", keys, compute, results.save, results.load, ".nc")
        part = _along("replicate", dict(zip(sound, (found[key] for key in keys), strict=True)))
        parts[stage] = _on_support(part, ensemble, stage)
    measured = _along("stage", parts).reindex(replicate=ensemble.replicate).merge(_training_loss(ensemble))
    n_faces = [len(stimulus.faces.split(split)) for split in splits]
    density = _stimulus_density(ensemble, what.angles)
    measured = measured.assign(stimulus_density=density, n_faces=("split", n_faces))
    parameters = vars(what) | {
        "angles": what.angles.tolist(), "network": network, "stages": list(stages), "rotation": stimulus.rotation,
        "replicates": ensemble.replicate.tolist(),
    }  # fmt: skip
    source = {"source": stimulus.faces.source, "digest": stimulus.digest}
    measured.attrs = results.provenance(
        "Fisher information about the angle", parameters, seed=seed, data=source,
        modules=closure("experiment"), device=device,
        wall_time=time.monotonic() - began,
    )  # fmt: skip
    return results.validate(results.label(measured.transpose(*_ORDER)))


def measure_increments(
    activity: Activity,
    lags: Sequence[float],
    parts: Mapping[str, ArrayLike] | None = None,
    delta: float | None = None,
    store: Store | None = None,
) -> xr.DataArray:
    """Return `log_fisher.increments` of a recorded ensemble, from the store where it was computed before.

    Parameters
    ----------
    activity : Activity
        Of an ensemble, at the base angles.
    lags, parts, delta
        As in `log_fisher.increments`.
    store : Store, optional
        By default `default_store()`.
    """
    parts = {} if parts is None else {name: np.asarray(chosen) for name, chosen in parts.items()}
    key = digest([activity.key, activity.angles, list(lags), parts, delta, made_by("experiment")])

    def compute(_missing: list[str]) -> Iterator[tuple[str, xr.Dataset]]:
        found = log_fisher.increments(activity, lags, parts, delta).rename("increment")
        found.attrs = {"units": "1", "long_name": "increment of half the logarithm of Fisher information"}
        found["lag"].attrs = {"units": "rad", "long_name": "lag Δ"}
        found["part"].attrs = {"units": "1", "long_name": "set of faces"}
        yield key, results.label(found.to_dataset())

    return (
        (store or default_store()).fill("increments", [key], compute, results.save, results.load, ".nc")[key].increment
    )


def sweep(
    condition: Callable[..., xr.Dataset], grid: Mapping[str, Sequence[Any]], scheduler: str | None = None
) -> xr.Dataset:
    """Call `condition` with every combination of the grid's values, and return one dataset with a dimension per key.

    Parameters
    ----------
    condition : callable
        Takes the grid's keys as keywords and returns a Dataset; its results should agree in their other dimensions.
    grid : mapping of str to sequence
        Values are numbers or text: they become the new dimensions' coordinates.
    scheduler : str, optional
        By default one combination after the other, in this process. ``"local"`` runs them on as many processes as there
        are cores, ``"tcp://host:port"`` on the workers of a running Dask scheduler; both need
        ``fisherbook[cluster]``. A combination whose worker dies is computed again by another. Workers that share the
        folder named by ``FISHERBOOK_STORE`` share what they compute.

    Examples
    --------
    >>> import xarray as xr
    >>> def condition(kappa):
    ...     peak = fb.von_mises(0.0, kappa).pdf(0.0)
    ...     return xr.Dataset({"peak": ((), peak, {"units": "rad-1", "long_name": "highest density"})})
    >>> fb.sweep(condition, {"kappa": [1.0, 3.0]}).peak.values.round(2).tolist()
    [0.34, 0.65]
    """
    if not grid or not all(len(values) for values in grid.values()):
        raise ValueError("grid must name at least one parameter, each with at least one value")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if scheduler is None:
        found = [condition(**c) for c in tqdm(combinations, desc="sweep", leave=False)]
    else:
        found = _distributed(condition, combinations, scheduler)
    for key, values in reversed(list(grid.items())):  # the last key varies fastest
        found = [
            _along(key, dict(zip(values, found[k : k + len(values)], strict=True)))
            for k in range(0, len(found), len(values))
        ]
    both = found[0]
    for key in grid:
        both[key].attrs = {"units": "1", "long_name": key} | both[key].attrs
    return results.validate(both)


def _distributed(
    condition: Callable[..., xr.Dataset], combinations: Sequence[Mapping[str, Any]], scheduler: str
) -> list[xr.Dataset]:
    """Call `condition` with each combination on Dask's workers, and return what they return, in order."""
    if scheduler != "local" and not scheduler.startswith(("tcp://", "tls://")):
        raise ValueError(f"scheduler must be None, 'local' or an address such as 'tcp://host:8786', not {scheduler!r}")
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ImportError("a scheduler needs Dask; install it with: pip install 'fisherbook[cluster]'") from None
    with Client(**_workers(len(combinations)) if scheduler == "local" else {"address": scheduler}) as client:
        futures = [client.submit(_on_worker, condition, c, pure=False) for c in combinations]
        for _ in tqdm(as_completed(futures), total=len(futures), desc="sweep", leave=False):
            pass
        return client.gather(futures)


def _workers(most: int) -> dict[str, Any]:
    """Describe a local cluster of one process per core, or fewer with more threads each, for so many combinations."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, most)
    share = {"OMP_NUM_THREADS": str(cores // workers)}
    return {"n_workers": workers, "threads_per_worker": 1, "env": share, "dashboard_address": None}


def _on_worker(condition: Callable[..., xr.Dataset], combination: Mapping[str, Any]) -> xr.Dataset:
    import dask

    # On a worker xarray would take a lock of the cluster's for each file, even for one in memory, and not find it.
    with dask.config.set(scheduler="synchronous"):
        return condition(**combination).load()


@dataclass(frozen=True)
class _What:
    """What is measured, the same for every stage and replicate."""

    angles: NDArray[np.float64]
    estimators: tuple[str, ...]
    splits: tuple[str, ...]
    layers: tuple[str, ...]
    delta: float

    def check(self, stimulus: Stimulus, network: Network) -> None:
        at = self.angles
        if (np.diff(at) <= 0).any() or at[0] < -np.pi or at[-1] >= np.pi:
            raise ValueError("angles must rise on [-pi, pi), each once")
        checks.number("delta", self.delta, above=0)
        allowed = {"estimators": ESTIMATORS, "splits": stimulus.faces.splits, "layers": network.layers}
        for argument, names in allowed.items():
            for name in getattr(self, argument):
                checks.one_of(argument, name, names)


def _measure_stage(
    what: _What, ensemble: Ensemble, stimulus: Stimulus, stage: str, replicate_of: dict[str, int], memory: int,
    missing: list[str],
) -> Iterator[tuple[str, xr.Dataset]]:  # fmt: skip
    """Measure the replicates whose keys are missing together, and yield one dataset for each."""
    chosen = ensemble.select([replicate_of[key] for key in missing])
    by_split = {}
    for split in what.splits:
        by_layer = {}
        for layer in what.layers:
            # only the output has an estimate to decode; elsewhere that estimator's values are missing
            names = [n for n in what.estimators if layer == "output" or ESTIMATORS[n].needs != "estimates"]
            activity = record(chosen, stimulus, what.angles, split, stage, layer, memory)
            found = estimate(activity, estimator=names, delta=what.delta).drop_vars("n_faces")
            by_layer[layer] = found.reindex(estimator=list(what.estimators))
        output = record(chosen, stimulus, what.angles, split, stage, memory=memory)
        by_split[split] = _along("layer", by_layer).assign(_behaviour(output))
    measured = results.label(_along("split", by_split))
    yield from ((key, measured.sel(replicate=replicate_of[key], drop=True)) for key in missing)


def _along(dimension: str, datasets: Mapping[Any, xr.Dataset]) -> xr.Dataset:
    """Join datasets that agree in all else along a new dimension, whose coordinate the keys are."""
    how = {"data_vars": "all", "coords": "minimal", "join": "exact", "compat": "equals"}
    where = xr.Variable(dimension, list(datasets))
    return xr.concat(datasets.values(), where, combine_attrs="drop_conflicts", **how)


def _on_support(measured: xr.Dataset, ensemble: Ensemble, stage: str) -> xr.Dataset:
    """Leave out angles that the readout was never taught to report."""
    if READOUTS[ensemble.network.readout].full_circle:
        return measured
    taught = [s.density for s in ensemble.stages if stage in (INITIAL, s.name)]
    inside = np.any([density.contains(measured.angle.values) for density in taught], 0)
    return measured.where(xr.DataArray(inside, dims="angle"))


def _training_loss(ensemble: Ensemble) -> xr.Dataset:
    loss = torch.cat(list(ensemble.training_loss.values()), 1).numpy()
    names = np.repeat([s.name for s in ensemble.stages], [s.steps for s in ensemble.stages])
    return xr.Dataset(
        {"training_loss": (("replicate", "step"), loss)},
        {"step": np.arange(loss.shape[1]), "stage_of_step": ("step", names)},
    )


def _stimulus_density(ensemble: Ensemble, angles: ArrayLike) -> tuple:
    trained = [stage.density.pdf(angles) for stage in ensemble.stages]
    return ("stage", "angle"), np.stack([np.full(len(angles), np.nan), *trained])


def _behaviour(output: Activity) -> dict[str, Any]:
    """What the reported angle does: bias and root-mean-square error by angle, and its density."""
    reported = output.decoded().responses()[..., 0].cpu().numpy()
    symmetry = output.attrs["symmetry"]
    errors = circle.wrap(symmetry * (reported - output.angles[:, None])) / symmetry
    over = ("replicate", "angle")
    return {
        "bias": (over, circle.circular_mean(errors)),
        "rmse": (over, np.sqrt((errors**2).mean(-1))),
        "encoded_density": (over, np.stack([curves.density_of(r.ravel(), output.angles) for r in reported])),
    }
