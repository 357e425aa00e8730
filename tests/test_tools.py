"""What stands beside the package runs: the benchmark at its smallest, and the tools' help."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow  # each is a process that imports torch


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / script, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


@pytest.mark.parametrize("script", ["benchmarks/bench.py", "tools/commit_notebooks.py"])
def test_a_script_tells_how_it_is_used(script):
    assert "usage" in run(script, "--help")


def test_lines_of_code_are_counted_module_by_module():
    assert "fisher/kernels.py" in run("tools/count_lines.py")


@pytest.mark.parametrize("part", ["training", "recordings", "resnet", "headline"])
def test_a_part_of_the_benchmark_runs_at_its_smallest(part, tmp_path):
    shown = run("benchmarks/bench.py", "--quick", "--repeats", "1", "--threads", "1", "--only", part,
                "--json", str(tmp_path / "rows.json"))  # fmt: skip
    assert shown.startswith(part)
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert all(row["part"] == part and abs(row["value"]) < float("inf") for row in rows)
    # A time is the difference of a long and a short run: so small, beside other programs, it may come out negative.
    certain = [row["value"] for row in rows if row["what"] == "peak memory" or row["what"].startswith("bound")]
    assert certain and min(certain) > 0
