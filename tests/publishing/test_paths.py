"""Paths mean the caller's folder, and a build's keys change with the pictures that a notebook's parameters name."""

import os
import zipfile

import nbformat
import pytest
from small_book import PARAMETERS, small_book, write_notebook

from fisherbook.publishing import execute, profiles
from fisherbook.store import default_store


@pytest.fixture
def root(tmp_path):
    return small_book(tmp_path / "book")


@pytest.fixture
def caller(tmp_path, monkeypatch):
    """A folder that is neither the book's nor a notebook's."""
    folder = tmp_path / "caller"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_paths_from_the_command_line_are_the_callers_and_names_come_before_files(caller, monkeypatch):
    monkeypatch.setenv("HOME", str(caller))
    for name in ("orl", "pictures", "random"):
        (caller / name).mkdir()
    given = [
        {"source": "orl", "root": "data", "weights": "random"},
        {"source": "pictures", "root": "~/data", "weights": "imagenet"},
        {"source": "~/pictures", "root": "", "weights": "0.2, 0.5"},
        {"source": "no such folder", "replicates": 4, "drive": "pictures"},
    ]
    assert [profiles.located(values) for values in given] == [
        {"source": "orl", "root": f"{caller}/data", "weights": "random"},
        {"source": f"{caller}/pictures", "root": f"{caller}/data", "weights": "imagenet"},
        {"source": f"{caller}/pictures", "root": "", "weights": "0.2, 0.5"},
        {"source": "no such folder", "replicates": 4, "drive": "pictures"},
    ]


def test_a_rerun_finds_pictures_store_and_celeba_where_the_caller_means(root, caller, monkeypatch):
    write_notebook(
        root / "book" / "first.ipynb",
        PARAMETERS,
        "import os\n\nprint(source, *(os.environ[f'FISHERBOOK_{n}'] for n in ('STORE', 'CELEBA')), sep='\\n')",
    )
    (caller / "pictures.zip").write_bytes(b"")
    monkeypatch.setenv("FISHERBOOK_STORE", "mystore")
    monkeypatch.setenv("FISHERBOOK_CELEBA", "~/data")
    folder = execute.execute("first", ["source=pictures.zip"], root=root)
    cells = nbformat.read(folder / "first.ipynb", as_version=4).cells
    said = next(output.text for cell in cells for output in cell.get("outputs", [])).split()
    assert said == [f"{caller}/pictures.zip", f"{caller}/mystore", os.path.expanduser("~/data")]
    assert os.environ["FISHERBOOK_STORE"] == "mystore"
    store = default_store()
    monkeypatch.chdir(root)
    assert store.root == caller / "mystore"


def test_a_key_changes_with_the_pictures_and_with_where_celeba_is(root, caller, monkeypatch):
    notebook = root / "book" / "first.ipynb"
    write_notebook(notebook, PARAMETERS + '\nroot: str = ""  # of CelebA\nweights: str = "random"  # or a file', "1")
    monkeypatch.delenv("FISHERBOOK_CELEBA", raising=False)
    album, keys = caller / "album", []

    def changed(**values):
        """Whether this key has not come before."""
        keys.append(execute._key(notebook, values, []))
        return keys[-1] not in keys[:-1]

    def same(**values):
        return not changed(**values)

    (album / "ada").mkdir(parents=True)
    (album / "ada" / "1.png").write_bytes(b"one")
    source = str(album)
    assert changed(source=source) and same(source=source)
    before = (album / "ada" / "1.png").stat()
    (album / "ada" / "1.png").write_bytes(b"two")
    os.utime(album / "ada" / "1.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed(source=source)  # though size and time of change are as before
    (album / "list.csv").write_text("file,Happy\n")
    assert changed(source=source)
    (album / "ada" / "1.png").rename(album / "ada" / "2.png")
    assert changed(source=source)
    (caller / "linked").mkdir()
    (caller / "linked" / "ada").symlink_to(album / "ada")
    assert changed(source=str(caller / "linked"))
    (album / "ada" / "3.png").write_bytes(b"")
    assert changed(source=str(caller / "linked"))
    with zipfile.ZipFile(caller / "album.zip", "w") as archive:
        archive.writestr("1.png", b"one")
    archive = str(caller / "album.zip")
    assert changed(source=archive) and same(source=archive)
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("2.png", b"two")
    assert changed(source=archive)
    assert changed(source="celeba") and same(source="celeba")
    monkeypatch.setenv("FISHERBOOK_CELEBA", source)
    assert changed(source="celeba") and same(source="celeba")
    monkeypatch.setenv("FISHERBOOK_CELEBA", archive)
    assert changed(source="celeba")
    (caller / "list_attr_celeba_first.csv").write_text("")
    assert changed(source="celeba")
    assert changed(source="celeba", root=source)
    monkeypatch.delenv("FISHERBOOK_CELEBA")
    assert same(source="celeba") and same(source="celeba", root=source)
    (caller / "net.pt").write_bytes(b"one")
    weights = str(caller / "net.pt")
    assert changed(weights=weights)
    (caller / "net.pt").write_bytes(b"other")
    assert changed(weights=weights)
