"""How the page on running the book begins: where the repository is, how to install it, and how long each page takes.

Before the pages are read, ``start.md`` and ``times_table.md`` are written, which that
page includes; neither is a page. The address is GitHub's own of a workflow, or that of
the checkout's ``origin``; without one the buttons are left out.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from ... import results, store
from ..profiles import notebooks, read_yaml
from .schema import table

MADE = ("start", "times_table")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("builder-inited", _write)
    app.config.exclude_patterns += [f"{name}.md" for name in MADE]
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write(app: Sphinx) -> None:
    book, checkout = Path(app.srcdir), store.checkout()
    texts = begin(address(checkout)), times(book, checkout / "data" / "results" if checkout else book / "results")
    for name, text in zip(MADE, texts, strict=True):
        (book / f"{name}.md").write_text(text, encoding="utf-8")


def address(checkout: Path | None) -> str:
    """Return the repository's address on GitHub, such as ``"https://github.com/owner/name"``, or nothing."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{name}"
    if checkout is None:
        return ""
    command = ["git", "-C", str(checkout), "remote", "get-url", "origin"]
    origin = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    host = r"(?:https://github\.com/|(?:ssh://)?git@github\.com[:/])"
    found = re.fullmatch(host + r"([\w.-]+/[\w.-]+?)(?:\.git)?/?", origin)
    return f"https://github.com/{found[1]}" if found else ""


def begin(repository: str) -> str:
    """Return buttons for a repository on GitHub, and the lines that install it, as Markdown."""
    lines = ["$ make setup", "$ .venv/bin/fisherbook run roughness -p replicates=8"]
    if not repository:
        told = "In a checkout of the repository, with Python 3.11 or newer:"
        return "\n".join([told, "", "```console", *lines, "```", ""])
    name = repository.removeprefix("https://github.com/")
    links = {
        "Repository": repository,
        "Open in Binder": f"https://mybinder.org/v2/gh/{name}/HEAD?urlpath=lab/tree/book",
        "Open in Codespaces": f"https://codespaces.new/{name}",
    }
    buttons = [f'<a href="{link}">{text}</a>' for text, link in links.items()]
    told = "Nothing is to be installed behind two of these buttons. On your own machine, with Python 3.11 or newer:"
    clone = [f"$ git clone {repository}", f"$ cd {name.rpartition('/')[2]}"]
    buttons = ['<p class="fb-buttons">', *buttons, "</p>"]
    return "\n".join([*buttons, "", told, "", "```console", *clone, *lines, "```", ""])


def times(book: Path, published: Path) -> str:
    """Return how long each notebook may take with quick parameters, and took with published ones, as a table."""
    budgets = read_yaml(book / "budgets.yml")
    rows = []
    for name in notebooks(book):
        files = sorted((published / name).glob("*.nc"))
        took = f"{results.load(files[0]).wall_time_s / 60:.0f} min" if files else "–"
        rows.append((f"{{doc}}`{name}`", f"{budgets.get(name, '–')} s", took))
    return table(("Page", "Quick, at most", "Published, took"), rows)
