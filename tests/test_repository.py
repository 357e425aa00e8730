"""What holds the repository together: the same names in every list, and notebooks that keep to their form."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
import yaml
from commit_notebooks import is_checked, ready
from packaging.requirements import Requirement
from sphinx_external_toc.parsing import parse_toc_yaml

from fisherbook import results
from fisherbook.publishing import execute, outcomes, profiles

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
PACKAGE = ROOT / "fisherbook"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
NO_FINDINGS = {"colophon"}

# Where conda-forge's name is another than PyPI's, or more than one package.
CONDA_NAMES = {"torch": ["pytorch"], "h5netcdf": ["h5netcdf", "h5py"]}
IMPORT_NAMES = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "IPython": "ipython",
    "sphinx_external_toc": "jupyter-book",
}
IMPORT_NAMES |= {
    "sphinx": "jupyter-book",
    "docutils": "jupyter-book",
    "nbclient": "papermill",
    "jupyter_client": "ipykernel",
}


def requirements(*extras):
    """Map the names of dependencies, extras included, to their version ranges."""
    lines = PROJECT["project"]["dependencies"]
    for extra in extras:
        lines = lines + PROJECT["project"]["optional-dependencies"][extra]
    found = {one.name: one for one in map(Requirement, lines)}
    inner = found.pop("fisherbook", None)  # an extra that takes in others
    others = requirements(*inner.extras) if inner else {}
    return others | {name: one.specifier for name, one in found.items()}


EVERYTHING = requirements(*PROJECT["project"]["optional-dependencies"])


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if not line.startswith("#"))


def test_environment_names_the_packages_of_the_project_with_the_same_ranges():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    with_pip = listed.pop()["pip"]
    assert with_pip.pop() == "--editable ."
    environment = {(r := Requirement(line)).name: r.specifier for line in listed + with_pip}
    assert environment.pop("python") == PROJECT["project"]["requires-python"]
    assert "pip" in environment
    del environment["pip"]
    expected = {}
    for name, specifier in EVERYTHING.items():
        names = CONDA_NAMES.get(name, [name])
        expected |= {names[0]: specifier} | dict.fromkeys(names[1:], "")
    assert {n: str(s) for n, s in environment.items()} == {n: str(s) for n, s in expected.items()}


def test_constraints_name_one_tested_version_of_every_dependency_within_its_range():
    tested = constraints()
    if not tested:
        pytest.skip("constraints.txt is empty, to try the newest versions")
    for name, specifier in EVERYTHING.items():
        assert specifier.contains(tested[name.lower()]), f"{name} {tested[name.lower()]} is not {specifier}"


def test_installed_versions_are_within_the_ranges():
    for name, specifier in requirements("dev").items():
        assert specifier.contains(version(name)), f"{name} {version(name)} is not {specifier}"


def imported(source):
    """Yield the dotted names that a module imports, relative ones with their dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            separator = "" if prefix.endswith(".") else "."
            yield from (prefix + separator + alias.name for alias in node.names)


def code_of(path):
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def test_whatever_is_imported_is_a_dependency():
    known = {name.lower() for name in requirements("book", "celeba", "cluster", "safetensors")} | {"fisherbook"}
    for path in [*PACKAGE.rglob("*.py"), *NOTEBOOKS]:
        for name in imported(code_of(path)):
            top = name.partition(".")[0]
            if top and top not in sys.stdlib_module_names:
                package = IMPORT_NAMES.get(top, top).replace("_", "-").lower()
                assert package in known, f"{path.name} imports {top}, which pyproject.toml does not name"


def test_every_page_is_in_the_table_of_contents_and_the_reverse():
    listed = set(parse_toc_yaml(BOOK / "_toc.yml"))
    pages = {path.stem for path in BOOK.iterdir() if path.suffix in (".md", ".ipynb")}
    assert listed == pages


NAMED = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/?)`|\]\(([\w./-]+)\)")  # in backticks, or as a link
FILES = (".py", ".pyi", ".md", ".yml", ".json", ".ipynb", ".toml", ".txt", ".css", "/")
MADE = ("_build", ".store", "../..", "_config.yml")  # not in a checkout, or in tests of the site's own


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/decisions"])
def test_paths_that_a_text_names_exist(page):
    texts = sorted((ROOT / page).glob("*.md")) if (ROOT / page).is_dir() else [ROOT / page]
    for text in texts:
        named = {one or other for one, other in NAMED.findall(text.read_text(encoding="utf-8"))}
        paths = {path for path in named if path.endswith(FILES) and not path.startswith(MADE)}
        missing = sorted(path for path in paths if not any((f / path).exists() for f in (ROOT, PACKAGE, text.parent)))
        assert not missing, f"{text.name} names {', '.join(missing)}"


def test_lint_and_the_hooks_before_a_commit_check_the_same():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    linted = [line.strip().replace("$(BIN)/", ".venv/bin/") for line in recipe.splitlines()]
    assert [hook["entry"].removesuffix(" --force-exclude") for hook in hooks] == linted


def test_every_notebook_has_a_budget_and_the_reverse():
    budgets = yaml.safe_load((BOOK / "budgets.yml").read_text())
    assert set(budgets) == {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_profiles_name_parameters_that_the_notebooks_have(profile):
    assert set(profiles.profile_values(BOOK, profile)) == {path.stem for path in NOTEBOOKS}


def test_the_pieces_that_are_verified_are_of_parameters_that_the_notebooks_have():
    for name, values in profiles.read_yaml(BOOK / "profiles" / "verify.yml").items():
        profiles.choose(BOOK / f"{name}.ipynb", values)


PUBLISHED = sorted((ROOT / "data" / "results").glob("*/"))
BESIDE = "own_backbone"  # no notebook's: the large network's page opens it, and a tool computes it


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_datasets_have_one_vocabulary_and_hold_information_by_angle_replicate_and_stage(folder):
    by, kept = {"angle", "replicate"}, []
    for path in sorted(folder.glob("*.nc")):
        dataset = results.load(path)  # with the units of the vocabulary, or an error
        assert set(dataset.dims) <= results.DIMENSIONS.keys(), path
        assert set(dataset.variables) <= results.DIMENSIONS.keys() | results.VARIABLES.keys(), path
        measured = [dataset[name].dims for name in ("fisher_information", "log_fisher") if name in dataset]
        kept += [dims for dims in measured if by < {*dims} and {"stage", "iteration"} & {*dims}]
    assert kept, f"no dataset of {folder.name} has information over angle, replicate and stage or iteration"


def test_what_lies_beside_the_published_results_was_made_by_the_page_that_shows_it():
    folder, page = ROOT / "data" / "results" / BESIDE, BOOK / "resnet_celeba.ipynb"
    (made,) = {results.load(path).attrs["parameters"] for path in folder.glob("*.nc")}
    assert {path.stem for path in folder.glob("*.nc")} == {"information", "losses", "upright"}
    assert json.loads(made).keys() == profiles.parameters(page).keys() - {"root"}
    assert f'"{BESIDE}/' in code_of(page)


@pytest.mark.slow
@pytest.mark.parametrize("folder", [f for f in PUBLISHED if f.name != BESIDE], ids=lambda folder: folder.name)
def test_published_results_obey_the_schema_and_were_made_with_the_published_parameters(folder):
    values = profiles.profile_values(BOOK, "published")[folder.name]
    used = {name: is_["default"] for name, is_ in profiles.parameters(BOOK / f"{folder.name}.ipynb").items()} | values
    assert execute._made_with(folder, used)  # which reads, and so validates, every dataset
    outcome = outcomes.outcome(f"published/{folder.name}", ROOT)
    assert execute._not_where(outcome.parameters) == execute._not_where(used)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3e6


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    notebook = nbformat.read(request.param, as_version=4)
    notebook.name = request.param.stem
    return notebook


def test_notebook_is_committed_without_output_but_its_verdicts(notebook):
    clean = ready(notebook)
    for cell, expected in zip(notebook.cells, clean.cells, strict=True):
        assert cell.metadata == expected.metadata, "run `make notebooks`"
        if cell.cell_type == "code":
            assert cell.execution_count == expected.execution_count, "run `make notebooks`"
            assert cell.outputs == expected.outputs, "run `make notebooks`"


def test_checked_cells_print_nothing_but_verdicts(notebook):
    for cell in filter(is_checked, notebook.cells):
        for output in cell.outputs:
            assert output.output_type == "stream"
            for line in output.text.splitlines():
                assert re.fullmatch(r".+: (holds|does not hold|not settled)", line)


def test_a_notebook_with_findings_has_one_checked_cell_and_its_verdicts(notebook):
    checked = list(filter(is_checked, notebook.cells))
    assert len(checked) == profiles.finds(BOOK / f"{notebook.name}.ipynb")
    assert all(cell.outputs for cell in checked), "run `make book` and then `make notebooks`"


def lines_of(source):
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def bound(source):
    """Names that a cell binds at its top level."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (
            n.id for t in targets if t for n in ast.walk(t) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        )


def test_notebook_needs_no_path_and_is_formatted_like_the_rest(notebook):
    assert len(notebook.cells) <= 32
    source = "\n".join(cell.source for cell in code_cells(notebook))
    assert not re.search(r"sys\.path|os\.chdir|%cd|%run|^!", source, re.MULTILINE)
    assert "fmt: skip" not in source


def test_a_finding_is_thin_and_has_no_plumbing(notebook):
    if notebook.name in NO_FINDINGS:
        pytest.skip("says what made the pages")
    cells = [cell.source for cell in code_cells(notebook)]
    assert sum(len(lines_of(source)) for source in cells) <= 220
    assert max(len(lines_of(source)) for source in cells) <= 30
    source = "\n".join(cells)
    assert len(re.findall(r"^ *def ", source, re.MULTILINE)) <= 6
    assert not re.findall(r"functools|lru_cache|np\.moveaxis|MultiIndex|xr\.concat", source)
    names = [name for source in cells for name in set(bound(source))]
    assert not {name for name in names if names.count(name) > 1}, "bound in two cells"


def test_a_finding_shows_its_experiment_its_statistics_and_its_verdict(notebook):
    if notebook.name in NO_FINDINGS:
        pytest.skip("says what made the pages")
    shown = [cell.source for cell in code_cells(notebook) if "hide-input" not in cell.metadata.get("tags", [])]
    kept = re.findall(r"fb\.keep\(", "\n".join(cell.source for cell in code_cells(notebook)))
    assert len(re.findall(r"fb\.keep\(", "\n".join(shown))) == len(kept) > 0
    finds = any("findings.Claim(" in cell.source for cell in code_cells(notebook))
    assert any("findings.decide(" in source for source in shown) == finds
    folds = [
        c.metadata.get("mystnb", {}).get("code_prompt_show") for c in code_cells(notebook) if c.source not in shown
    ]
    assert all(folds) and all(len(name) > len("Show: ") for name in folds), "each fold has a name"


def test_parameters_are_typed_commented_scalars(notebook):
    if notebook.name == execute.LAST:
        pytest.skip("the colophon has no parameters")
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for line in cell.source.splitlines():
        assert re.fullmatch(r"\w+: (int|float|str|bool) = [^#]+  # \S.*", line), line
    assert len(profiles.parameters(BOOK / f"{notebook.name}.ipynb")) == len(cell.source.splitlines())
