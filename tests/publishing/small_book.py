"""A book of two pages in a folder of its own, for tests of what builds books."""

import shutil
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[2]
PARAMETERS = """replicates: int = 4  # networks
kappa: float = 0.5  # concentration
source: str = "orl"  # faces
fast: bool = False  # do less"""
FINDING = """from fisherbook.statistics.findings import Claim, Estimate, glue_findings, judge, table

claim = Claim("Replicates are many", "above", 3.0)
verdicts = judge({claim: Estimate(replicates, 0.1, 10, replicates)})
glue_findings(verdicts)
table(verdicts)"""


def write_notebook(path, *cells):
    """Write a notebook of code cells below a title; a cell that begins with a parameter is tagged as such."""
    notebook = new_notebook(cells=[new_markdown_cell(f"# Title of {path.stem}", id="title")])
    for number, source in enumerate(cells):
        cell = new_code_cell(source, id=f"cell{number}")
        if source.startswith("replicates:"):
            cell.metadata["tags"] = ["parameters"]
        notebook.cells.append(cell)
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def small_book(root, colophon=False):
    """Write a book with the checkout's configuration and one notebook, ``first``, or a colophon as well."""
    book = root / "book"
    for part in ("_static", "profiles"):
        shutil.copytree(ROOT / "book" / part, book / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "_config.yml", root / "_config.yml")
    for references in (ROOT / "book").glob("*.bib"):
        shutil.copy(references, book)
    pages = ["first", *["colophon"] * colophon]
    (book / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nchapters:\n" + "".join(f"- file: {p}\n" for p in pages)
    )
    (book / "intro.md").write_text("# A book\n\n```{include} findings_table.md\n```\n")
    (book / "budgets.yml").write_text("first: 30\n")
    (book / "profiles" / "published.yml").write_text("first: {replicates: 5, kappa: 1e-3}\n")
    write_notebook(book / "first.ipynb", PARAMETERS, "print(replicates * kappa, source, fast)")
    if colophon:
        write_notebook(book / "colophon.ipynb", "from pathlib import Path\n\nprint(Path('runs.json').read_text())")
    return root
