"""The rooms of the package: who may import whom, and how much code there is."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from count_lines import LIMIT, count

import fisherbook

PACKAGE = Path(__file__).parents[1] / "fisherbook"

# A wing imports only from wings before it; a module at the top is a wing of its own.
GROUND = ["checks", "derivative", "store", "angles", "results"]
WINGS = [*GROUND, "stimulus", "network", "fisher", "statistics", "iteration", "experiment", "figures", "publishing"]
LIMITED = ("stimulus", "network", "fisher", "statistics", "iteration", "experiment")


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in TREES if not name.endswith("__init__")]


def wing(name):
    """The place of a module's wing in the list."""
    return WINGS.index(name.partition(".")[0])


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


@pytest.mark.parametrize("name", [n for n in MODULES if n != "__main__"])
def test_a_module_imports_only_from_its_own_wing_and_those_before_it(name):
    assert "" not in siblings(name), f"{name} imports the whole package, or a module that is not there"
    low = sorted(other for other in siblings(name) if wing(other) > wing(name))
    assert not low, f"{name} imports {', '.join(low)}, which is in a later wing"


def test_no_two_modules_import_each_other():
    graph = {name: {other for other in siblings(name) if other in MODULES} for name in MODULES}
    while free := [name for name, needed in graph.items() if not needed & graph.keys()]:
        graph = {name: needed for name, needed in graph.items() if name not in free}
    assert not graph, f"in a circle: {', '.join(graph)}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("fisher.")])
def test_an_estimator_never_sees_a_network(name):
    assert not [other for other in siblings(name) if other.startswith("network")]
    networks = re.compile(r"torch\.nn(?!\.functional)")  # functions are none
    assert not list(filter(networks.match, imports(name)))


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith(("stimulus", "network")) or n == "fisher.kernels"])
def test_networks_and_kernels_never_see_xarray(name):
    assert "xarray" not in outsiders(name)
    assert "results" not in siblings(name)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(("figures", "publishing"))])
def test_what_computes_never_sees_a_picture(name):
    assert "figures" not in siblings(name)
    assert not {"holoviews", "bokeh", "panel", "matplotlib"} & outsiders(name)


def test_a_figure_never_computes():
    assert "torch" not in outsiders("figures")
    assert not [one for one in siblings("figures") if one.startswith(("network", "iteration", "experiment"))]


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_ever_unpickled(name):
    assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & outsiders(name)


@pytest.mark.slow
def test_every_public_name_is_there_and_imported_only_when_it_is_asked_for():
    assert all(hasattr(fisherbook, name) for name in fisherbook.__all__)
    assert imported("import fisherbook.publishing.cli", {"torch", "holoviews", "sklearn"}) == "set()"


@pytest.mark.slow
def test_who_only_looks_at_results_needs_no_torch():
    looking = "adapt", "curves", "distances", "figures", "findings", "gain", "grid", "keep", "open_results", "power_law"
    assert imported(f"from fisherbook import {', '.join(looking)}", {"torch", "sklearn"}) == "set()"


def imported(code, names):
    """Which of these names code imports in a process of its own."""
    look = f"import sys\n{code}\nprint({names} & {{*sys.modules}})"
    return subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip()


def test_the_package_stays_thin():
    lines = count(PACKAGE)
    assert sum(lines.values()) <= LIMIT, lines
