import errno
import importlib.metadata
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import xarray as xr

from fisherbook import results, store


@pytest.fixture
def dataset():
    """A small valid dataset with a sweep's dimension and a variable of one's own."""
    made = xr.Dataset(
        {
            "fisher_information": (
                ("strength", "stage", "angle"),
                np.linspace(-1, 4, 24, dtype=np.float32).reshape(2, 3, 4),
            ),
            "n_faces": ((), 80),
            "training_loss": (("step",), [1.0, np.nan, 0.25]),
            "answered": (
                "angle",
                [True, False, True, True],
                {"units": "1", "long_name": "whether it answered"},
            ),
        },
        coords={
            "strength": ("strength", [1.0, 3.0], {"units": "1", "long_name": "concentration"}),
            "stage": ["initial", "uniform", "focused"],
            "angle": np.linspace(-np.pi, np.pi, 4, endpoint=False),
            "step": [0, 10, 20],
            "stage_of_step": ("step", ["uniform", "uniform", "focused"]),
            "split": "test",
        },
        attrs={"title": "Prüfung", "seed": 3, "wall_time_s": 0.5, "git_commit": ""},
    )
    return results.label(made)


def change(dataset, name, **attributes):
    """The dataset with other attributes of one variable."""
    variable = dataset[name].variable.copy(deep=False)
    variable.attrs = variable.attrs | attributes
    return dataset.assign({name: variable})


def test_label_names_what_is_known_and_leaves_what_it_was_given_alone(dataset):
    assert dataset.fisher_information.attrs == {"units": "rad-2", "long_name": "Fisher information"}
    assert dataset.angle.attrs["units"] == "rad"
    assert dataset.answered.attrs["long_name"] == "whether it answered"
    bare = xr.Dataset({"rmse": ("angle", [0.1], {"long_name": "mine"})}, coords={"angle": [0.0]})
    labelled = results.label(bare)
    assert labelled.rmse.attrs == {"units": "rad", "long_name": "mine"}
    assert bare.angle.attrs == {}
    assert "units" not in bare.rmse.attrs
    assert np.shares_memory(labelled.rmse.values, bare.rmse.values)


def test_every_known_name_is_valid_once_labelled():
    coordinates = {name: [0, 1] for name in results.DIMENSIONS}
    variables = {name: ("face", [0, 1]) for name in results.VARIABLES}
    labelled = results.validate(results.label(xr.Dataset(variables, coordinates)))
    assert {variable.attrs["units"] for variable in labelled.variables.values()} == {
        "rad",
        "rad-1",
        "rad-2",
        "1",
    }


def test_a_valid_dataset_is_returned_as_it_is(dataset):
    assert results.validate(dataset) is dataset
    results.validate(dataset.isel(angle=0, stage=[1]))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda d: d.drop_vars("angle"), "the dimension angle has no coordinate"),
        (lambda d: d.drop_vars("strength"), "the dimension strength has no coordinate"),
        (lambda d: d.isel(stage=[0, 0, 1]), "the coordinate stage has repeated values"),
        (
            lambda d: change(d, "fisher_information", units="rad^-2"),
            "the units of fisher_information must be 'rad-2', not 'rad^-2'",
        ),
        (lambda d: change(d, "angle", units="deg"), "the units of angle must be 'rad', not 'deg'"),
        (
            lambda d: change(d, "strength", units="rad⁻²"),
            "the units of strength must be ASCII text such as 'rad-2' or '1', not 'rad⁻²'",
        ),
        (
            lambda d: d.assign(extra=3),
            "the units of extra must be ASCII text such as 'rad-2' or '1', not None",
        ),
        (lambda d: change(d, "answered", long_name=""), "the long_name of answered must be text, not ''"),
        (lambda d: d.assign(n_faces=d.n_faces.astype(complex)), "numbers, booleans or text, not complex128"),
        (lambda d: d.assign(n_faces=d.n_faces.astype(object)), "numbers, booleans or text, not object"),
        (
            lambda d: d.assign_coords(angle=d.angle + np.pi / 2),
            "the coordinate angle must lie in [-pi, pi), not from -1.5708 to 3.14159",
        ),
        (lambda d: d.isel(angle=[1, 0]), "the coordinate angle must rise strictly"),
        (lambda d: d.isel(angle=[0, 0]), "the coordinate angle must rise strictly"),
        (
            lambda d: d.assign_coords(angle=d.angle.where(d.angle < 1)),
            "the coordinate angle must lie in [-pi, pi), not from nan to nan",
        ),
        (
            lambda d: d.assign_attrs(clip=None),
            "the attribute 'clip' of the dataset must be text or a number, not NoneType",
        ),
        (
            lambda d: d.assign_attrs(quick=True),
            "the attribute 'quick' of the dataset must be text or a number, not bool",
        ),
        (lambda d: d.assign_attrs(path=store.Path("x")), "must be text or a number, not"),
        (
            lambda d: change(d, "strength", of={"a": 1}),
            "the attribute 'of' of strength must be text or a number, not dict",
        ),
    ],
)
def test_each_violation_has_its_sentence(dataset, spoil, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        results.validate(spoil(dataset))


def test_of_many_violations_the_first_three_are_named_and_the_others_counted(dataset):
    bare = dataset.drop_attrs()
    with pytest.raises(ValueError, match=r"^not a valid dataset: [^;]*; [^;]*; [^;]*; and \d+ more$"):
        results.validate(bare)


def test_saved_and_loaded_a_dataset_is_the_same(dataset, tmp_path):
    path = tmp_path / "new" / "set.nc"
    results.save(dataset, path)
    loaded = results.load(path)
    xr.testing.assert_identical(loaded, dataset)
    assert {name: v.dtype for name, v in loaded.variables.items()} == {n: v.dtype for n, v in dataset.variables.items()}
    results.save(loaded, path)
    xr.testing.assert_identical(results.load(path), dataset)
    assert [file.name for file in path.parent.iterdir()] == ["set.nc"]


def test_variables_that_look_like_times_stay_numbers(dataset, tmp_path):
    dataset = dataset.assign(took=((), 2.5, {"units": "s", "long_name": "time it took"}))
    results.save(dataset, tmp_path / "set.nc")
    assert results.load(tmp_path / "set.nc").took.dtype == float


def test_files_are_compressed(dataset, tmp_path):
    zeros = xr.zeros_like(dataset.isel(angle=0, drop=True)).expand_dims(face=np.arange(20_000))
    zeros["face"].attrs = {"units": "1", "long_name": "face"}
    results.save(zeros, tmp_path / "set.nc")
    assert (tmp_path / "set.nc").stat().st_size < zeros.nbytes / 5


@pytest.mark.slow
def test_neither_writer_nor_reader_lets_an_invalid_dataset_through(dataset, tmp_path):
    with pytest.raises(ValueError, match="not a valid dataset: the dimension angle has no coordinate"):
        results.save(dataset.drop_vars("angle"), tmp_path / "set.nc")
    assert not (tmp_path / "set.nc").exists()
    dataset.drop_vars("angle").to_netcdf(tmp_path / "set.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"set\.nc is not a valid dataset: the dimension angle has no coordinate"):
        results.load(tmp_path / "set.nc")


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_the_file_as_it_was(dataset, tmp_path, monkeypatch):
    def write(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    results.save(dataset, tmp_path / "set.nc")
    monkeypatch.setattr(results.Path, "write_bytes", write)
    with pytest.raises(OSError, match=r"no space is left in .* to write set\.nc"):
        results.save(dataset.isel(angle=[0]), tmp_path / "set.nc")
    assert [file.name for file in tmp_path.iterdir()] == ["set.nc"]
    xr.testing.assert_identical(results.load(tmp_path / "set.nc"), dataset)


def test_a_file_that_is_absent_or_no_netcdf_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no dataset .*set\.nc"):
        results.load(tmp_path / "set.nc")
    (tmp_path / "set.nc").write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"set\.nc is not a whole netCDF-4 file"):
        results.load(tmp_path / "set.nc")


def provenance(**changes):
    given = {
        "seed": 3,
        "data": {"source": "orl", "digest": "ab"},
        "modules": ["store", "angles"],
        "device": "cpu",
    }
    return results.provenance(
        "A test", {"kappa": 3.0, "layers": ("output",)}, **given | {"wall_time": 1.23456} | changes
    )


def test_provenance_says_what_was_done_with_what_in_attributes_netcdf_holds(dataset, tmp_path):
    made = provenance()
    assert json.loads(made["parameters"]) == {"kappa": 3, "layers": ["output"]}
    assert (made["data_source"], made["data_digest"]) == ("orl", "ab")
    assert made["source_digest"] == store.source_digest(*made["source_modules"].split())
    assert json.loads(made["versions"])["numpy"] == importlib.metadata.version("numpy")
    assert (made["seed"], made["device"], made["wall_time_s"]) == (3, "cpu", 1.235)
    assert provenance(data="folder of mine")["data_source"] == "folder of mine"
    dataset = dataset.assign_attrs(made)
    results.save(dataset, tmp_path / "set.nc")
    assert results.load(tmp_path / "set.nc").attrs == dataset.attrs


def test_the_commit_is_the_checkouts_and_empty_outside_of_one(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "checkout", lambda: None)
    assert provenance()["git_commit"] == ""
    monkeypatch.setattr(store, "checkout", lambda: tmp_path)
    assert provenance()["git_commit"] == ""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "file").write_text("one")
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    commit = provenance()["git_commit"]
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "file").write_text("two")
    assert provenance()["git_commit"] == f"{commit}-dirty"


@pytest.mark.slow
def test_published_results_open_by_name_and_an_unknown_name_brings_the_nearest(dataset, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "checkout", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"there are no published results in .*results"):
        results.open_results("roughness")
    for name in ("roughness/curves", "diffusion/control", "diffusion/planted"):
        results.save(dataset.assign_attrs(title=name), tmp_path / "data" / "results" / f"{name}.nc")
    assert results.open_results("roughness").title == "roughness/curves"
    assert results.open_results("diffusion/planted").title == "diffusion/planted"
    with pytest.raises(ValueError, match=r"name must be one of .*, not 'roughnes'; did you mean 'roughness'\?"):
        results.open_results("roughnes")
    with pytest.raises(ValueError, match="not 'diffusion'; did you mean 'diffusion/"):
        results.open_results("diffusion")


def test_a_published_dataset_with_one_bit_changed_is_refused(dataset, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "checkout", lambda: tmp_path)
    folder = tmp_path / "data" / "results" / "roughness"
    results.save(dataset, folder / "curves.nc")
    results.seal(folder)
    xr.testing.assert_identical(results.open_results("roughness"), dataset)
    content = (folder / "curves.nc").read_bytes()
    for at in (0, len(content) // 2, len(content) - 1):
        (folder / "curves.nc").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(
            ValueError, match=r"curves\.nc is damaged: it does not agree with its checksum in SHA256SUMS"
        ):
            results.open_results("roughness")
    if shutil.which("sha256sum"):
        (folder / "curves.nc").write_bytes(content)
        subprocess.run(["sha256sum", "--check", "--strict", results.SUMS], cwd=folder, check=True, capture_output=True)


OUTSIDE = [
    "",
    ".",
    "..",
    "../x",
    "page/../../x",
    "/x",
    "page/",
    "/page",
    "page//x",
    "a/b/c",
    "page\\x",
    "page/x\0",
    "C:x",
    3,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_dataset_is_neither_kept_nor_opened_outside_its_folder(dataset, tmp_path, monkeypatch, name):
    monkeypatch.setenv("FISHERBOOK_RESULTS", str(tmp_path / "kept"))
    monkeypatch.setattr(store, "checkout", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"name must be letters, digits, .* such as 'roughness/control', not "):
        results.keep(name, lambda: dataset)
    assert not list(tmp_path.iterdir())
    results.save(dataset, tmp_path / "data" / "results" / "page" / "y.nc")
    results.save(dataset, tmp_path / "data" / "x.nc")
    with pytest.raises(ValueError, match="name must be one of page/y, page, not "):
        results.open_results(name)


def test_a_link_out_of_the_folder_is_no_dataset(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("FISHERBOOK_RESULTS", str(tmp_path / "data" / "results"))
    monkeypatch.setattr(store, "checkout", lambda: tmp_path)
    results.save(dataset, tmp_path / "away" / "x.nc")
    folder = tmp_path / "data" / "results"
    (folder / "page").mkdir(parents=True)
    (folder / "linked").symlink_to(tmp_path / "away")
    (folder / "page" / "x.nc").symlink_to(tmp_path / "away" / "x.nc")
    for name in ("linked/new", "page/x"):
        with pytest.raises(ValueError, match=r"name must stay within .*, but .* is a link that leads out of it"):
            results.keep(name, lambda: dataset)
    for name in ("linked/x", "page/x"):
        with pytest.raises(ValueError, match=r"name must stay within .*, but .* is a link that leads out of it"):
            results.open_results(name)


def test_a_kept_dataset_is_computed_once_per_book_and_described(tmp_path, monkeypatch):
    calls = []

    def compute():
        calls.append(1)
        return xr.Dataset({"mean_square": (("angle", "pair"), np.ones((2, 3)))}, {"angle": [0.0, 1.0]})

    assert results.keep("page/squares", compute).sizes == {"angle": 2, "pair": 3}
    assert results.keep("page/squares", compute).mean_square.long_name == "mean square"
    assert len(calls) == 2  # nobody builds a book
    monkeypatch.setenv("FISHERBOOK_RESULTS", str(tmp_path))
    first, second = results.keep("page/squares", compute), results.keep("page/squares", compute)
    assert len(calls) == 3
    xr.testing.assert_identical(first, second)
    assert first.angle.units == "rad"
    assert list(first.pair) == [0, 1, 2]
    assert (tmp_path / "page" / "squares.nc").is_file()
