"""The rooms of the package: who may import whom, and how much code there is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from count_lines import LIMIT, count

import fisherbook

PACKAGE = Path(__file__).parents[1] / "fisherbook"

# A module imports only from rows above its own.
ROWS = [
    "checks",
    "derivative",
    "store",
    "results",
    "angles",
    "faces",
    "stimulus",
    "networks",
    "losses",
    "ensembles",
    "backbones",
    "banks",
    "training",
    "activity",
    "fisher.covariance",
    "fisher.kernels",
    "fisher.circular",
    "fisher.classifiers",
    "fisher.arrays",
    "fisher.estimate",
    "fisher.intervals",
    "fisher.sampling",
    "fisher.codes",
    "fisher.calibration",
    "curves",
    "distances",
    "theory",
    "findings",
    "experiment",
    "gain",
    "schemes",
    "adaptation",
    "finetuning",
    "figures",
    "profiles",
    "publish",
    "reports",
    "cli",
]


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in TREES if not name.endswith("__init__")]


def row(name):
    """The place of a module in the table; the package `fisher` itself counts as the last of its modules."""
    if name == "fisher":
        return ROWS.index("fisher.calibration")
    return ROWS.index(name)


def imports(name):
    """All that a module imports, as absolute dotted names of modules or of things in them."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ["fisherbook", *name.split(".")][: -node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def siblings(name):
    """The modules of the package that a module imports."""
    found = set()
    for imported in imports(name):
        parts = imported.split(".")
        if parts[0] == "fisherbook":
            inner = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            found.add(next((one for one in inner if one in TREES or f"{one}.__init__" in TREES), ""))
    return found


def outsiders(name):
    """The dotted names, with all their beginnings, that a module imports from other packages."""
    parts = [imported.split(".") for imported in imports(name)]
    return {".".join(one[:end]) for one in parts for end in range(1, len(one) + 1)}


def test_imports_are_read_whatever_their_form():
    assert {"store", "checks"} <= siblings("results")
    assert {"xarray", "collections.abc", "importlib.metadata"} <= outsiders("results")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_rows_above_it(name):
    assert name in ROWS, f"{name} has no row in the table"
    assert "" not in siblings(name), f"{name} imports the whole package, or a module that is not there"
    low = sorted(other for other in siblings(name) if row(other) >= row(name))
    assert not low, f"{name} imports {', '.join(low)}, which is not above it"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("fisher.")])
def test_an_estimator_never_sees_a_network(name):
    assert not {"networks", "training", "losses"} & siblings(name)
    assert "torch.nn" not in outsiders(name)


@pytest.mark.parametrize(
    "name", [n for n in MODULES if n in ("stimulus", "networks", "losses", "training", "fisher.kernels")]
)
def test_networks_and_kernels_never_see_xarray(name):
    assert "xarray" not in outsiders(name)
    assert "results" not in siblings(name)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("figures", "publish", "cli")])
def test_what_computes_never_sees_a_picture(name):
    assert "figures" not in siblings(name)
    assert not {"holoviews", "bokeh", "panel", "matplotlib"} & outsiders(name)


def test_a_figure_never_computes():
    assert "torch" not in outsiders("figures")
    assert not {"experiment", "adaptation", "finetuning", "training", "networks"} & siblings("figures")


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_ever_unpickled(name):
    assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & outsiders(name)


def test_every_public_name_is_there_and_imported_only_when_it_is_asked_for():
    assert all(hasattr(fisherbook, name) for name in fisherbook.__all__)
    assert imported("import fisherbook.cli", {"torch", "holoviews", "sklearn"}) == "set()"


def test_who_only_looks_at_results_needs_no_torch():
    looking = "adapt", "curves", "distances", "figures", "findings", "gain", "grid", "keep", "open_results", "theory"
    assert imported(f"from fisherbook import {', '.join(looking)}", {"torch", "sklearn"}) == "set()"


def imported(code, names):
    """Which of these names code imports in a process of its own."""
    look = f"import sys\n{code}\nprint({names} & {{*sys.modules}})"
    return subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip()


def test_the_package_stays_thin():
    lines = count(PACKAGE)
    assert sum(lines.values()) <= LIMIT, lines
