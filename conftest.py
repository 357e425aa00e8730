"""What tests and the examples in docstrings start from: a store of their own, and for examples `fb` and `np`."""

import numpy as np
import pytest

import fisherbook

# They are loaded as what they are; collected for their examples, the two would be one module.
collect_ignore = ["book/conftest.py", "tests/conftest.py"]


@pytest.fixture(autouse=True)
def store_folder(tmp_path, monkeypatch):
    """The folder of a store that is this test's own."""
    folder = tmp_path / "store"
    monkeypatch.setenv("FISHERBOOK_STORE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    doctest_namespace |= {"fb": fisherbook, "np": np}
