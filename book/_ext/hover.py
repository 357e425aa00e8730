"""A term of the glossary tells its meaning where the pointer rests on it.

The role ``{term}`` makes a link to the glossary; the link gets the term's definition
as its title.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

GLOSSARY = "glossary"


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("doctree-resolved", _tell)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _tell(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if GLOSSARY in app.env.found_docs:
        said = _definitions(app.env.get_doctree(GLOSSARY))
        for link in doctree.findall(nodes.reference):
            term = (link.get("refid") or link.get("refuri", "")).rpartition("#")[2]
            if term in said:
                link["reftitle"] = said[term]


def _definitions(glossary: nodes.document) -> dict[str, str]:
    """Return the definitions, as plain text, by the identifiers of their terms."""
    said = {}
    for item in glossary.findall(nodes.definition_list_item):
        text = " ".join(item.next_node(nodes.definition).astext().split())
        said |= {
            one: text for term in item.findall(nodes.term) for one in term["ids"]
        }
    return said
