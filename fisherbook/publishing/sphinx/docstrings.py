"""A docstring's |x| is an absolute value, not a substitution as Sphinx reads it."""

import re
from typing import Any

from sphinx.application import Sphinx

CODE_OR_BAR = re.compile(r"(``.+?``|>>>.*)|\|")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("autodoc-process-docstring", _escape_bars)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _escape_bars(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [CODE_OR_BAR.sub(lambda found: found[1] or r"\|", line) for line in lines]
