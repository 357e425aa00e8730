"""Every command that the README and the book's pages tell a reader to type, run in a folder that is not the checkout.

What costs minutes is left out: notebooks have the book's parameters, but no kernel executes them, Jupyter Book builds
no site, and of `make` only what it would do is asked.
"""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile

import nbformat
import numpy as np
import pytest
from PIL import Image
from small_book import FINDING, ROOT, small_book, write_notebook

from fisherbook.publishing import cli, execute, profiles
from fisherbook.statistics.findings import Claim, Estimate, judge

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.[mi][dp]*"))]
PROGRAMS = {"fisherbook", "python", "papermill", "make", "pip", "export"}
# A word in capitals stands for a name of the reader's.
STANDS_FOR = {"NOTEBOOK": "roughness"}


def commands():
    """Return commands with a page that has each: lines of a console, and what a sentence or a table writes as code."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            cells = nbformat.reads(text, as_version=4).cells
            text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        consoles = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line.removeprefix("$ ") for console in consoles for line in console.splitlines()]
        told = re.findall(r"(?<!`)`((?:[\w./]*/)?(?:fisherbook|papermill|python|make) [^`\n]+)`(?!`)", text)
        for line in [*lines, *told]:
            found.setdefault(line.removeprefix(".venv/bin/").partition("#")[0].strip(), page.name)
    return [(page, line) for line, page in found.items()]


COMMANDS = commands()


def row():
    (finding,) = judge({Claim("it is so", "above", 3.0): Estimate(4.0, 0.1, 10, 4)})
    return finding.row


def executed(source, target, folder, values, progress):
    """Leave what papermill would, with one finding, and execute nothing."""
    notebook = nbformat.read(source, as_version=4)
    glued = {"application/papermill.record/text/plain": repr(json.dumps([row()]))}
    told = {"scrapbook": {"name": "findings"}}
    code = next(cell for cell in notebook.cells[::-1] if cell.cell_type == "code")
    code.outputs = [nbformat.v4.new_output("display_data", glued, metadata=told)]
    nbformat.write(notebook, target)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book with the notebooks of this one by name, parameters and profiles, and little in them."""
    root = small_book(tmp_path_factory.mktemp("reader"))
    (root / "book" / "first.ipynb").unlink()
    for part in ("_toc.yml", "budgets.yml", "profiles"):
        old, new = ROOT / "book" / part, root / "book" / part
        shutil.copytree(old, new, dirs_exist_ok=True) if old.is_dir() else shutil.copyfile(old, new)
    for name, path in profiles.notebooks(ROOT / "book").items():
        cells = [cell for cell in profiles.read(path).cells if "parameters" in cell.metadata.get("tags", [])]
        write_notebook(root / "book" / f"{name}.ipynb", *(cell.source for cell in cells), FINDING)
        notebook = profiles.read(root / "book" / f"{name}.ipynb")
        if cells:
            notebook.cells[1].metadata["tags"] = ["parameters"]
        nbformat.write(notebook, root / "book" / f"{name}.ipynb")
    with zipfile.ZipFile(root / "pictures.zip", "w") as pictures:
        for k in range(4):
            file = io.BytesIO()
            Image.fromarray(np.full((20, 20), 60 * k, "u1")).save(file, "PNG")
            pictures.writestr(f"{k}.png", file.getvalue())
    return root


@pytest.fixture
def reader(book, monkeypatch):
    """A reader in the book's folder, for whom notebooks and sites are made at once."""
    monkeypatch.chdir(book)
    monkeypatch.setattr(execute, "_papermill", executed)
    monkeypatch.setattr(execute, "build_site", lambda root, copy, output, *options: output / "_build" / "html")
    monkeypatch.setattr(execute, "page", lambda root, folder, name: folder / "_build" / "html" / f"{name}.html")
    return book


def prepared(arguments, root):
    """Make what a command starts from: the book, and for a comparison a run of that name."""
    if arguments[0] == "verify":
        execute.build("published", root)
    if arguments[0] == "compare":
        execute.build("quick", root)
        shutil.copytree(execute.execute("roughness", root=root), root / arguments[2], dirs_exist_ok=True)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}" for page, line in COMMANDS])
def test_a_command_of_the_pages_works_outside_of_the_checkout(reader, monkeypatch, capsys, page, line):
    words = [STANDS_FOR.get(word, word) for word in shlex.split(line)]
    program, arguments = words[0], words[1:]
    if program == "fisherbook":
        prepared(arguments, reader)
        assert cli.main(arguments) == 0, capsys.readouterr().err
    elif program == "papermill":
        command = [sys.executable, "-m", "papermill", *arguments]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        assert f"{arguments[-2]} = {arguments[-1]}" in (reader / arguments[1]).read_text()
    elif program == "make":
        subprocess.run(
            ["make", "-n", f"PYTHON={sys.executable}", "-C", ROOT, *arguments], check=True, capture_output=True
        )
    elif program == "pip":  # which would need the network
        extras = re.findall(r"\[(\w+)\]", line)
        assert extras or words[1:] == ["install", "."], line
        assert {*extras} <= {*tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]}
    else:
        assert program == "export", f"{page} has a command that nobody tries: {line}"
        assert re.fullmatch(r"FISHERBOOK_(CELEBA|STORE|RESULTS)=\S+", arguments[0])


def test_the_pages_have_commands_of_every_program():
    programs = {line.split()[0] for _, line in COMMANDS}
    assert {"fisherbook", "papermill", "make"} <= programs <= PROGRAMS
    assert len(COMMANDS) > 25


def test_the_package_is_a_command_too(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-m", "fisherbook", "list"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert said.returncode == 0, said.stderr
    assert "roughness: " in said.stdout
