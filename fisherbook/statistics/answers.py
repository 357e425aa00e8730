"""A notebook's answer: a few sentences that follow its verdicts."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .claims import VERDICTS, Claim, Finding
from .texts import plain

MOST_WORDS = 90  # of an answer


def answer(
    found: Sequence[Finding],
    saw: str,
    find: Mapping[Claim, tuple[str, str, str]],
    why: str | Mapping[Claim, tuple[str, str, str]] = "",
    title: Mapping[Claim, tuple[str, str]] | None = None,
    observation: int | None = None,
) -> None:
    """Say what a notebook found in a few sentences, which follow its verdicts, and leave them to the book.

    The page shows them where ``glue:md`` has ``answer``; the first page has a line for each observation.

    Parameters
    ----------
    found : sequence of Finding
        Of `findings.decide`.
    saw : str
        What the earlier work saw.
    find : mapping of Claim to (str, str, str)
        What is found, by claim: if it holds, if it does not, and if it is not settled. The first claim leads: its
        relation to the earlier work is the answer's, but ``corrected`` where other claims that are settled have another
        one: then a part of what was seen is confirmed, another is not. Within a sentence ``{number}`` is the estimate
        with its 95 % interval, ``{value}`` the estimate alone; ``{more}``, ``{higher}`` and ``{above}`` become their
        opposites where the estimate lies below what no effect would give.
    why : str or mapping like `find`
        The reason.
    title : mapping of Claim to (str, str), optional
        What becomes the page's title if the claim holds, and if it does not.
    observation : int, optional
        Which of the earlier work's observations this answers.

    Raises
    ------
    ValueError
        If the answer has more than 90 words.
    """
    from IPython.display import Markdown
    from myst_nb import glue

    by = {finding.claim: finding for finding in found}
    lead = by[next(iter(find))]
    said = _sentences(find, by)
    reason = why if isinstance(why, str) else _sentences(why, by)
    sure = _sure(found, lead)
    heading = next((texts[_place(by[c])] for c, texts in (title or {}).items() if by[c].verdict != "not settled"), "")
    settled = {by[claim].relation for claim in find} - {"", "not settled"}
    mixed = lead.relation in settled and len(settled) > 1
    relation = "corrected" if mixed else lead.relation or f"our {lead.claim.relation}"
    sentences = [saw and f"**The earlier work saw:** {saw}", f"**We find:** {said}", reason, f"**How sure:** {sure}"]
    words = sum(len(sentence.split()) for sentence in sentences)
    if words > MOST_WORDS:
        raise ValueError(f"an answer has at most {MOST_WORDS} words, and this one {words}")
    chip = f'<span class="fb-relation fb-{relation.replace(" ", "-")}">{relation}</span>'
    body = "\n\n".join(filter(None, sentences))
    glue("answer", Markdown(f'<div class="fb-answer">\n\n**In short** {chip}\n\n{body}\n\n</div>'), display=False)
    told = {"observation": observation, "saw": saw, "find": said, "sure": sure, "relation": relation, "title": heading}
    glue("answered", json.dumps(told), display=False)


def _sentences(texts: Mapping[Claim, tuple[str, str, str]], by: Mapping[Claim, Finding]) -> str:
    said = (choices[_place(by[claim])].format_map(_words(by[claim])) for claim, choices in texts.items())
    return " ".join(said).strip()


def _place(finding: Finding) -> int:
    return VERDICTS.index(finding.verdict)


def _words(finding: Finding) -> dict[str, str]:
    """What stands for the names in an answer's sentence."""
    row, scale = finding.row, math.exp if finding.claim.ratio else float
    value = scale(finding.estimate.value)
    sides = {"more": "less", "higher": "lower", "above": "below"}
    words = {one: one if value >= finding.claim.null else other for one, other in sides.items()}
    return words | {"number": row["number"], "value": plain(value).replace("-", "−")}


def _sure(found: Sequence[Finding], lead: Finding) -> str:
    """How many claims got which verdict, and over what the intervals are, the leading claim's first."""
    count = Counter[str](finding.verdict for finding in found)
    forms = (("holds", "hold"), ("does not hold", "do not hold"), ("is not settled", "are not settled"))
    told = [f"{count[v]} {verbs[count[v] > 1]}" for v, verbs in zip(VERDICTS, forms, strict=True) if count[v]]
    claims = f"of {len(found)} claims {', '.join(told)}" if len(found) > 1 else f"its claim {told[0][2:]}"
    over = " or ".join(dict.fromkeys(finding.row["over"] for finding in (lead, *found)))
    return f"{claims}; 95 % intervals over {over}."
