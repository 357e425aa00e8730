"""Make the notebooks ready to commit: no output but the checked cells', taken from the last quick build."""

from pathlib import Path

import nbformat

CHECKED = "# NBVAL_CHECK_OUTPUT"


def is_checked(cell):
    """Whether a cell's output is compared when the tests execute its notebook."""
    return cell.cell_type == "code" and cell.source.startswith(CHECKED)


def ready(notebook, executed=None):
    """Return a notebook without outputs but the checked cells', taken from `executed` if it is given."""
    notebook = nbformat.from_dict(notebook)
    fresh = {cell.id: cell for cell in executed.cells} if executed else {}
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")}
        if cell.cell_type == "code":
            made = fresh.get(cell.id, cell)
            cell.outputs = made.outputs if is_checked(cell) and made.source == cell.source else []
            # nbval takes a cell that has outputs, but was never run, for a mistake
            cell.execution_count = made.execution_count if cell.outputs else None
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    for path in sorted((root / "book").glob("*.ipynb")):
        built = root / "_build" / "executed" / "quick" / path.name
        executed = nbformat.read(built, as_version=4) if built.is_file() else None
        nbformat.write(ready(nbformat.read(path, as_version=4), executed), path)
