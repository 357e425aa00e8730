"""The tables of the results page: dimensions and variables as the package has them.

Before the pages are read, ``results.DIMENSIONS`` and ``results.VARIABLES`` become
``dimensions_table.md`` and ``variables_table.md``, which that page includes. Neither
is a page.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from ... import results

TABLES = ("dimensions", "variables")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("builder-inited", _write_tables)
    app.config.exclude_patterns += [f"{name}_table.md" for name in TABLES]
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write_tables(app: Sphinx) -> None:
    for name in TABLES:
        text = table(getattr(results, name.upper()))
        path = Path(app.srcdir) / f"{name}_table.md"
        path.write_text(text, encoding="utf-8")


def table(known: Mapping[str, tuple[str, str]]) -> str:
    """Return names with their units and meanings as a Markdown table."""
    rows = [f"| `{name}` | `{unit}` | {said} |" for name, (unit, said) in known.items()]
    return "\n".join(["| Name | Unit | Meaning |", "|---|---|---|", *rows]) + "\n"
