"""The sentences of a page follow its numbers: given results of the opposite sign, they say the opposite."""

import itertools
import json
import math
from pathlib import Path

import nbformat
import pytest

from fisherbook import figures
from fisherbook.publishing import outcomes
from fisherbook.statistics import claims, findings
from fisherbook.statistics.estimates import Estimate

BOOK = Path(__file__).parents[1] / "book"


def cells_of(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


ANSWERED = [path for path in sorted(BOOK.glob("*.ipynb")) if any("findings.answer(" in s for s in cells_of(path))]
SIDES = ("holds", "does not hold", "not settled")


def estimate(claim, verdict):
    """An estimate that gives a claim this verdict, by a wide margin."""
    low, high = claims._region(claim)
    edge = high if math.isinf(low) else low
    inside = (low + high) / 2 if math.isfinite(low + high) else edge + (1 if math.isinf(high) else -1)
    value = {"holds": inside, "does not hold": 2 * edge - inside, "not settled": edge}[verdict]
    return Estimate(value, 1e-6, 11, 12, 12)


def answered(path, verdict, monkeypatch):
    """What the cells of parameters, imports, claims and the answer say, if all claims get this verdict."""
    import myst_nb

    glued, names = {}, {}
    monkeypatch.setattr(myst_nb, "glue", lambda name, value, display: glued.update({name: value}))
    monkeypatch.setattr(figures, "setup", lambda: None)
    sources = cells_of(path)
    answer = next(s for s in sources if "findings.answer(" in s)
    for source in sources[: next(n for n, s in enumerate(sources) if "findings.Claim(" in s) + 1]:
        if "import fisherbook" in source or "findings.Claim(" in source or ": int = " in source:
            exec(source, names)
    several = [one for value in names.values() for one in (value if isinstance(value, list) else [value])]
    made = [value for value in several if isinstance(value, findings.Claim)]
    names["found"] = findings.judge({claim: estimate(claim, verdict) for claim in made})
    assert {one.verdict for one in names["found"]} == {verdict}
    exec(answer, names)
    return glued["answer"].data, json.loads(glued["answered"]), made


@pytest.mark.parametrize("path", ANSWERED, ids=lambda path: path.stem)
def test_an_answer_says_the_opposite_of_the_opposite_results(path, monkeypatch):
    holds, fails, open_ = (answered(path, verdict, monkeypatch) for verdict in SIDES)
    assert holds[1]["find"] and len({row["find"] for _, row, _ in (holds, fails, open_)}) == 3
    assert holds[1]["title"] != fails[1]["title"] and open_[1]["title"] == ""
    lead = next(claim for claim in holds[2] if claim.relation != "prediction") if holds[1]["observation"] else None
    if lead is not None:
        assert {holds[1]["relation"], fails[1]["relation"]} <= {*claims.RELATIONS, "our theory", "our tool"}
        assert open_[1]["relation"] == "not settled" or open_[1]["relation"].startswith("our ")
    for text, _, _ in (holds, fails, open_):
        assert "**We find:**" in text and "{" not in text


@pytest.mark.parametrize("path", ANSWERED, ids=lambda path: path.stem)
def test_an_answer_is_short_enough_whatever_mix_of_verdicts_its_claims_get(path, monkeypatch):
    asked = {}
    with monkeypatch.context() as patched:
        patched.setattr(findings, "answer", lambda found, **options: asked.update(options, found=found))
        with pytest.raises(KeyError, match="answer"):  # nothing is glued
            answered(path, "holds", patched)
    monkeypatch.setattr("myst_nb.glue", lambda *_args, **_options: None)
    made = [finding.claim for finding in asked.pop("found")]
    why = asked.get("why", {})
    told = dict.fromkeys([*asked["find"], *(why if isinstance(why, dict) else ())])
    for mix in itertools.product(SIDES, repeat=len(told)):
        verdicts = dict(zip(made, itertools.cycle(SIDES))) | dict(zip(told, mix, strict=True))  # the others' vary
        findings.answer(findings.judge({claim: estimate(claim, verdicts[claim]) for claim in made}), **asked)


@pytest.mark.parametrize("path", ANSWERED, ids=lambda path: path.stem)
def test_headings_follow_the_verdicts_of_claims(path, monkeypatch):
    sentences = [claim.sentence for claim in answered(path, "holds", monkeypatch)[2]]
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            found = outcomes._HEADING.findall(cell.source)
            assert cell.source.count("<!--") == len(found)
            for level, neutral, words, holds, fails in found:
                assert any(words in sentence for sentence in sentences), words
                assert len({neutral, holds, fails}) == 3
                for verdict, said in zip(SIDES, (holds, fails, neutral), strict=True):
                    rows = [{"sentence": words, "verdict": verdict, "number": "0.5 [0.4, 0.6]"}]
                    shown = outcomes._HEADING.sub(lambda match, rows=rows: outcomes._result(match, rows), cell.source)
                    assert level + said.replace("{value}", "0.5") in shown and "<!--" not in shown


@pytest.mark.parametrize("path", ANSWERED, ids=lambda path: path.stem)
def test_an_answer_stands_right_under_the_title(path):
    first = nbformat.read(path, as_version=4).cells[0].source
    assert first.splitlines()[0].startswith("# ") and "```{glue:md} answer" in first.split("\n\n")[1]


@pytest.mark.parametrize("path", ANSWERED, ids=lambda path: path.stem)
def test_a_paragraph_has_at_most_three_pasted_numbers(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for paragraph in cell.source.split("\n\n"):
                assert paragraph.count("{glue:text}") <= 3, f"{path.stem}: {paragraph[:80]} ..."
