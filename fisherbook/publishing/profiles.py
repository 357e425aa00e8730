"""The book's notebooks and their parameters: what they declare, and what a profile or a reader puts in its place."""

import ast
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml

from .. import checks, store

PROFILES = ("quick", "published", "prior")
Values = Mapping[str, Mapping[str, Any]]  # notebook -> parameter -> value
_TRUTH = {"true": True, "false": False}
_KINDS = {"int": int, "float": float, "str": str, "bool": lambda text: _TRUTH[text.lower()]}


def find_root(start: Path | str = ".") -> Path:
    """Return the nearest folder, `start` or above it, that holds a book, else this package's checkout."""
    start = Path(start).resolve()
    for folder in (start, *start.parents, store.checkout()):
        if folder and (folder / "_config.yml").is_file() and (folder / "book" / "_toc.yml").is_file():
            return folder
    raise FileNotFoundError(f"there is no book (_config.yml and book/_toc.yml) in {start} or above it")


def notebooks(book: Path) -> dict[str, Path]:
    """Return a book's notebooks by name, without suffix, in the order of its table of contents."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    paths = {page: book / f"{page}.ipynb" for page in parse_toc_yaml(book / "_toc.yml")}
    return {page: path for page, path in paths.items() if path.is_file()}


def parameters(notebook: Path) -> dict[str, dict[str, Any]]:
    """Return type, default and comment of each parameter that a notebook declares.

    They are lines ``name: type = default  # comment`` of the cell tagged ``parameters``; a type other than
    int, float, str and bool, or a default that is not of its type, raises a ValueError.
    """
    import papermill

    declared = {}
    for name, found in papermill.inspect_notebook(notebook).items():
        kind = checks.one_of(f"the type of {name} in {notebook.name}", found["inferred_type_name"], _KINDS)
        default = _parse(name, kind, ast.literal_eval(found["default"]))
        declared[name] = {"type": kind, "default": default, "comment": found["help"]}
    return declared


def choose(notebook: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for some of a notebook's parameters, names checked and values parsed by declared type."""
    declared = parameters(notebook) if values else {}
    for name in values:
        checks.one_of(f"a parameter of {notebook.stem}", name, declared)
    return {name: _parse(name, declared[name]["type"], value) for name, value in values.items()}


def located(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters whose paths are absolute, for a notebook is executed in another folder than the caller's.

    A name that a parameter knows, such as ``"orl"``, comes before a file or folder of that name.
    """
    from ..stimulus.sources import SOURCES

    known, found = {"source": SOURCES, "root": (), "weights": ("imagenet", "random")}, dict(values)
    for name in known.keys() & values.keys():
        path = os.path.abspath(os.path.expanduser(str(values[name])))
        if values[name] and values[name] not in known[name] and (name == "root" or os.path.exists(path)):
            found[name] = path
    return found


def _parse(name: str, kind: str, value: Any) -> Any:
    try:
        parsed = _KINDS[kind](str(value))
    except (KeyError, ValueError):
        raise ValueError(f"{name} must be of type {kind}, not {value!r}") from None
    if parsed != parsed or re.search("[\0-\x1f\x7f\ud800-\udfff]", str(value)):
        raise ValueError(f"{name} must be a number or text without control characters, not {value!r}")
    return parsed


def profile_values(book: Path, profile: str) -> Values:
    """Return what a profile overrides in each notebook; ``"quick"`` is the notebooks' own parameters."""
    path = book / "profiles" / f"{checks.one_of('profile', profile, PROFILES)}.yml"
    given, paths = {} if profile == "quick" else read_yaml(path), notebooks(book)
    for name in given:
        checks.one_of(f"a notebook in {path.name}", name, paths)
    return {name: choose(notebook, given.get(name) or {}) for name, notebook in paths.items()}


def describe(root: Path | None = None) -> str:
    """Return a listing of the book's notebooks with their titles and parameters."""
    lines = []
    for name, path in notebooks((root or find_root()) / "book").items():
        title = re.search(r"^# +(.+)$", "\n".join(cell.source for cell in read(path).cells), re.MULTILINE)
        lines.append(f"{name}: {title[1] if title else 'untitled'}")
        for parameter, is_ in parameters(path).items():
            lines.append(f"    {parameter + '=' + str(is_['default']):<28} {is_['comment']}")
    return "\n".join(lines)


def read(path: Path) -> nbformat.NotebookNode:
    """Return a notebook."""
    return nbformat.read(path, as_version=4)


def finds(notebook: Path) -> bool:
    """Return whether a notebook decides claims."""
    return any(re.search(r"findings\.decide\(|glue_findings\(", cell.source) for cell in read(notebook).cells)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return what a YAML file says; nothing if there is none."""
    try:
        return (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
