"""Runs laid side by side, on a book of two pages."""

import json
import re
from datetime import date

import nbformat
import pytest
from small_book import FINDING, PARAMETERS, small_book, write_notebook

from fisherbook.publishing import execute, reports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = small_book(tmp_path_factory.mktemp("reports"))
    write_notebook(root / "book" / "first.ipynb", PARAMETERS, FINDING)
    return root


@pytest.fixture
def no_site(monkeypatch):
    """Leave Jupyter Book out."""
    monkeypatch.setattr(execute, "build_site", lambda root, copy, output, *options: output / "_build" / "html")


@pytest.fixture(scope="module")
def runs(root):
    return [execute.execute("first", [f"replicates={n}"], root=root) for n in (2, 7)]


def test_a_run_is_told_with_what_differs_from_the_book(root, no_site, runs):
    page, missing = reports.rerun("first", ["replicates=2"], root=root).splitlines()
    assert page.endswith("first.html")
    assert missing == "the book was not built, so there is nothing to compare it with"
    execute.build(root=root)
    assert reports.rerun("first", ["replicates=2"], root=root).splitlines()[1:] == [
        "replicates = 2 (quick: 4)",
        "Replicates are many: not settled, 2.00 [1.78, 2.22] (quick: holds, 4.00 [3.78, 4.22])",
    ]


def test_two_runs_are_laid_side_by_side(root, runs, monkeypatch):
    monkeypatch.chdir(root)
    page = reports.compare(*(str(run.relative_to(root)) for run in runs))
    shown = re.sub("<[^>]+>", "", page.read_text())  # a verdict is drawn as a chip
    assert "not settled: 2.00 [1.78, 2.22]" in shown
    assert "holds: 7.00 [6.78, 7.22]" in shown
    assert "replicates: A 2, B 7" in shown


def test_a_sweep_reports_every_combination(root, monkeypatch):
    sources = []
    monkeypatch.setattr(execute, "report", lambda notebook, table, root: sources.append(nbformat.writes(notebook)))
    settings = ["replicates=4", "replicates=5", "kappa=0.1", "kappa=0.2"]
    reports.sweep("first", settings, root=root)
    for n in (4, 5):
        for kappa in (0.1, 0.2):
            assert f"replicates={n}, kappa={kappa}" in sources[0]


def test_a_table_of_runs_has_a_row_for_each_claim(root, runs):
    table = reports.table([str(run) for run in runs], ["few", "many"])
    assert table.run.tolist() == ["few", "many"]
    assert table.estimate.tolist() == [2, 7]
    assert table.verdict.tolist() == ["not settled", "holds"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda root: reports.compare("quick/frist", "quick/first", root), "there is no run 'quick/frist'"),
        (lambda root: reports.sweep("first", ["replicates=4"], root=root), "a sweep needs a parameter with several"),
    ],
)
def test_what_cannot_be_reported_is_told_in_a_sentence(root, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(root)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> {x} {{y}} `z` ```{include} table.json\n```"


def test_what_a_foreign_record_says_is_shown_and_never_runs(root, tmp_path):
    row = {"sentence": HOSTILE, "number": HOSTILE, "shown": [1.0, 0.5, 1.5], "thresholds": [0.7], "value": 1.0}
    record = {"notebook": "first", "parameters": {HOSTILE: HOSTILE}, "findings": [row | {"verdict": "not settled"}]}
    for n in "ab":
        folder = tmp_path / n / "results" / "first"
        folder.mkdir(parents=True)
        (folder / "outcome.json").write_text(json.dumps(record | {"profile": n + HOSTILE}))
        record["parameters"] = {}
    page = reports.compare(str(tmp_path / "b"), str(tmp_path / "a"), root)
    shown = page.read_text()
    assert "alert(1)" in shown
    assert "<script>alert" not in shown and "<img src=x" not in shown
    assert '"sentence"' not in shown  # nothing was included
    assert str(tmp_path) not in shown.replace(str(root), "")
    for source in page.parent.glob("_sources/*"):
        assert str(tmp_path) not in source.read_text() and str(root) not in source.read_text()


@pytest.mark.parametrize("change", [{"notebook": "# x"}, {"findings": [{}]}, {"findings": 3}, {"more": 1}, "[", "[["])
def test_a_foreign_record_that_is_none_is_named(tmp_path, root, change):
    folder = tmp_path / "results" / "first"
    folder.mkdir(parents=True)
    record = {"notebook": "first", "profile": "quick", "parameters": {}, "findings": []}
    text = change * 50_000 if isinstance(change, str) else json.dumps(record | change)
    (folder / "outcome.json").write_text(text)
    with pytest.raises(ValueError, match=r"outcome\.json is no record of a run of a notebook"):
        reports.compare(str(tmp_path), str(tmp_path), root)


def test_a_sweep_looks_at_all_values_before_it_runs_one_and_names_the_condition_that_fails(root, monkeypatch):
    for settings, sentence in (
        (["replicates=4", "replicates=few"], "replicates must be of type int, not 'few'"),
        (["kappa=1", "kappa=1.0"], "a sweep needs values that differ: kappa=1.0 is there already"),
        (["kappa=1", "kappa=nan"], "kappa must be a number or text without control characters, not 'nan'"),
        (["kappa=1", "kappa=2", "kapa=3"], "did you mean 'kappa'"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(execute, "execute", None)
            with pytest.raises(ValueError, match=sentence):
                reports.sweep("first", settings, root=root)

    def fail(notebook, settings, *others):
        raise RuntimeError("its kernel died")

    monkeypatch.setattr(execute, "execute", fail)
    with pytest.raises(RuntimeError, match="kappa=1, fast=true: its kernel died"):
        reports.sweep("first", ["kappa=1", "kappa=2", "fast=true"], root=root)
    write_notebook(root / "book" / "silent.ipynb", PARAMETERS, "print(1)")
    toc = root / "book" / "_toc.yml"
    toc.write_text(toc.read_text() + "- file: silent\n")
    with pytest.raises(ValueError, match="silent makes no claims"):
        reports.sweep("silent", ["kappa=1", "kappa=2"], root=root)
    toc.write_text(toc.read_text().replace("- file: silent\n", ""))


def test_published_results_are_verified_within_their_errors(root, no_site):
    unknown = 'Estimate(float("nan") if shift < -9 else 4 + shift, float("nan") if shift > 9 else 0.1'
    noisy = FINDING.replace("Estimate(replicates, 0.1", unknown)
    write_notebook(root / "book" / "first.ipynb", PARAMETERS + "\nshift: float = 0.0  # of the estimate", noisy)
    execute.build("published", root)
    profile, folder = root / "book" / "profiles" / "verify.yml", root / "data" / "results" / "first"
    folder.mkdir(parents=True)
    profile.write_text("first: {shift: 0.2}\n")
    assert "Replicates are many: 4.20" in reports.verify(root=root)
    told = json.loads((folder / reports.VERIFIED).read_text())
    assert told == {"date": str(date.today()), "estimates": 1, "agree": 1}
    profile.write_text("first: {shift: 0.5}\n")
    with pytest.raises(RuntimeError, match=r"1 of 1 estimates differ.*\n.*DIFFERS"):
        reports.verify(["first"], root=root)
    assert json.loads((folder / reports.VERIFIED).read_text())["agree"] == 0
    for shift in (-10.0, 10.0):  # of which the estimate, or its error, is no number
        profile.write_text(f"first: {{shift: {shift}}}\n")
        with pytest.raises(RuntimeError, match=r"1 of 1 estimates differ"):
            reports.verify(root=root)
    with pytest.raises(ValueError, match="did you mean 'first'"):
        reports.verify(["frist"], root=root)
