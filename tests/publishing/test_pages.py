"""Pages that are made from files when the site is built."""

import doctest
import re
import subprocess
import warnings

import numpy as np
import pytest
import xarray as xr
from small_book import ROOT

from fisherbook import results
from fisherbook.publishing import profiles
from fisherbook.publishing.sphinx import schema, start


def test_the_page_on_the_dataset_has_every_name_of_every_file(tmp_path):
    mine = {"units": "1", "long_name": "growth as |Δ|"}
    made = xr.Dataset(
        {"log_fisher": (("replicate", "angle"), np.zeros((2, 3))), "growth": ("replicate", [1, 2], mine)},
        {"replicate": [0, 1], "angle": [-1.0, 0.0, 1.0], "kappa": 3.0},
    )
    for name in ("roughness/information", "roughness/pairs", "task/networks"):
        results.save(results.label(made), tmp_path / "results" / f"{name}.nc")
    text = schema.files(tmp_path)
    assert [line for line in text.splitlines() if line.startswith("{doc}")] == ["{doc}`roughness`", "{doc}`task`"]
    assert text.count("```{dropdown}") == 3 and "roughness/pairs: log_fisher, growth" in text
    assert "{download}`networks.nc <results/task/networks.nc>`" in text
    assert text.count("| `log_fisher` | replicate × angle | `1` | half the logarithm of the Fisher information |") == 3
    assert text.count("| `angle` | 3 | `rad` | stimulus angle |") == 3
    assert text.count(r"| `growth` | replicate | `1` | growth as \|Δ\| |") == 3
    assert text.count("| `kappa` | one value | `1` |") == 3


def test_a_site_without_datasets_says_so(tmp_path):
    assert schema.files(tmp_path).startswith("None")


def test_buttons_lead_to_the_repository_that_the_checkout_came_from(tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert start.address(tmp_path) == start.address(None) == ""
    assert "fb-buttons" not in start.begin("") and "make setup" in start.begin("")
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", "git@github.com:some.one/a-book.git"], check=True)
    text = start.begin(start.address(tmp_path))
    assert (
        'href="https://github.com/some.one/a-book"' in text and "git clone https://github.com/some.one/a-book" in text
    )
    assert "mybinder.org/v2/gh/some.one/a-book/HEAD" in text and "codespaces.new/some.one/a-book" in text
    monkeypatch.setenv("GITHUB_REPOSITORY", "else/where")
    assert start.address(tmp_path) == "https://github.com/else/where"


def test_each_page_has_its_time():
    text = start.times(ROOT / "book", ROOT / "data" / "results")
    assert text.count("{doc}") == len(profiles.notebooks(ROOT / "book"))
    assert re.search(r"\| \{doc\}`task` \| \d+ s \| \d+ min \|", text)


WINGS = sorted((ROOT / "book").glob("api*.md"))


@pytest.mark.parametrize("page", WINGS, ids=lambda page: page.stem)
def test_each_page_on_the_package_begins_with_an_example_that_runs(page):
    text = page.read_text(encoding="utf-8")
    example = re.search(r"```pycon\n(.*?)```", text, re.DOTALL)
    assert example.start() < text.index("## ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        case = doctest.DocTestParser().get_doctest(example[1], {}, page.name, str(page), 0)
        assert doctest.DocTestRunner().run(case).failed == 0


def test_every_wing_of_the_package_has_its_page():
    wings = {path.parent.name for path in (ROOT / "fisherbook").glob("*/__init__.py")} - {"publishing"}
    assert {page.stem for page in WINGS} == {"api", *(f"api_{wing}" for wing in wings)}
