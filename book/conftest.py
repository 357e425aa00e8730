"""How the notebooks are tested: on what the last build measured, verdict by verdict.

A notebook that a build would not execute again finds the datasets that it kept then;
any other one measures.

Training is chaotic: a difference in the last digit, such as another processor makes,
grows until the networks are others, as if drawn anew. A claim near its margin may
then be decided on one machine and not on another; never must one say
`holds` where another says `does not hold`.
"""

import shutil
import tempfile
from collections.abc import Callable, Generator
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from nbval.plugin import IPyNbCell


@cache
def _kept(config: pytest.Config) -> str:
    """Return a folder with a copy of what unchanged notebooks kept."""
    book, folder = Path(__file__).parent, tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    if (book / "_toc.yml").is_file():  # else this file was put beside some notebook
        from fisherbook.publishing import execute

        for name, kept in execute.unchanged(book.parent).items():
            shutil.copytree(kept, Path(folder.name, name))
    return folder.name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Have the kernel of a notebook find it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FISHERBOOK_RESULTS", _kept(item.config))
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each cell of a notebook compare its verdicts in this way."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.compare_outputs = partial(_compare, item.compare_outputs)


def _compare(compare: Callable[..., bool], found: list, committed: list, *options: Any) -> bool:
    printed = [[one for one in outputs if one.get("name") == "stdout"] for outputs in (found, committed)]
    for new, old in zip(*printed, strict=False):
        new["text"] = _agreed(new["text"], old["text"])
    return compare(*printed, *options)


def _agreed(found: str, committed: str) -> str:
    """Return the new lines, or the committed where either leaves a claim open."""
    lines = []
    for new, old in zip_longest(found.splitlines(), committed.splitlines(), fillvalue=""):
        claim, _, verdict = new.rpartition(": ")
        before, _, expected = old.rpartition(": ")
        open_ = claim == before and "not settled" in (verdict, expected)
        lines.append(old if open_ else new)
    return "".join(f"{line}\n" for line in lines if line)
