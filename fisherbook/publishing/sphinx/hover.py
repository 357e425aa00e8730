"""A term of the glossary tells its meaning where the pointer rests on it, or a finger taps it (``accessible.js``).

The role ``{term}`` makes a link to the glossary, and so does the first mention of a
term in the text of a page, which needs no role; the link gets the term's definition
as its title.
"""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

GLOSSARY = "glossary"
# Words that the text also uses in their plain sense: only the role links them.
PLAIN = {"angle", "claim", "finding", "fold", "gain", "layer", "margin", "profile"}
PLAIN |= {
    "split",
    "stage",
    "store",
    "verdict",
    "arc",
    "bias",
    "chain",
    "concentration",
    "drift",
    "exponent",
    "frequency",
}
PLAIN |= {"half the logarithm", "history", "iteration", "k", "mark", "relation", "scheme", "spread"}
NAMES = ("api", "bibliography")  # pages of names and titles rather than of text


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension to Sphinx."""
    app.connect("doctree-resolved", _tell)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _tell(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if GLOSSARY not in app.env.found_docs:
        return
    said = _definitions(app.env.get_doctree(GLOSSARY))
    if not docname.startswith((GLOSSARY, *NAMES)):
        terms = {term: target for term, (target, _) in said.items()}
        _link_first_mentions(app, doctree, docname, terms)
    titles = dict(said.values())
    for link in doctree.findall(nodes.reference):
        term = _fragment(link)
        if term in titles:
            link["reftitle"] = titles[term]


def _link_first_mentions(app: Sphinx, doctree: nodes.document, docname: str, terms: dict[str, str]) -> None:
    linked = {_fragment(link) for link in doctree.findall(nodes.reference)}
    longest_first = sorted(terms.keys() - PLAIN, key=len, reverse=True)
    words = "|".join(map(re.escape, longest_first))
    found = re.compile(rf"\b({words})s?\b", re.IGNORECASE)
    page = app.builder.get_relative_uri(docname, GLOSSARY)
    for text in list(_prose(doctree)):
        parts, end = [], 0
        for mention in found.finditer(text):
            target = terms[mention[1].lower()]
            if target not in linked:
                linked.add(target)
                word = nodes.inline("", mention[0], classes=["std", "std-term"])
                where = {"refuri": f"{page}#{target}", "internal": True}
                parts += [nodes.Text(text[end : mention.start()])]
                parts += [nodes.reference("", "", word, **where)]
                end = mention.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def _prose(doctree: nodes.document) -> Iterator[nodes.Text]:
    """Yield the texts of paragraphs that are neither links nor code nor formulae."""
    other = (nodes.reference, nodes.literal, nodes.math, nodes.caption, nodes.target)
    for paragraph in doctree.findall(nodes.paragraph):
        for text in paragraph.findall(nodes.Text):
            above = text.parent
            while above not in (paragraph, None) and not isinstance(above, other):
                above = above.parent
            if above is paragraph:
                yield text


def _fragment(link: nodes.reference) -> str:
    return (link.get("refid") or link.get("refuri", "")).rpartition("#")[2]


def _definitions(glossary: nodes.document) -> dict[str, tuple[str, str]]:
    """Return identifier and definition, as plain text, by term in lower case."""
    said = {}
    for item in glossary.findall(nodes.definition_list_item):
        text = " ".join(item.next_node(nodes.definition).astext().split())
        for term in item.findall(nodes.term):
            said[term.astext().splitlines()[0].lower()] = (term["ids"][0], text)
    return said
