"""Pasted numbers are set as a book sets them: −0.96 with a true minus, 5.0 × 10⁻⁶ for 5.0e-06."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

NUMBER = re.compile(r"(-?)([\d.]+)(?:e([+-]\d+))?")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("doctree-resolved", _set)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _set(_app: Sphinx, doctree: nodes.document, _docname: str) -> None:
    for pasted in doctree.findall(nodes.inline):
        found = NUMBER.fullmatch(pasted.astext())
        if "pasted-text" in pasted["classes"] and found:
            sign, digits, exponent = found.groups()
            pasted.clear()
            pasted += nodes.Text("−" * bool(sign) + digits)
            if exponent:
                pasted += [nodes.Text(" × 10"), nodes.superscript("", str(int(exponent)).replace("-", "−"))]
