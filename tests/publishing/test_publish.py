import html
import itertools
import json
import queue
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_book import FINDING, PARAMETERS, small_book, write_notebook

from fisherbook import results
from fisherbook.publishing import execute, outcomes, profiles
from fisherbook.publishing.sphinx import glance

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path):
    return small_book(tmp_path)


@pytest.fixture
def no_site(monkeypatch):
    """Leave Jupyter Book out where only the notebooks matter."""
    monkeypatch.setattr(execute, "build_site", lambda root, copy, output, *options: output / "_build" / "html")


def text_of(path):
    cells = nbformat.read(path, as_version=4).cells
    outputs = (output for cell in cells if cell.cell_type == "code" for output in cell.outputs)
    return "".join(output.get("text", "") for output in outputs)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = small_book(tmp_path_factory.mktemp("built"))
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, FINDING, "print(replicates)")
    sources = {path: path.read_bytes() for path in (root / "book").rglob("*") if path.is_file()}
    page = execute.build(root=root)
    assert {path: path.read_bytes() for path in (root / "book").rglob("*") if path.is_file()} == sources
    return page.parent


def test_site_shows_the_finding_with_its_interval_its_verdict_and_a_link_to_its_page(built):
    page = (built / "intro.html").read_text()
    assert '<a class="reference internal" href="first.html">' in page
    assert "4.00 [3.78, 4.22]" in page
    assert '<span class="fb-verdict fb-holds">holds</span>' in page


def test_a_page_says_which_profile_and_parameters_made_it(built):
    made = "Made with the <b>quick</b> profile: replicates = 4, kappa = 0.5, source = orl, fast = False"
    assert made in (built / "first.html").read_text()


def test_site_refers_to_no_other_host_for_what_it_loads(built):
    for page in built.glob("*.html"):
        text = page.read_text()
        assert 'src="http' not in text
        assert '<link rel="stylesheet" type="text/css" href="http' not in text
    assert (built / "_static" / "vendor" / "mathjax" / "tex-chtml.js").is_file()


def test_executed_notebook_has_no_clock_times(built):
    executed = nbformat.read(built.parent / "book" / "quick" / "first.ipynb", as_version=4)
    assert "papermill" not in executed.metadata
    assert all(not {"papermill", "execution"} & set(cell.metadata) for cell in executed.cells)


def test_profile_overrides_parameters_and_folds_the_injected_cell(root, no_site):
    execute.build("published", root)
    path = root / "_build" / "book" / "published" / "first.ipynb"
    assert text_of(path) == "0.005 orl False\n"
    (injected,) = (
        c for c in nbformat.read(path, as_version=4).cells if "injected-parameters" in c.metadata.get("tags", [])
    )
    assert "hide-input" in injected.metadata.tags
    assert injected.metadata.mystnb.code_prompt_show == "Show: parameters of this run"


KEEP = """import numpy as np
import xarray as xr
import fisherbook as fb


def compute():
    with open({marker!r}, "a") as file:
        file.write("x")
    found = {{"square": ("replicate", np.arange(replicates) ** 2)}}
    return xr.Dataset(found, attrs={{"weights": "own", "parameters": "{{}}"}})


print(int(fb.keep("first/squares", compute).square.sum()))"""


def test_published_results_are_kept_shown_again_without_computing_and_computed_again_when_asked(root, no_site):
    marker, path = root / "marker", root / "book" / "first.ipynb"
    copy, kept = root / "_build" / "book" / "published", root / "data" / "results" / "first" / "squares.nc"

    def build(times, shown="30\n", **options):
        execute.build("published", root, **options)
        assert marker.read_text() == "x" * times
        assert text_of(copy / "first.ipynb") == shown

    write_notebook(path, PARAMETERS, KEEP.format(marker=str(marker)))
    build(1)
    dataset = results.load(kept)
    assert json.loads(dataset.attrs["parameters"])["replicates"] == 5
    assert dataset.attrs["weights"] == "own"
    made_by = dataset.attrs["source_modules"].split()
    assert "network.training" in made_by and "figures" not in made_by
    assert "{download}`squares.nc <results/first/squares.nc>`" in (copy / "first.ipynb").read_text()
    assert (copy / "results" / "first" / "squares.nc").is_file()
    shutil.rmtree(root / "_build")
    results.save((dataset + 1).assign_attrs(dataset.attrs), kept)
    results.seal(kept.parent)
    build(1, "35\n")  # on another machine, with other results
    build(2, fresh=True)
    build(2, fresh=True)  # which ended: nothing is left to do
    (root / "book" / "profiles" / "published.yml").write_text("first: {replicates: 4}\n")
    build(3, "14\n")
    execute.build("quick", root)
    assert marker.read_text() == "xxxx"


def flip(path):
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_damaged_dataset_of_the_book_is_named_and_computed_anew(root, no_site, capsys):
    marker, kept = root / "marker", root / "data" / "results" / "first" / "squares.nc"
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, KEEP.format(marker=str(marker)))
    execute.build("published", root)
    made = kept.read_bytes()
    for damaged in (kept, root / "_build" / "executed" / "published" / "results" / "first" / "squares.nc"):
        flip(damaged)
        capsys.readouterr()
        execute.build("published", root)
        said = f"fisherbook: first: {damaged} is damaged: it does not agree with its checksum in SHA256SUMS; it is comp"
        assert said in capsys.readouterr().err
        results.verify(damaged)
    assert marker.read_text() == "xx"  # the second time, the published one was whole
    assert results.load(kept).square.sum() == 30 and len(kept.read_bytes()) == len(made)


STORED = """from pathlib import Path

from fisherbook.store import default_store

stored = default_store().fill(
    "text", ["a"], lambda missing: [("a", "A")], lambda value, path: path.write_text(value), Path.read_text, ".txt"
)
print(stored)"""


def test_a_damaged_piece_of_the_store_is_named_and_computed_anew_and_does_not_fail_the_build(
    root, store_folder, capsys
):
    path = root / "book" / "first.ipynb"
    for change in ("", "\n# again"):
        write_notebook(path, PARAMETERS, STORED + change)
        page = execute.build(root=root)
        piece = store_folder / "text" / "a.txt"
        assert piece.read_text() == "A"
        piece.write_text("B")
    said = capsys.readouterr().err
    assert f"fisherbook: first: {piece} does not agree with its sidecar and counts as absent" in said
    assert "sidecar" not in (page.parent / "first.html").read_text()


@pytest.fixture
def published(tmp_path):
    """A published folder and what is to take its place."""
    for name in ("published", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path / "published", tmp_path / "kept"


@pytest.mark.parametrize("at", ["copytree", "rename", "clear"])
def test_published_results_are_replaced_whole_or_not_at_all_wherever_a_kill_comes(published, monkeypatch, at):
    folder, kept = published

    class Killed(BaseException):
        pass

    def killed(*arguments, **options):
        raise Killed

    module = {"copytree": execute.shutil, "rename": execute.Path, "clear": execute.store}[at]
    do = getattr(module, at)
    for turn in range(3):
        calls = itertools.count()
        with monkeypatch.context() as patched:
            patched.setattr(module, at, lambda *a, n=calls, t=turn, **o: killed() if next(n) == t else do(*a, **o))
            try:
                execute._replace(folder, kept)
            except Killed:
                execute._restore(folder)
        assert (folder / "file").read_text() in ("published", "kept")
        (folder / "file").write_text("published")
    execute._replace(folder, kept)
    assert (folder / "file").read_text() == "kept"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["kept", "published"]


def test_the_same_run_started_twice_waits_for_the_first_and_says_so(root, no_site, monkeypatch):
    folder = execute.execute("first", root=root)
    said = queue.SimpleQueue()  # not `capsys`, which may lose what another thread prints while it is read
    monkeypatch.setattr(execute, "_tell", said.put)
    with ThreadPoolExecutor(1) as other, execute._alone(folder):
        second = other.submit(execute.execute, "first", root=root)
        assert said.get(timeout=60) == f"waiting for another run that writes {folder}"
        time.sleep(0.2)
        assert not second.done()
        (folder / "book").rename(folder / "away")  # nobody works in it meanwhile
    assert second.result() == folder


def test_notebooks_run_with_this_python_whatever_jupyter_calls_python3(root, tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["false", "{connection_file}"], "display_name": "other", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, "import sys\n\nprint(sys.executable)")
    assert text_of(execute.execute("first", root=root) / "first.ipynb") == f"{sys.executable}\n"


def test_single_notebooks_leave_published_results_without_a_site(root):
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, KEEP.format(marker=str(root / "marker")))
    folder = execute.compute_published(["first"], root)
    assert json.loads(results.load(folder / "first" / "squares.nc").attrs["parameters"])["replicates"] == 5
    assert not (root / "_build" / "html").exists()
    with pytest.raises(ValueError, match="did you mean 'first'"):
        execute.compute_published(["frist"], root)


def test_colophon_is_executed_last_and_reads_the_records(tmp_path, no_site):
    root = small_book(tmp_path, colophon=True)
    execute.build(root=root)
    copy = root / "_build" / "book" / "quick"
    (record,) = json.loads(text_of(copy / "colophon.ipynb"))
    assert record["notebook"] == "first"
    assert record["parameters"] == {"replicates": 4, "kappa": 0.5, "source": "orl", "fast": False}
    assert record["budget"] == 30
    assert 0 < record["seconds"] < 60


def test_an_unchanged_notebook_is_not_executed_again_and_a_changed_one_is(root, no_site):
    marker = root / "marker"
    run = f"with open({str(marker)!r}, 'a') as file:\n    file.write('x')"
    path = root / "book" / "first.ipynb"
    write_notebook(path, PARAMETERS, run)
    for expected in ("x", "x"):
        execute.build(root=root)
        assert marker.read_text() == expected
    (kept,) = execute.unchanged(root).values()
    assert (kept / outcomes.OUTCOME).is_file()
    write_notebook(path, PARAMETERS, run + "\n")
    assert execute.unchanged(root) == {}
    execute.build(root=root)
    assert marker.read_text() == "xx"
    (root / "data").mkdir()
    (root / "data" / "faces.npz").write_bytes(b"other data")
    execute.build(root=root)
    assert marker.read_text() == "xxx"


def test_a_record_without_its_notebook_counts_for_nothing(root, no_site):
    execute.build(root=root)
    executed = root / "_build" / "executed" / "quick"
    for spoil in ((executed / "first.ipynb").unlink, lambda: (executed / "first.json").write_text("{")):
        spoil()
        execute.build(root=root)
        assert json.loads((executed / "first.json").read_text())["notebook"] == "first"
        assert (executed / "first.ipynb").is_file()


def test_kernels_share_the_cores_hash_alike_and_draw_no_progress_bars(root, no_site):
    look = "import os; print(*(os.environ[n] for n in ('OMP_NUM_THREADS', 'PYTHONHASHSEED', 'TQDM_DISABLE')))"
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, look)
    execute.build(root=root)
    threads, seed, disabled = text_of(root / "_build" / "book" / "quick" / "first.ipynb").split()
    assert int(threads) >= 1
    assert (seed, disabled) == ("0", "1")


def test_a_failing_notebook_is_named_with_its_cell_and_its_error(root):
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, "1 / 0")
    with pytest.raises(RuntimeError) as failure:
        execute.build(root=root)
    assert str(failure.value) == (
        "first.ipynb failed in cell [2], which begins '1 / 0':\n  ZeroDivisionError: division by zero"
    )


def test_a_warning_in_a_notebook_and_a_link_to_nowhere_fail_the_build(root):
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, "import warnings\n\nwarnings.warn('careful')")
    (root / "book" / "intro.md").write_text("# A book\n\n[nowhere](nowhere.md)\n")
    with pytest.raises(RuntimeError, match="the site was not built:") as failure:
        execute.build(root=root)
    assert re.search(r"first\.ipynb.*stderr", str(failure.value))
    assert re.search(r"intro\.md.*nowhere", str(failure.value))


def test_a_rerun_has_a_page_and_a_folder_of_its_own(root):
    page = execute.rerun("first", ["replicates=7", "source=my faces", "fast=true"], root=root)
    assert page.is_relative_to(root / "_build" / "runs" / "first")
    assert "3.5 my faces True" in page.read_text()
    assert not (root / "_build" / "html").exists()
    again = execute.execute("first", ["fast=True", "replicates=7", "source=my faces"], root=root)
    assert page.is_relative_to(again)
    assert execute.execute("first", ["replicates=8"], root=root) != again


@pytest.mark.parametrize(
    ("notebook", "settings", "sentence"),
    [
        ("frist", [], "notebook must be one of first, not 'frist'; did you mean 'first'?"),
        ("first", ["replicate=3"], "not 'replicate'; did you mean 'replicates'?"),
        ("first", ["replicates"], "a parameter must be given as name=value, not 'replicates'"),
        ("first", ["replicates=3.5"], "replicates must be of type int, not '3.5'"),
        ("first", ["kappa=much"], "kappa must be of type float, not 'much'"),
        ("first", ["fast=1"], "fast must be of type bool, not '1'"),
        ("first", ["kappa=nan"], "kappa must be a number or text without control characters, not 'nan'"),
        ("first", ["source=a\n# b"], "source must be a number or text without control characters"),
        ("first", ["source=\udce9"], "source must be a number or text without control characters"),
        ("first", ["kappa=1", "kappa=2"], "kappa is given twice, as '1' and '2'; `sweep` takes several values"),
    ],
)
def test_what_cannot_be_rerun_is_told_in_a_sentence(root, notebook, settings, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as refusal:
        execute.rerun(notebook, settings, root=root)
    assert "\n" not in str(refusal.value)


def test_a_profile_with_an_unknown_notebook_or_parameter_is_refused(root):
    profile = root / "book" / "profiles" / "prior.yml"
    profile.write_text("second: {}\n")
    with pytest.raises(ValueError, match=r"a notebook in prior\.yml must be one of first, not 'second'"):
        execute.build("prior", root)
    profile.write_text("first: {kapa: 2}\n")
    with pytest.raises(ValueError, match="did you mean 'kappa'"):
        execute.build("prior", root)
    with pytest.raises(ValueError, match="profile must be one of quick, published, prior"):
        execute.build("quik", root)


@pytest.mark.parametrize("declared", ["replicates: list = [1]  # no scalar", "replicates = 4  # no type"])
def test_a_parameter_of_another_kind_is_refused(root, declared):
    path = root / "book" / "first.ipynb"
    write_notebook(path, declared.replace("replicates", "replicates:", 1) if ":" not in declared else declared)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = declared
    nbformat.write(notebook, path)
    with pytest.raises(ValueError, match=r"the type of replicates in first\.ipynb must be one of int, float, str"):
        profiles.parameters(path)


def test_list_names_notebooks_titles_and_parameters(tmp_path):
    root = small_book(tmp_path, colophon=True)
    listing = profiles.describe(root).splitlines()
    assert listing[0] == "first: Title of first"
    assert listing[1].split() == ["replicates=4", "networks"]
    assert listing[-1] == "colophon: Title of colophon"


def test_a_book_is_found_from_any_folder_within_it(root, monkeypatch):
    assert profiles.find_root(root / "book" / "profiles") == root
    monkeypatch.setattr(execute.store, "checkout", lambda: None)
    with pytest.raises(FileNotFoundError, match="there is no book"):
        profiles.find_root("/")


def test_a_failed_execution_leaves_no_record_of_an_earlier_one(root, no_site):
    path = root / "book" / "first.ipynb"
    source = path.read_bytes()
    execute.build(root=root)
    write_notebook(path, PARAMETERS, "1 / 0")
    with pytest.raises(RuntimeError):
        execute.build(root=root)
    path.write_bytes(source)
    execute.build(root=root)
    assert text_of(root / "_build" / "book" / "quick" / "first.ipynb") == "2.0 orl False\n"


def test_the_list_of_findings_survives_markup_in_claims_and_statistics_without_interval():
    row = {"sentence": "F > 1 grows with |x|", "page": "x.ipynb", "shown": [1.0, float("-inf"), float("inf")]}
    row |= {"thresholds": [0.5], "direction": "above", "number": "1 (no interval)", "rule": "> 0.5"}
    row |= {"null": 0.0, "ratio": False, "relation": "not settled"}
    found = glance.block([row | {"verdict": "not settled"}] * 3, "[X](x.ipynb)")
    assert found.count("<p>F &gt; 1 grows with |x|</p>") == 3
    assert found.count("claimed: &gt; 0.5") == 3
    assert '3 claims: <span class="fb-verdict fb-not-settled">3 not settled</span>' in found


def test_the_six_observations_are_told_in_their_order_with_what_each_page_finds():
    answers = [
        {"observation": n, "saw": f"saw {n}", "find": f"find {page}", "relation": "corrected", "page": f"{page}.ipynb"}
        for n, page in ((4, "b"), (None, "c"), (1, "a"), (4, "d"))
    ]
    found = glance.observations(answers, {f"{page}.ipynb": page.upper() for page in "abcd"})
    assert found.count('class="fb-observation"') == 2 and "find c" not in found
    assert found.index("saw 1") < found.index("find a [A](a.ipynb)") < found.index("saw 4") < found.index("find d")
    assert '<span class="fb-relation fb-corrected">corrected</span> find b' in found


def test_no_record_and_no_page_tells_a_path_of_this_machine(root, no_site, tmp_path):
    write_notebook(root / "book" / "first.ipynb", f'{PARAMETERS}\nroot: str = ""  # folder', FINDING)
    settings = [f"source={tmp_path}/faces.zip", f"root={tmp_path}", "kappa=0.25"]
    folder = execute.execute("first", settings, root=root)
    assert outcomes.outcome(str(folder), root).parameters["source"] == "faces.zip"
    for file in folder.rglob("*"):
        if file.suffix == ".json":
            assert str(tmp_path) not in file.read_text()
    made = next(c for c in nbformat.read(folder / "first.ipynb", 4).cells if c.id == "made-with")
    assert "source = faces.zip" in made.source and str(tmp_path) not in made.source
    assert str(tmp_path) not in (folder / "first.ipynb").read_text().replace("/" + str(folder), "")
    injected = nbformat.read(folder / "first.ipynb", 4).cells[3].source
    assert injected == "source = 'faces.zip'\nroot = '...'\nkappa = 0.25"


def test_the_picture_of_a_talk_comes_up_to_the_first_screens(tmp_path):
    notebook = nbformat.v4.new_notebook()
    sources = ["# Title", "figures.setup()", "## Claims", "figures.show(picture)"]
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook.cells[-1].metadata["tags"] = ["hide-input", "talk"]
    nbformat.write(notebook, tmp_path / "page.ipynb")
    outcomes.tidy(tmp_path / "page.ipynb", "quick", {}, tmp_path)
    *shown, made, last = (cell.source for cell in nbformat.read(tmp_path / "page.ipynb", 4).cells)
    assert shown == ["# Title", "figures.setup()", "figures.show(picture)"]
    assert "quick" in made and last == "## Claims"


@settings(max_examples=40)
@given(st.text())
def test_a_parameter_is_shown_on_a_line_of_its_own_and_never_does_anything(text):
    shown = outcomes.inert(text)
    assert not set("<>\"'\n\r\x0b\x0c\x1c\x85\u2028") & set(shown)
    assert html.unescape(shown) == " ".join(text.split())


def test_a_folder_of_results_is_its_own_notebooks_and_no_others(tmp_path):
    for name in ("first", "second", "third"):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / outcomes.OUTCOME).write_text(
            json.dumps({"notebook": name, "profile": "quick", "parameters": {}, "findings": []})
        )
        (tmp_path / f"{name}.ipynb").touch()
    for place in ("results/second", f"results/second/{outcomes.OUTCOME}", "second.ipynb"):
        assert outcomes.outcome(str(tmp_path / place), tmp_path).notebook == "second"
    with pytest.raises(ValueError, match=r"there is no run .*: give a page"):
        outcomes.outcome(str(tmp_path / "results"), tmp_path)
