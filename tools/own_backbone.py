"""Compute data/results/own_backbone: what the page on the large network measures above another frozen backbone.

The page's own cells do it, with a Python file as `weights` (see book/rerun.md), but for the layers of fine-tuned
networks.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import nbformat

from fisherbook import results
from fisherbook.publishing import execute, profiles

ROOT, PAGE = Path(__file__).parents[1], "resnet_celeba"
SETTINGS = {"kinds": "frozen", "size": 64, "limit": 100, "held_out": 0.5, "steps": 200}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a Python file whose function backbone() returns a torch module")
    weights, page = os.path.abspath(parser.parse_args().weights), ROOT / "book" / f"{PAGE}.ipynb"
    declared = {name: is_["default"] for name, is_ in profiles.parameters(page).items()}
    used, start = declared | SETTINGS | {"weights": weights}, time.perf_counter()
    cells = [cell.source for cell in nbformat.read(page, as_version=4).cells if cell.cell_type == "code"]
    until = next(place for place, source in enumerate(cells, 1) if "fb.keep(" in source)
    lines = [line for source in cells[1:until] for line in source.splitlines() if not line.startswith("layered = ")]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FISHERBOOK_RESULTS"] = folder
        exec("\n".join(lines), dict(used))
        kept = Path(folder) / "own_backbone"
        (Path(folder) / PAGE).rename(kept)
        execute._sign(kept.glob("*.nc"), execute._told(used), round(time.perf_counter() - start, 1))
        results.seal(kept)
        execute._replace(ROOT / "data" / "results" / kept.name, kept)


if __name__ == "__main__":
    main()
