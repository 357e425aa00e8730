"""A notebook whose verdict turns into its opposite fails; one that is no longer, or not yet, decided does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).parents[1] / "book"


def outcome(folder, committed, found):
    """Run nbval as the project does on a notebook that finds one thing and was committed with another."""
    shutil.copy(BOOK / "conftest.py", folder)
    source = f"# NBVAL_CHECK_OUTPUT\nprint({found!r})"
    cell = nbformat.v4.new_code_cell(source, execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{committed}\n")]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "finding.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--rootdir", folder, "-c", "/dev/null"]
    return subprocess.run([*command, folder / "finding.ipynb"], capture_output=True, text=True, cwd=folder).returncode


@pytest.mark.parametrize(
    ("committed", "found", "fails"),
    [
        ("it is rough: reproduced", "it is rough: reproduced", False),
        ("it is rough: reproduced", "it is rough: inconclusive", False),
        ("it is rough: inconclusive", "it is rough: not reproduced", False),
        ("it is rough: reproduced", "it is rough: not reproduced", True),
        ("it is rough: inconclusive", "it is smooth: inconclusive", True),
        ("it is rough: inconclusive", "it is rough: inconclusive\nand smooth: inconclusive", True),
    ],
)
def test_only_a_contradiction_fails(tmp_path, committed, found, fails):
    assert outcome(tmp_path, committed, found) == fails
