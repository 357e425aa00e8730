"""Reports over several runs of a notebook.

How a run differs from the book, two runs laid side by side, a grid of parameters, published results verified.
"""

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from scipy.special import stdtrit
from tqdm import tqdm

from .. import checks
from . import execute, profiles
from .outcomes import Outcome, inert, outcome

VERIFIED = "verified.json"  # lies beside published datasets: when they were last verified, and how that went
_CELL = """import json
from pathlib import Path

import pandas as pd

from fisherbook import figures

figures.setup()
table = pd.DataFrame(json.loads(Path("table.json").read_text(encoding="utf-8")))
figures.show(figures.estimates(table), {caption!r}, table, "estimates")
shown = table.pivot(index="claim", columns="run", values="found").style.format(escape="html")
shown.format_index(escape="html", axis="index").format_index(escape="html", axis="columns")"""
_CAPTION = (
    "Each claim's estimate with its 95 % interval, run by run. Dashed: the threshold that decides. Green: holds; "
    "red: does not hold; grey: not settled."
)


def rerun(notebook: str, settings: Sequence[str] = (), profile: str = "quick", root: Path | None = None) -> str:
    """Execute a notebook (`execute.rerun`) and return where its page is and how it differs from the book's own."""
    page = execute.rerun(notebook, settings, profile, root)
    new = outcome(str(page.parents[2]), root)
    for book in ("published", "quick"):
        try:
            return "\n".join([str(page), *differences(new, outcome(f"{book}/{notebook}", root))])
        except ValueError:
            continue
    return f"{page}\nthe book was not built, so there is nothing to compare it with"


def differences(new: Outcome, old: Outcome) -> list[str]:
    """Return a line for each parameter that differs between two runs of a notebook, and for each claim."""
    changed = [f"{n} = {v} ({old.profile}: {old.parameters.get(n)})" for n, v in _changed(new, old).items()]
    lines = [f"parameters as in the {old.profile} book" if not changed else "; ".join(changed)]
    before = {row["sentence"]: row for row in old.findings}
    for row in new.findings:
        was = before.get(row["sentence"])
        other = f"{was['verdict']}, {was['number']}" if was else "not claimed"
        lines.append(f"{row['sentence']}: {row['verdict']}, {row['number']} ({old.profile}: {other})")
    return lines


def compare(first: str, second: str, root: Path | None = None) -> Path:
    """Lay two runs of a notebook side by side and return the page: a figure of their estimates, and their verdicts.

    `first` and `second` are names as `execute.outcome` takes.
    """
    a, b = (outcome(name, root) for name in (first, second))
    if a.notebook != b.notebook:
        raise ValueError(f"only runs of one notebook can be compared, not {a.notebook} with {b.notebook}")
    labels = [f"A: {a.profile}", f"B: {b.profile}"]
    told = [
        *(f"{s}: {path.name if path.is_absolute() else path}" for s, path in (("A", Path(first)), ("B", Path(second)))),
        *(f"{n}: A {a.parameters.get(n)}, B {v}" for n, v in _changed(b, a).items()),
    ]
    return _report(f"{a.notebook}: two runs", told, [first, second], labels, root)


def sweep(notebook: str, settings: Sequence[str], profile: str = "quick", root: Path | None = None) -> Path:
    """Run a notebook over a grid of parameters and return a page with all its verdicts.

    Parameters
    ----------
    notebook : str
    settings : sequence of str
        Each ``name=value``; a name that comes again adds a value, and every combination is run.
    profile, root
        As for `execute.build`.
    """
    grid: dict[str, list[str]] = {}
    for setting in settings:
        grid.setdefault(setting.partition("=")[0], []).append(setting)
    if not any(len(values) > 1 for values in grid.values()):
        raise ValueError("a sweep needs a parameter with several values, such as -p replicates=4 -p replicates=8")
    root = root or profiles.find_root()
    chosen = list(itertools.product(*grid.values()))
    values = [execute.values_of(notebook, c, profile, root) for c in chosen]  # all are looked at before one is run
    if same := [", ".join(c) for k, c in enumerate(chosen) if values[k] in values[:k]]:
        raise ValueError(f"a sweep needs values that differ: {same[0]} is there already")
    if not profiles.finds(root / "book" / f"{notebook}.ipynb"):
        raise ValueError(f"{notebook} makes no claims, so there is nothing to lay side by side")
    folders = []
    for condition in tqdm(chosen, desc="sweep", leave=False):
        try:
            folders.append(str(execute.execute(notebook, condition, profile, root)))
        except RuntimeError as error:
            raise RuntimeError(f"{', '.join(condition)}: {error}") from error
    named = [outcome(folder, root).parameters for folder in folders]  # which tell no path
    labels = [", ".join(f"{name}={told[name]}" for name in grid if name in told) for told in named]
    labels = [f"{label} ({k})" if labels.count(label) > 1 else label for k, label in enumerate(labels, 1)]
    return _report(f"{notebook}: a sweep", labels, folders, labels, root)


def verify(names: Sequence[str] = (), root: Path | None = None) -> str:
    """Compute a small piece of published results again and return how the estimates compare.

    Which piece, ``book/profiles/verify.yml`` says, as parameters that replace the published ones. A result whose faces
    are not at hand is left out, and said to be. How it went is kept beside the results, for the colophon.

    Parameters
    ----------
    names : sequence of str
        Notebooks; by default all that have such a piece.
    root : Path, optional

    Raises
    ------
    RuntimeError
        If an estimate differs from the published one by more than chance would have it, once in twenty times for all
        together: the difference over its standard error is Student's, with the lesser degrees of freedom.
    """
    root = root or profiles.find_root()
    pieces = profiles.read_yaml(root / "book" / "profiles" / "verify.yml")
    pairs, lines = [], []
    chosen = {checks.one_of("notebook", name, pieces): pieces[name] for name in names or pieces}
    for notebook, values in tqdm(chosen.items(), desc="verify", leave=False):
        old = outcome(f"published/{notebook}", root)
        if old.parameters.get("source", "orl") == "celeba" and not os.environ.get("FISHERBOOK_CELEBA"):
            lines.append(f"{notebook}: not verified, for FISHERBOOK_CELEBA names no folder with CelebA")
            continue
        folder = execute.execute(notebook, [f"{n}={v}" for n, v in values.items()], "published", root)
        known = {row["sentence"]: row for row in old.findings}
        pairs += [(notebook, row, known[row["sentence"]]) for row in outcome(str(folder), root).findings]
    agreed: dict[str, list[bool]] = {}
    for notebook, new, old in pairs:
        error = np.hypot(new["standard_error"], old["standard_error"])
        limit = error * stdtrit(min(new["dof"], old["dof"]), 1 - 0.025 / len(pairs))
        same = np.array_equal(new["value"], old["value"], equal_nan=True)  # NaN or infinite, too
        agrees = same or bool(abs(new["value"] - old["value"]) <= limit)
        agreed.setdefault(notebook, []).append(agrees)
        told = f"{notebook}: {new['sentence']}: {new['number']} (published: {old['number']})"
        lines.append(told + " DIFFERS" * (not agrees))
    for notebook, each in agreed.items():
        if (folder := root / "data" / "results" / notebook).is_dir():
            record = {"date": f"{date.today()}", "estimates": len(each), "agree": sum(each)}
            (folder / VERIFIED).write_text(json.dumps(record) + "\n")
    if apart := len(pairs) - sum(map(sum, agreed.values())):
        raise RuntimeError("\n".join([f"{apart} of {len(pairs)} estimates differ from those published", *lines]))
    return "\n".join(lines)


def table(names: Sequence[str], labels: Sequence[str], root: Path | None = None) -> pd.DataFrame:
    """Return the findings of several runs, one row per run and claim, for `figures.estimates`.

    Parameters
    ----------
    names : sequence of str
        Runs, as `execute.outcome` takes them.
    labels : sequence of str
        What to call them.
    root : Path, optional
    """

    def drawn(text: str) -> str:
        return re.sub(r"<(?=[\w/!])", "<\u2060", text)  # a figure's labels stand in a script, which no text may end

    rows = [
        {
            "run": drawn(label), "claim": drawn(row["sentence"]), "estimate": row["shown"][0], "low": row["shown"][1],
            "high": row["shown"][2], "thresholds": tuple(row["thresholds"]), "verdict": row["verdict"],
            "found": f"{row['verdict']}: {row['number']}",
        }
        for name, label in zip(names, labels, strict=True)
        for row in outcome(name, root).findings
    ]  # fmt: skip
    if not rows:
        raise ValueError("these runs have no claims to compare")
    return pd.DataFrame(rows)


def _changed(new: Outcome, old: Outcome) -> Mapping[str, Any]:
    return {name: value for name, value in new.parameters.items() if old.parameters.get(name) != value}


def _report(title: str, told: Sequence[str], names: list[str], labels: list[str], root: Path | None) -> Path:
    items = "".join(f"<li>{inert(line)}</li>" for line in told)
    cells = [
        new_markdown_cell(f"# {title}\n\n<ul>{items}</ul>", id="title"),
        new_code_cell(_CELL.format(caption=_CAPTION), id="report", metadata={"tags": ["hide-input"]}),
    ]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    rows = json.dumps(table(names, labels, root).to_dict("records"))
    return execute.report(nbformat.from_dict(notebook), rows, root)
