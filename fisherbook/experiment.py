"""Train, record, estimate, store: one call from a curriculum to a labelled dataset, and sweeps over conditions."""

import functools
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from . import angles as circle
from . import checks, results
from .checks import FewFaces
from .fisher import log_fisher
from .fisher.estimate import ESTIMATORS, estimate
from .network.activity import Activity, as_bytes, record
from .network.ensembles import INITIAL, Ensemble, Stage
from .network.networks import Network, choose_device
from .network.readouts import READOUTS
from .network.training import train
from .statistics import curves
from .stimulus.faces import Faces
from .stimulus.stimulus import Stimulus
from .store import Store, closure, default_store, digest, made_by

if TYPE_CHECKING:
    from .network.banks import FeatureBank

_LAYOUT = "@layout"
_ORDER = ("stage", "replicate", "split", "part", "layer", "estimator", "lag", "angle", "step")


def measure(
    stimulus: "Stimulus | FeatureBank", network: Network, stages: Sequence[Stage],
    replicates: int | Sequence[int] = 8, angles: int | ArrayLike = 360, estimators: Sequence[str] = ("tangent",),
    splits: Sequence[str] = ("train", "test"), layers: Sequence[str] = ("output",),
    parts: str | int | Mapping[str, ArrayLike] | None = None, about: ArrayLike | None = None,
    after: Sequence[str] | None = None, lags: Sequence[float] = (), directions: int | None = None,
    delta: float = 0.05, pairs: bool = False, seed: int = 0, device: str = "auto", memory: str | int = "1 GiB",
    store: Store | None = None, progress: bool = True,
) -> xr.Dataset:  # fmt: skip
    """Train an ensemble, and measure the Fisher information about the angle after every stage.

    The untrained network is measured too, as stage ``initial``. Equally many faces of every split are shown, the first
    ones, which are ordered by person. Whatever of this the store has is not computed again: weights and measurements
    are kept by replicate and stage.

    Parameters
    ----------
    stimulus : Stimulus or FeatureBank
    network : Network
    stages : sequence of Stage
    replicates : int or sequence of int
        That many, numbered from 0, or these.
    angles : int or array_like
        That many on the half-open circle, or angles in rad, rising on [-pi, pi).
    estimators : sequence of str
        Of `ESTIMATORS`; may be empty, for the plug-in's logarithm alone.
    splits : sequence of str
        Splits of the faces to measure with.
    layers : sequence of str
        Of ``network.layers``.
    parts : "halves", int or mapping of str to array_like, optional
        Sets of faces with which the logarithm is measured beside ``all``. ``"halves"`` are two disjoint halves of the
        people, ``A`` and ``B``; a number is that many ways to halve them, ``A``, ``B``, ``A2``, ``B2``, …; a mapping
        names positions among the faces shown.
    about : array_like, shape (replicate,), optional
        An angle (rad) of each replicate's own, on the grid of angles: its circle is turned so that this lies at 0.
    after : sequence of str, optional
        The stages, ``initial`` among them, after which to measure, if not after all.
    lags : sequence of float
        Δ in rad, for the structure function of the logarithm.
    directions : int, optional
        Layers with more units are measured on that many random directions (`Activity.projected`).
    delta : float
        Step in rad of the estimators that compare two angles.
    pairs : bool
        Take the logarithm from such pairs of angles as well, instead of from derivatives.
    seed : int
    device : str
        ``"auto"`` takes a GPU where there is one.
    memory : str or int
        Bound on what measuring holds at once beside faces and networks, such as ``"1 GiB"``; as for `record`. Training,
        and a backbone's bank that is built, are not in it.
    store : Store, optional
        By default `default_store()`.
    progress : bool
        Show progress bars.

    Returns
    -------
    Dataset
        ``fisher_information`` and ``standard_error`` (rad⁻²; stage, replicate, split, layer, estimator, angle),
        ``log_fisher`` (stage, replicate, split, part, layer, angle), half the plug-in's logarithm, with ``part`` only
        if `parts` are given; ``bias``, ``rmse``, ``mean_absolute_error`` (rad), ``large_error_share`` and
        ``encoded_density`` (rad⁻¹) of the reported angle (stage, replicate, split, angle), ``stimulus_density`` (rad⁻¹;
        stage, angle, and replicate where each has its own), ``n_faces`` and ``training_loss`` (replicate, step). With a
        second task also ``accuracy`` (stage, replicate, split), its share of right answers. With `lags` also
        ``structure_function`` and ``fourth_moment`` of the logarithm's increments (…, part, layer, lag) and,
        with halves, their mean product ``cross_structure``. With `about` the coordinate ``middle`` (replicate)
        is what lies at angle 0. A replicate whose training failed is missing (NaN); with a readout that cannot
        report every angle, so is the information outside the support of the stage's density, and all increments' means.

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
    checks.having("stimulus", stimulus, "faces", "a Stimulus or FeatureBank")
    checks.having("network", network, "layers", "a Network")
    seed = checks.whole_number("seed", seed, 0)
    estimators, splits, layers = ((n,) if isinstance(n, str) else n or () for n in (estimators, splits, layers))
    if isinstance(parts, Mapping):
        parts = {name: np.asarray(chosen) for name, chosen in parts.items()}
    what = _What(
        circle.as_angles(angles), tuple(estimators), tuple(splits), tuple(layers), parts, tuple(np.ravel(lags)),
        directions, delta, pairs, seed,
    )  # fmt: skip
    what.check(stimulus, network)
    known = [INITIAL, *(stage.name for stage in stages)]
    after = [checks.one_of("after", name, known) for name in after or known]
    device, memory, store = choose_device(device), as_bytes(memory), store or default_store()
    stimulus = network.kind.seen(stimulus, seed, device, store, progress)
    ensemble = train(stimulus, network, stages, replicates, seed, device, store=store, progress=progress)
    middles = None if about is None else _middles(about, what.angles, ensemble.replicate)
    sound = [int(r) for r in ensemble.replicate if r not in ensemble.failures]
    if not sound:
        raise RuntimeError("no replicate was trained to its end; try a lower learning_rate or a clip on the gradient")
    made = made_by("experiment", *network.kind.modules, device=device)
    found = {}
    for stage in tqdm(after, desc="measuring", disable=not progress, leave=False):
        asked = [what, _second_task(ensemble), stimulus.digest, made]
        keys = [digest([key, *asked]) for key in ensemble.select(sound).fingerprints(stage)]
        replicate_of = dict(zip(keys, sound, strict=True))
        compute = functools.partial(_measure_stage, what, ensemble, stimulus, stage, replicate_of, memory)
        pieces = store.fill("measurements", keys, compute, _save_piece, _load_piece, ".npz")
        part = _along("replicate", dict(zip(sound, (pieces[key] for key in keys), strict=True)))
        found[stage] = _on_support(part, ensemble, stage)
    measured = _along("stage", found).reindex(replicate=ensemble.replicate).merge(_training_loss(ensemble))
    measured = measured.assign(stimulus_density=_stimulus_density(ensemble, what.angles))
    measured = measured.assign(n_faces=what.faces(stimulus))
    if middles is not None:
        measured = _turned(measured, middles)
    parameters = vars(what) | {
        "angles": what.angles.tolist(), "network": network, "stages": list(stages), "rotation": stimulus.rotation,
        "replicates": ensemble.replicate.tolist(),
    }  # fmt: skip
    measured.attrs = results.provenance(
        "Fisher information about the angle", parameters, seed=seed, device=device,
        modules=closure("experiment", *network.kind.modules),
        data={"source": stimulus.faces.source, "digest": stimulus.digest}, wall_time=time.monotonic() - began,
    )  # fmt: skip
    order = [name for name in _ORDER if name in measured.dims]
    return results.validate(results.label(measured.transpose(*order)))


def random_angles(replicates: int, angles: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw an angle of the grid (rad) for each replicate, such as `measure` takes for `about`.

    Parameters
    ----------
    replicates, angles, seed : int
        How many to draw, from `grid` of how many.
    """
    return circle.grid(angles)[np.random.default_rng(seed).integers(angles, size=replicates)]


def lazily(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes something when it is first called, and returns the same from then on.

    If it takes arguments, it makes one thing for each.

    A page whose datasets are there already needs neither faces nor networks.
    """
    return functools.cache(make)


def sweep(
    condition: Callable[..., xr.Dataset], grid: Mapping[str, Sequence], scheduler: str | None = None
) -> xr.Dataset:
    """Call `condition` with every combination of the grid's values, and return one dataset with a dimension per key.

    Parameters
    ----------
    condition : callable
        Takes the grid's keys as keywords and returns a Dataset; its results must agree in their other dimensions, but
        for stages: one that a condition lacks is missing (NaN) there.
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
    for key, values in grid.items():
        kinds = {"text" if isinstance(v, str) else isinstance(v, int | float | np.number) and v == v for v in values}
        if isinstance(values, str) or kinds not in ({"text"}, {True}) or len(set(values)) < len(values):
            raise ValueError(f"the values of {key} must be different numbers or texts, not {list(values)!r}")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if scheduler is None:
        found = [_told(condition, c) for c in tqdm(combinations, desc="sweep", leave=False)]
    else:
        found = _distributed(condition, combinations, scheduler)
    for key, values in reversed(list(grid.items())):  # the last key varies fastest
        rows = [dict(zip(values, found[k : k + len(values)], strict=True)) for k in range(0, len(found), len(values))]
        try:
            found = [_along(key, row, ("stage", "step")) for row in rows]
        except (ValueError, KeyError) as error:  # xarray's, about its own arguments
            agree = "variables and coordinates, but for stages, must agree, and be named otherwise than the grid's keys"
            raise ValueError(f"what a sweep's condition returns along {key} can't be joined: {agree}") from error
    both = results.label(found[0])
    for key in grid:
        both[key].attrs = {"units": "1", "long_name": key.replace("_", " ")} | both[key].attrs
    return results.validate(both)


def _told(condition: Callable[..., xr.Dataset], combination: Mapping[str, Any]) -> xr.Dataset:
    """Call `condition`; if it fails, say with what."""
    try:
        found = condition(**combination)
        checks.having("what a sweep's condition returns", found, "data_vars", "a Dataset")
        return found
    except (ValueError, RuntimeError) as error:
        said = ", ".join(f"{name} = {value!r}" for name, value in combination.items())
        raise type(error)(f"the sweep failed with {said}: {error}") from error


def _distributed(condition: Callable[..., xr.Dataset], combinations: Sequence, scheduler: str) -> list[xr.Dataset]:
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
        return _told(condition, combination).load()


@dataclass(frozen=True)
class _What:
    """What is measured, the same for every stage and replicate."""

    angles: NDArray[np.float64]
    estimators: tuple[str, ...]
    splits: tuple[str, ...]
    layers: tuple[str, ...]
    parts: str | int | Mapping[str, ArrayLike] | None
    lags: tuple[float, ...]
    directions: int | None
    delta: float
    pairs: bool
    seed: int

    def check(self, stimulus: "Stimulus | FeatureBank", network: Network) -> None:
        at = self.angles
        if (np.diff(at) <= 0).any() or at[0] < -np.pi or at[-1] >= np.pi:
            raise ValueError("angles must rise on [-pi, pi), each once")
        checks.number("delta", self.delta, above=0, below=np.pi / stimulus.symmetry)
        checks.whole_number("directions", 1 if self.directions is None else self.directions)
        allowed = {"estimators": ESTIMATORS, "splits": stimulus.faces.splits, "layers": network.layers}
        for argument, names in allowed.items():
            if not getattr(self, argument) and argument != "estimators":
                raise ValueError(f"{argument} must name one or more of {', '.join(names)}")
            for name in getattr(self, argument):
                checks.one_of(argument, name, names)
        for lag in self.lags:
            checks.number("lags", lag, above=0)
        if isinstance(self.parts, str):
            checks.one_of("parts", self.parts, ["halves"])
        if isinstance(self.parts, Mapping) and "all" in self.parts:
            raise ValueError("parts must have other names than 'all', which is that of all faces shown")
        for name, chosen in self.parts.items() if isinstance(self.parts, Mapping) else ():
            checks.positions(f"parts[{name!r}]", chosen, self.faces(stimulus))
        halved = isinstance(self.parts, str | int)
        if halved and stimulus.faces.identity is None:
            raise ValueError(f"parts={self.parts!r} halves the people, but {stimulus.faces.source} names none")

    def faces(self, stimulus: "Stimulus | FeatureBank") -> int:
        """How many faces of every split are shown: as many as the smallest has in any fold."""
        return min(len(fold) for split in self.splits for fold in stimulus.faces.parts[split])

    def sets(self, activity: Activity) -> dict[str, NDArray]:
        """The sets of faces with which the logarithm is measured, by name."""
        everybody = {"all": np.arange(activity.face.shape[1])}
        if self.parts is None or isinstance(self.parts, Mapping):
            return everybody | {name: np.asarray(chosen) for name, chosen in (self.parts or {}).items()}
        if activity.identity is None:
            raise ValueError(f"parts={self.parts!r} halves the people, but these faces have no identities")
        number = 1 if self.parts == "halves" else checks.whole_number("parts", self.parts)
        halves = [log_fisher.halves(activity.identity[0], self.seed + k) for k in range(number)]
        suffix = ["", *(str(k + 1) for k in range(1, number))]
        named = (zip([f"A{s}", f"B{s}"], pair, strict=True) for s, pair in zip(suffix, halves, strict=True))
        return everybody | dict(itertools.chain(*named))


def _measure_stage(
    what: _What, ensemble: Ensemble, stimulus: Stimulus, stage: str, replicate_of: dict[str, int], memory: int,
    missing: list[str],
) -> Iterator[tuple[str, xr.Dataset]]:  # fmt: skip
    """Measure the replicates whose keys are missing together, and yield one dataset for each."""
    chosen = ensemble.select([replicate_of[key] for key in missing])
    shown = np.arange(what.faces(stimulus))
    by_split = {}
    for split in what.splits:
        recorded = functools.partial(record, chosen, stimulus, what.angles, split, stage, memory=memory)
        by_layer, behaviour = {}, {}
        for layer in dict.fromkeys([*what.layers, "output"]):  # one at a time is held
            activity = recorded(layer=layer).subset(shown).held(memory // 16)  # every estimator asks for the same
            if layer in what.layers:
                by_layer[layer] = _measure_layer(what, activity, layer)
            behaviour = _behaviour(activity) if layer == "output" else behaviour
        by_split[split] = _along("layer", by_layer).assign(behaviour)
        if task := _second_task(chosen):
            answers = recorded(layer="auxiliary").subset(shown)
            by_split[split]["accuracy"] = "replicate", _accuracy(answers, stimulus.faces, task)
    measured = results.label(_along("split", by_split))
    yield from ((key, measured.sel(replicate=replicate_of[key], drop=True)) for key in missing)


def _save_piece(piece: xr.Dataset, path: Path) -> None:
    """Write what was measured of one replicate: netCDF takes half a second for so many small variables."""
    layout = {str(name): [list(v.dims), name in piece.coords] for name, v in piece.variables.items()}
    with path.open("wb") as file:
        values = {str(name): v.values for name, v in piece.variables.items()}
        np.savez(file, **{_LAYOUT: np.array(json.dumps(layout))}, **values)


def _load_piece(path: Path) -> xr.Dataset:
    with np.load(path) as file:
        layout = json.loads(str(file[_LAYOUT]))
        variables = {name: (dims, file[name]) for name, (dims, _) in layout.items()}
    return results.label(xr.Dataset(variables).set_coords([name for name, (_, label) in layout.items() if label]))


def _measure_layer(what: _What, activity: Activity, layer: str) -> xr.Dataset:
    """Measure one layer: estimates of Fisher information, half the plug-in's logarithm, and the latter's roughness."""
    # only the output has an estimate to decode; elsewhere that estimator's values are missing
    names = [n for n in what.estimators if layer == "output" or ESTIMATORS[n].needs != "estimates"]
    if what.directions:
        ((_, one, _),) = activity.at(activity.angles[:1]).chunks(tangents=False)
        activity = activity.projected(what.directions, what.seed) if one.shape[-1] > what.directions else activity
    found = xr.Dataset()
    if names:
        estimates = estimate(activity, estimator=names, delta=what.delta).reindex(estimator=list(what.estimators))
        found = estimates.drop_vars(["n_faces", "large_error_share"], errors="ignore")
    sets, delta = what.sets(activity), what.delta if what.pairs else None
    try:
        found = found.assign(log_fisher=log_fisher.log_fisher(activity, sets, delta, bias=False).log_fisher)
        if what.lags:
            found = found.assign(_roughness(log_fisher.increments(activity, what.lags, sets, delta)))
    except ValueError as refusal:  # estimators that need no covariance of these units are measured all the same
        if not names:
            raise
        warnings.warn(f"there is no logarithm of the plug-in in {layer}: {refusal}", FewFaces, stacklevel=2)
        over = {"part": list(sets), "replicate": activity.replicate, "angle": activity.angles}
        found = found.assign(log_fisher=xr.DataArray(np.full([len(v) for v in over.values()], np.nan), over))
    return found.squeeze("part", drop=True) if what.parts is None else found


def _roughness(increment: xr.DataArray) -> dict[str, xr.DataArray]:
    """Mean square and fourth power of increments over angles; mean product of halves, over all ways to halve."""
    found = {"structure_function": (increment**2).mean("angle"), "fourth_moment": (increment**4).mean("angle")}
    names = increment.part.values.tolist()
    first = [name for name in names if name[0] == "A" and f"B{name[1:]}" in names]
    if first:
        other = [f"B{name[1:]}" for name in first]
        product = increment.sel(part=first) * increment.sel(part=other).values
        found["cross_structure"] = product.mean(("part", "angle"))
    return found


def _middles(about: ArrayLike, angles: NDArray, replicate: NDArray) -> xr.DataArray:
    """Check the angles about which circles are turned: one a replicate, a whole number of steps from 0."""
    about = about.reindex(replicate=replicate) if "replicate" in getattr(about, "coords", ()) else about
    about, step = np.asarray(about, np.float64), 2 * np.pi / len(angles)
    checks.same_length(about=np.size(about), replicates=len(replicate))
    if not np.allclose(angles, circle.grid(len(angles))):
        raise ValueError("about needs angles on the whole grid: give their number")
    if not np.allclose(about / step, np.round(about / step), atol=1e-6):
        raise ValueError(f"about must be whole steps of {step:.6g} rad away from 0, as random_angles draws them")
    return xr.DataArray(about, {"replicate": replicate}, attrs={"units": "rad", "long_name": "angle that lies at 0"})


def _turned(measured: xr.Dataset, middles: xr.DataArray) -> xr.Dataset:
    """Turn each replicate's circle so that its middle lies at angle 0."""
    size, density = measured.sizes["angle"], measured.stimulus_density
    if (abs(density.diff("angle")) > 0).any():  # one that all share lies elsewhere on each of the turned circles
        measured["stimulus_density"] = density.broadcast_like(middles)
    steps = np.round(middles.values * size / (2 * np.pi)).astype(int)
    circles = [name for name, values in measured.items() if {"replicate", "angle"} <= set(values.dims)]
    for name in circles:
        values = measured[name].transpose("replicate", "angle", ...)
        rows = [np.roll(row, -s, 0) for row, s in zip(values.values, steps, strict=True)]
        measured[name] = values.copy(data=np.stack(rows))
    return measured.assign_coords(middle=middles)


def _along(dimension: str, datasets: Mapping[Any, xr.Dataset], uneven: Sequence[str] = ()) -> xr.Dataset:
    """Join datasets along a new dimension, of the keys; they agree in all else, but perhaps in `uneven` dimensions."""
    found = list(datasets.values())
    for name in uneven:
        if any(name in one.dims for one in found):
            every = list(dict.fromkeys(label for one in found for label in one[name].values.tolist()))
            found = [one.drop_vars("stage_of_step", errors="ignore").reindex({name: every}) for one in found]
    how = {"data_vars": "all", "coords": "minimal", "join": "exact", "compat": "equals"}
    return xr.concat(found, xr.Variable(dimension, list(datasets)), combine_attrs="drop_conflicts", **how)


def _on_support(measured: xr.Dataset, ensemble: Ensemble, stage: str) -> xr.Dataset:
    """Leave out angles that the readout was never taught to report."""
    if READOUTS[ensemble.network.readout].full_circle:
        return measured
    taught = [density for s in ensemble.stages if stage in (INITIAL, s.name) for density in s.densities]
    inside = xr.DataArray(np.any([density.contains(measured.angle.values) for density in taught], 0), dims="angle")
    known = {"angle": inside, "lag": inside.all()}  # increments are averages over the whole circle
    return measured.map(lambda v: next((v.where(known[d]) for d in known if d in v.dims), v), keep_attrs=True)


def _training_loss(ensemble: Ensemble) -> xr.Dataset:
    loss = torch.cat(list(ensemble.training_loss.values()), 1).numpy()
    names = np.repeat([s.name for s in ensemble.stages], [s.steps for s in ensemble.stages])
    steps = {"step": np.arange(loss.shape[1]), "stage_of_step": ("step", names)}
    return xr.Dataset({"training_loss": (("replicate", "step"), loss)}, steps)


def _stimulus_density(ensemble: Ensemble, angles: ArrayLike) -> xr.DataArray:
    """Return the density of each stage (stage, angle), with replicates if some stage has one for each of them."""
    own = any(isinstance(stage.density, tuple) for stage in ensemble.stages)
    rows = [[d.pdf(angles) for d in stage.densities] for stage in ensemble.stages]
    count = len(ensemble.replicate) if own else 1
    known = (np.broadcast_to(row, (count, len(angles))) for row in rows)
    values = np.stack([np.full((count, len(angles)), np.nan), *known])
    coords = {"stage": list(ensemble.weights), "replicate": ensemble.replicate[:count], "angle": angles}
    found = xr.DataArray(values, coords)
    return found if own else found.isel(replicate=0, drop=True)


def _behaviour(output: Activity) -> dict[str, Any]:
    """What the reported angle does: bias and root-mean-square error by angle, and its density."""
    symmetry, found = output.attrs["symmetry"], []
    counts = np.zeros((len(output.replicate), curves.BINS), np.int64)
    for part, estimates, _ in output.decoded().chunks(tangents=False):
        reported = estimates[..., 0].cpu().numpy()
        errors = circle.wrap(symmetry * (reported - output.angles[part, None])) / symmetry
        size = np.abs(errors)
        means = np.sqrt((errors**2).mean(-1)), size.mean(-1), (size > np.pi / 2 / symmetry).mean(-1)
        found.append([circle.circular_mean(errors), *means])
        counts += [curves.counted(r) for r in reported]
    names = "bias", "rmse", "mean_absolute_error", "large_error_share", "encoded_density"
    columns = [np.concatenate(column, 1) for column in zip(*found, strict=True)]
    columns.append(np.stack([curves.smooth(count, output.angles) for count in counts]))
    return {name: (("replicate", "angle"), values) for name, values in zip(names, columns, strict=True)}


def _second_task(ensemble: Ensemble) -> str | None:
    """Return the second task that some stage trains, if it is one and the same in all of them."""
    tasks = {stage.auxiliary for stage in ensemble.stages if stage.auxiliary}
    return tasks.pop() if len(tasks) == 1 else None


def _accuracy(answers: Activity, faces: Faces, task: str) -> NDArray[np.float64]:
    """Share of right answers of a second task (replicate), over angles and faces; of attributes, over those known."""
    right = 0
    if task == "identity":
        known = np.unique(faces.identity, return_inverse=True)[1][answers.face][:, None, :, None]
    else:
        known = np.asarray(faces.attributes)[answers.face][:, None]
    for _, given, _ in answers.chunks(tangents=False):
        said = given.argmax(-1, keepdim=True).numpy() if task == "identity" else given.numpy() > 0
        truth = known if task == "identity" else np.where(np.isnan(known), 2, known > 0.5)
        right = right + (said == truth).sum((1, 2, 3))
    return right / ((~np.isnan(known)).sum((1, 2, 3)) * len(answers.angles))
