"""What a notebook found in a run that ended: its parameters and its findings."""

import ast
import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from .. import results
from ..statistics.claims import VERDICTS
from .profiles import find_root, read

_CHECKED = "# NBVAL_CHECK_OUTPUT\n"
OUTCOME = "outcome.json"  # lies beside the datasets that a notebook keeps
_HEADING = re.compile(r"^(#+ )(.*)\n<!-- (.+?) => (.+) \| (.+) -->$", re.MULTILINE)  # words of a claim => its results
_DAMAGE = re.compile(r"^.*: Damaged: (.*)\n(?:  .*\n?)?", re.MULTILINE)  # a warning as Python writes it


@dataclass(frozen=True)
class Outcome:
    """What a notebook found with its parameters: the rows of `findings.glue_findings`."""

    notebook: str
    profile: str
    parameters: dict[str, Any]
    findings: list[dict[str, Any]]


def outcome(name: str, root: Path | None = None) -> Outcome:
    """Return what a notebook found in a run that ended.

    Parameters
    ----------
    name : str
        The page or folder of a `rerun`; or a profile and a notebook, such as ``"quick/roughness"``, for what the last
        build found; ``"published/roughness"`` for what ``data/results`` has.
    root : Path, optional
    """
    root, path = root or find_root(), Path(name).absolute()
    if path.exists():
        nearest = (list(folder.glob(f"results/*/{OUTCOME}")) for folder in (path, *path.parents[:4]))
        files = next(filter(None, nearest), [])
        files = [file for file in files if len(files) == 1 or file.parent.name in (path.stem, path.parent.name)]
    else:
        profile, _, notebook = name.partition("/")
        parts = (root / "data", root / "_build" / "executed" / profile)
        places = (part / "results" / notebook / OUTCOME for part in parts[profile != "published" :])
        files = [place for place in places if place.is_file()]
    if not files:
        which = "give a page that `fisherbook run` made, or such as quick/roughness"
        raise ValueError(f"there is no run {name!r}: {which}")
    results.verify(files[0])
    try:
        found = Outcome(**json.loads(files[0].read_text(encoding="utf-8")))
        ours = re.fullmatch(r"\w+", found.notebook) and all(map(_is_finding, found.findings))
    except (TypeError, KeyError, ValueError, RecursionError):
        ours = False
    if not ours:
        raise ValueError(f"{files[0]} is no record of a run of a notebook")
    return found


def _is_finding(row: Mapping[str, Any]) -> bool:
    numbers, texts = sum((*row["shown"], *row["thresholds"], row["value"])), row["sentence"] + row["number"]
    return row["verdict"] in VERDICTS and isinstance(numbers, int | float) and isinstance(texts, str)


def inert(text: str) -> str:
    """Return a text as one line of HTML, which shows it and never does what it says."""
    return html.escape(" ".join(text.split()))


def tidy(path: Path, profile: str, used: Mapping[str, Any], kept: Path) -> list[str]:
    """Fold what is not for readers in an executed notebook, and say what made the page.

    Its title becomes its answer, and a heading with ``<!-- words of a claim => if it holds | if not -->`` below it its
    result, where that is settled. Cells tagged ``talk`` come up to the first screens. At its end the page offers the
    datasets in the folder `kept`.
    What was damaged in the store, and computed anew, is no matter of the page: it is returned.
    """
    notebook, damaged = read(path), []
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("hide-input")
            cell.metadata["mystnb"] = {"code_prompt_show": "Show: parameters of this run"}
            names = re.findall(r"^(\w+) = ", cell.source, re.MULTILINE)
            cell.source = "\n".join(f"{name} = {used.get(name, '...')!r}" for name in names)
        if cell.source.startswith(_CHECKED):  # its printed lines are for the tests: readers have the table
            cell.source = cell.source.removeprefix(_CHECKED)
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
            if not cell.outputs:
                cell.metadata["tags"] = [*cell.metadata.get("tags", []), "remove-cell"]
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                damaged += _DAMAGE.findall(output.text)
                output.text = _DAMAGE.sub("", output.text)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""]
    if heading := next((told["title"] for told in _glued(notebook, "answered")), ""):
        notebook.cells[0].source = re.sub(r"\A# .*", lambda _: f"# {heading}", notebook.cells[0].source)
    rows = [row for found in _glued(notebook, "findings") for row in found]
    for cell in (cell for cell in notebook.cells if cell.cell_type == "markdown"):
        cell.source = _HEADING.sub(lambda match: _result(match, rows), cell.source)
    told = inert(", ".join(f"{name} = {value}" for name, value in used.items()))
    made = f'<p class="fb-made">Made with the <b>{profile}</b> profile{told and ": " + told}</p>'
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(made, id="made-with"))
    talk = [cell for cell in notebook.cells if "talk" in cell.metadata.get("tags", [])]
    rest = [cell for cell in notebook.cells if cell not in talk]
    begun = [cell for cell in rest if "figures.setup()" in cell.source] if talk else []
    notebook.cells = rest[:1] + begun + talk + [cell for cell in rest[1:] if cell not in begun]
    if files := sorted(kept.glob("*.nc")):
        links = ", ".join(f"{{download}}`{file.name} <results/{kept.name}/{file.name}>`" for file in files)
        notebook.cells.append(nbformat.v4.new_markdown_cell(f"Data of this page (netCDF): {links}", id="datasets"))
    nbformat.write(notebook, path)
    return damaged


def _result(heading: re.Match[str], rows: list[dict[str, Any]]) -> str:
    level, neutral, words, *results = heading.groups()
    row = next((row for row in rows if words in row["sentence"]), {"verdict": "", "number": ""})
    said = dict(zip(VERDICTS, results, strict=False)).get(row["verdict"], neutral)
    return level + said.replace("{value}", row["number"].partition(" ")[0])


def findings_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows that `findings.glue_findings` left in an executed notebook, and their page."""
    for rows in _glued(read(path), "findings"):
        yield from (row | {"page": path.name} for row in rows)


def answers_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what `findings.answer` left in an executed notebook, and its page."""
    return (told | {"page": path.name} for told in _glued(read(path), "answered"))


def _glued(notebook: nbformat.NotebookNode, name: str) -> Iterator[Any]:
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
            (text,) = output.data.values()  # what is glued is shown as Python would show it: a quoted string
            yield json.loads(ast.literal_eval(text))
