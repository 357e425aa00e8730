"""The tables of the results page: dimensions and variables as the package has them, and what each file holds.

Before the pages are read, ``results.DIMENSIONS`` and ``results.VARIABLES`` become
``dimensions_table.md`` and ``variables_table.md``, and the datasets beside the pages
``files_table.md``. That page includes all three; none is a page.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from ... import results

TABLES = ("dimensions", "variables", "files")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("builder-inited", _write_tables)
    app.config.exclude_patterns += [f"{name}_table.md" for name in TABLES]
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write_tables(app: Sphinx) -> None:
    folder = Path(app.srcdir)
    texts = (known(results.DIMENSIONS), known(results.VARIABLES), files(folder))
    for name, text in zip(TABLES, texts, strict=True):
        (folder / f"{name}_table.md").write_text(text, encoding="utf-8")


def known(names: Mapping[str, tuple[str, str]]) -> str:
    """Return names with their units and meanings as a Markdown table."""
    rows = ((f"`{name}`", f"`{unit}`", said) for name, (unit, said) in names.items())
    return table(("Name", "Unit", "Meaning"), rows)


def files(book: Path) -> str:
    """Return what each dataset of a built book holds, name by name, as Markdown with one fold for each file."""
    paths = sorted(book.glob("results/*/*.nc"))
    parts = []
    for folder, own in groupby(paths, lambda path: path.parent):
        parts += [f"{{doc}}`{folder.name}`", *map(holds, own)]
    return "\n\n".join(parts or ["None: the notebooks of this site kept none."]) + "\n"


def holds(path: Path) -> str:
    """Return a fold with all names of a file: over what, with units and long names."""
    dataset = results.load(path)
    rows = []
    for name in (*dataset.coords, *dataset.data_vars):
        each = dataset[name]
        over = str(each.size) if name in dataset.dims else " × ".join(map(str, each.dims)) or "one value"
        rows.append((f"`{name}`", over, f"`{each.units}`", each.long_name))
    name, size = f"{path.parent.name}/{path.stem}", f"{path.stat().st_size / 1000:.0f} kB"
    link = f"{{download}}`{path.name} <results/{path.parent.name}/{path.name}>`"
    said = f'`fb.open_results("{name}")`, or {link}, {size}.'
    body = table(("Name", "Values, or over", "Unit", "Meaning"), rows)
    return f"````{{dropdown}} {name}: {', '.join(map(str, dataset.data_vars))}\n{said}\n\n{body}````"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return rows as a Markdown table."""
    head = list(head)
    lines = [[text.replace("|", r"\|") for text in row] for row in (head, ["---"] * len(head), *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
