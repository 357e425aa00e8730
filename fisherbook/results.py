"""The dataset that a measurement is: dimensions, variables, units, where it came from, and its file."""

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from . import checks, store

#: Units (ASCII) and long name of every dimension's coordinate: those of a measurement, then those that sweeps add.
DIMENSIONS: dict[str, tuple[str, str]] = {
    "angle": ("rad", "stimulus angle"),
    "replicate": ("1", "replicate"),
    "stage": ("1", "training stage"),
    "split": ("1", "split of the faces"),
    "part": ("1", "set of faces within the split"),
    "estimator": ("1", "estimator of the Fisher information"),
    "layer": ("1", "layer of the network"),
    "face": ("1", "face"),
    "unit": ("1", "unit of the layer"),
    "person": ("1", "person"),
    "iteration": ("1", "iteration of the adaptation"),
    "chain": ("1", "chain of densities"),
    "step": ("1", "training step"),
    "lag": ("rad", "lag Δ between two angles"),
    "frequency": ("1", "frequency k, periods per turn"),
    "source": ("1", "source of the faces"),
    "n_training": ("1", "number of training faces"),
    "loss": ("1", "loss"),
    "history": ("1", "history of training stages"),
    "nonlinearity": ("1", "nonlinearity of the hidden units"),
    "readout": ("1", "readout"),
    "rotation": ("1", "rotation of the images"),
    "kappa": ("1", "concentration κ of the density of training angles"),
    "weight": ("1", "weight of the second task"),
    "condition": ("1", "condition of training"),
    "scheme": ("1", "scheme of the iteration"),
    "change": ("1", "last setting that was changed"),
    "pretrained": ("1", "pre-trained networks of the iteration"),
    "faces": ("1", "number of faces"),
    "units": ("1", "number of units"),
    "delta": ("rad", "step"),
    "tails": ("1", "degrees of freedom of the latents' t distribution"),
    "correlation": ("1", "intraclass correlation of one person's faces"),
    "noise": ("1", "noise of the simulated population"),
    "copy": ("1", "fine-tuning or chain from one pre-trained network"),
    "sign": ("1", "sign of the logarithm of the density"),
    "kind": ("1", "kind of network"),
    "backbone": ("1", "backbone"),
    "directions": ("1", "random directions of a wide layer"),
    "magnification": ("1", "magnification"),
    "place": ("1", "place in the window"),
}

#: Units (ASCII) and long name of every variable.
VARIABLES: dict[str, tuple[str, str]] = {
    "fisher_information": ("rad-2", "Fisher information"),
    "standard_error": ("rad-2", "standard error of the Fisher information"),
    "degrees_of_freedom": ("1", "degrees of freedom of the t interval: people - 1"),
    "plugin_information": ("rad-2", "uncorrected Fisher information of this fixed set of faces"),
    "effective_faces": ("1", "effective number of faces less one"),
    "n_units": ("1", "number of units"),
    "influence": ("rad-2", "first-order influence of each person on the Fisher information"),
    "fisher_information_without_large_errors": ("rad-2", "Fisher information of the other errors"),
    "log_fisher": ("1", "half the logarithm of the Fisher information"),
    "log_fisher_bias": ("1", "bias of half the logarithm of the Fisher information"),
    "structure_function": ("1", "mean squared increment of half the logarithm"),
    "cross_structure": ("1", "mean product of both halves' increments of half the logarithm"),
    "fourth_moment": ("1", "mean fourth power of increments of half the logarithm"),
    "bias": ("rad", "bias of the decoded angle"),
    "rmse": ("rad", "root-mean-square error of the decoded angle"),
    "mean_absolute_error": ("rad", "mean absolute error of the decoded angle"),
    "error": ("rad", "error of the decoded angle"),
    "radius": ("1", "length of the output over its root mean square with training faces"),
    "large_error_share": ("1", "share of errors beyond a quarter turn"),
    "encoded_density": ("rad-1", "density that the code is optimal for"),
    "accuracy": ("1", "share of right answers of the second task"),
    "chance": ("1", "share of right answers of the most frequent answer"),
    "stimulus_density": ("rad-1", "density of the stimulus angle"),
    "mean_output": ("1", "mean output over faces, over its mean distance from 0"),
    "log_speed": ("1", "half the logarithm of the squared speed of the pixels"),
    "middle": ("rad", "angle that lies at 0"),
    "training_loss": ("1", "training loss"),
    "stage_of_step": ("1", "training stage of the step"),
    "n_faces": ("1", "number of faces"),
    "log_density": ("1", "logarithm of the density of the stimulus angle"),
    "solution": ("1", "logarithm of the density that the scheme reports"),
    "clipped": ("1", "number of angles at which the density was clipped"),
    "degenerate": ("1", "what is wrong with the density"),
    "target": ("1", "logarithm of the wanted square root of the information"),
    "relative_bias": ("1", "relative bias"),
    "relative_bias_error": ("1", "simulation error of the relative bias"),
    "relative_rmse": ("1", "relative root-mean-square error"),
    "relative_standard_error": ("1", "root mean square of the relative standard errors claimed"),
    "coverage": ("1", "coverage of the 95 % interval"),
}

_KNOWN = DIMENSIONS | VARIABLES
SUMS = "SHA256SUMS"  # lies beside published datasets: their checksums, as `sha256sum --check` reads them


def label(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with units and long names for all variables and coordinates whose names are known.

    What a variable says of itself already is kept; the dataset given stays as it is.
    """
    known = {name: dataset[name].variable.copy(deep=False) for name in dataset.variables if name in _KNOWN}
    for name, variable in known.items():
        units, long_name = _KNOWN[name]
        variable.attrs = {"units": units, "long_name": long_name} | variable.attrs
    return dataset.assign(known)


def validate(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset if it obeys the schema.

    Every dimension has a coordinate without repetition; every variable and coordinate has units and a long
    name, and those of `DIMENSIONS` and `VARIABLES` have the units given there; angles rise on [-pi, pi);
    values are numbers, booleans or text; attributes are text or numbers.

    Raises
    ------
    ValueError
        With the first three violations in one sentence.
    """
    if found := list(_violations(dataset)):
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"not a valid dataset: {'; '.join(found[:3])}{more}")
    return dataset


def _violations(dataset: xr.Dataset) -> Iterator[str]:
    for name in map(str, dataset.dims):
        if name not in dataset.coords:
            yield f"the dimension {name} has no coordinate"
        elif not dataset.indexes[name].is_unique:
            yield f"the coordinate {name} has repeated values"
    for name, variable in dataset.variables.items():
        units, named = variable.attrs.get("units"), variable.attrs.get("long_name")
        if name in _KNOWN and units != _KNOWN[name][0]:
            yield f"the units of {name} must be {_KNOWN[name][0]!r}, not {units!r}"
        elif not (isinstance(units, str) and units and units.isascii()):
            yield f"the units of {name} must be ASCII text such as 'rad-2' or '1', not {units!r}"
        if not (isinstance(named, str) and named):
            yield f"the long_name of {name} must be text, not {named!r}"
        text = variable.dtype.kind in "OT" and all(isinstance(item, str) for item in variable.values.flat)
        if variable.dtype.kind not in "biufU" and not text:
            yield f"the values of {name} must be numbers, booleans or text, not {variable.dtype}"
    for owner, holder in {"the dataset": dataset, **dataset.variables}.items():
        for name, value in holder.attrs.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float | np.integer | np.floating):
                came = type(value).__name__
                yield f"the attribute {name!r} of {owner} must be text or a number, not {came}"
    angles = np.atleast_1d(dataset.coords.get("angle", 0.0))
    if not (np.all(angles >= -np.pi) and np.all(angles < np.pi)):
        yield f"the coordinate angle must lie in [-pi, pi), not from {angles.min():.6g} to {angles.max():.6g}"
    elif np.any(np.diff(angles) <= 0):
        yield "the coordinate angle must rise strictly"


def provenance(
    title: str,
    parameters: Mapping[str, object],
    *,
    seed: int,
    data: Mapping[str, str] | str,
    modules: Sequence[str],
    device: str,
    wall_time: float,
) -> dict[str, str | int | float]:
    """Return the attributes that say what a dataset is and how to make it again.

    Parameters
    ----------
    title : str
        What the dataset holds.
    parameters : mapping
        All that was chosen; kept as one JSON string, the `store.canonical` form.
    seed : int
        Of every random draw.
    data : mapping of str or str
        The ``"source"`` and ``"digest"`` of the faces, and what else there is to say; a text is the source.
    modules : sequence of str
        The modules that made the numbers, for `store.source_digest`.
    device : str
        Such as ``"cpu"``.
    wall_time : float
        Seconds that it took.

    Returns
    -------
    dict
        ``title``, ``parameters``, ``seed``, ``versions`` (JSON), ``git_commit`` (empty outside a checkout),
        ``data_*`` for all of `data`, ``source_modules``, ``source_digest``, ``device`` and ``wall_time_s``.
    """
    data = {"source": data} if isinstance(data, str) else data
    return {
        "title": title,
        "parameters": store.canonical(parameters),
        "seed": int(seed),
        "versions": json.dumps({name: _version(name) for name in ("fisherbook", "torch", "numpy", "xarray")}),
        "git_commit": _git_commit(),
        **{f"data_{name}": str(value) for name, value in data.items()},
        "source_modules": " ".join(sorted(modules)),
        "source_digest": store.source_digest(*modules),
        "device": str(device),
        "wall_time_s": round(float(wall_time), 3),
    }


def _version(distribution: str) -> str:
    """The installed version, or nothing for a package that is run without being installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _git_commit() -> str:
    """The commit of the checkout, with ``-dirty`` if files differ from it; nothing outside a checkout."""
    folder = store.checkout()
    if folder is None or not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def save(dataset: xr.Dataset, path: Path) -> None:
    """Write a valid dataset to a netCDF-4 file, compressed, whole or not at all.

    Raises
    ------
    ValueError
        If the dataset does not obey the schema.
    """
    plain = validate(dataset).drop_encoding()
    numbers = [name for name, variable in plain.variables.items() if variable.ndim and variable.dtype.kind in "biuf"]
    encoding = {name: {"zlib": True, "complevel": 4, "shuffle": True, "_FillValue": None} for name in numbers}
    content = plain.to_netcdf(engine="h5netcdf", encoding=encoding)  # in memory: HDF5 can crash on a full disk
    with store.atomic(Path(path)) as temporary:
        temporary.write_bytes(content)


def load(path: Path) -> xr.Dataset:
    """Read a dataset that `save` wrote, whole, as it was: values, types, coordinates, attributes.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is not what `seal` found, it is no netCDF-4 file, or it does not obey the schema.
    """
    verify(Path(path))
    try:
        dataset = xr.load_dataset(path, engine="h5netcdf", decode_times=False, decode_timedelta=False)
    except OSError as error:
        raise ValueError(f"{path} is not a whole netCDF-4 file: {error}") from error
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in dataset.attrs.items()}
    try:
        return validate(dataset.assign_attrs(plain))
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from None


def seal(folder: Path) -> None:
    """Write the checksums of a notebook's datasets, and of what it found, to a file beside them."""
    files = sorted([*folder.glob("*.nc"), *folder.glob("outcome.json")])
    with store.atomic(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{_checksum(file)}  {file.name}\n" for file in files))


def verify(path: Path) -> None:
    """Raise an error unless there is this file and, if its folder was sealed, it is what it was then."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no dataset {path}")
    sums = path.with_name(SUMS)
    if sums.is_file() and f"{_checksum(path)}  {path.name}" not in sums.read_text(errors="replace").splitlines():
        raise ValueError(f"{path} is damaged: it does not agree with its checksum in {SUMS}")


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keep(name: str, compute: Callable[..., xr.Dataset], *arguments: Any) -> xr.Dataset:
    """Return a dataset of a notebook's, computed unless the book that is being built has it already.

    All that a notebook shows should follow from what it keeps: a published book is then built again from its
    datasets, without faces or networks.

    Parameters
    ----------
    name : str
        The notebook's and the dataset's, such as ``"roughness/information"``.
    compute : callable
        Makes the dataset of the arguments that follow, such as `sweep` of a condition and a grid. A dimension without
        coordinate is numbered from 0. Names are those of `DIMENSIONS` and `VARIABLES`; others say their own units, or
        have none.

    Returns
    -------
    Dataset
        Numbers are rounded to single precision, as the file keeps them, and come back in double.

    Raises
    ------
    ValueError
        If the name is no name, or leads out of the folder.

    Notes
    -----
    The folder is named by ``FISHERBOOK_RESULTS``, which a build of the book sets; without it, nothing is written.

    Examples
    --------
    >>> import xarray as xr
    >>> kept = fb.keep("page/doubled", lambda: xr.Dataset({"doubled": ("step", [0.0, 2.0])}))
    >>> kept.doubled.units, kept.step.values.tolist()
    ('1', [0, 1])
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise ValueError(f"name must be letters, digits, '_', '-' and '.', such as 'roughness/control', not {name!r}")
    folder = os.environ.get("FISHERBOOK_RESULTS")
    path = _within(Path(folder), f"{name}.nc") if folder else None
    if path and path.is_file():
        return _precision(load(path), "float64")
    made = compute(*arguments)
    checks.having("what is kept", made, "data_vars", "a Dataset")
    made = made.assign_coords({n: np.arange(made.sizes[n]) for n in made.dims if n not in made.coords})
    made = _precision(label(made), "float32").copy()
    for variable, array in made.variables.items():
        array.attrs = {"units": "1", "long_name": str(variable).replace("_", " ")} | array.attrs
    if path:
        save(made, path)
    return _precision(validate(made), "float64")


def _precision(dataset: xr.Dataset, dtype: str) -> xr.Dataset:
    """Return the dataset with variables, but not coordinates, of this floating-point type."""
    floats = {name: values.astype(dtype) for name, values in dataset.items() if values.dtype.kind == "f"}
    return dataset.assign(floats)


def _within(folder: Path, name: str) -> Path:
    """Return a file of a folder; a link out of it is refused."""
    if not Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"name must stay within {folder}, but {name} is a link that leads out of it")
    return folder / name


def open_results(name: str) -> xr.Dataset:
    """Open a published dataset, one that came with the package or lies in ``data/results`` of the checkout.

    Parameters
    ----------
    name : str
        A notebook's name, such as ``"roughness"``, if the notebook has one dataset, or the notebook's and the
        dataset's name, such as ``"roughness/control"``.

    Raises
    ------
    ValueError
        If there is none of that name, with those that there are; if it is damaged or a link out of its folder.
    """
    checkout = store.checkout()
    folder = (checkout / "data" if checkout else Path(__file__).parent / "_data") / "results"
    files = sorted(folder.glob("[!.]*/*.nc"))
    notebooks = [file.parent.name for file in files]
    named = {f"{file.parent.name}/{file.stem}": file for file in files}
    named |= {file.parent.name: file for file in files if notebooks.count(file.parent.name) == 1}
    if not named:
        raise ValueError(f"there are no published results in {folder}")
    return load(_within(folder, named[checks.one_of("name", name, named)].relative_to(folder).as_posix()))
