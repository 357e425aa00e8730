"""Numbers in words: what a notebook pastes into its text, its folded tables, and its answer in a few sentences."""

import html
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from .estimates import Estimate, over_replicates

if TYPE_CHECKING:
    from .findings import Claim, Finding

MOST_WORDS = 90  # of an answer
VERDICTS = ("holds", "does not hold", "not settled")


def tell(scale: Callable[[float], float] = float, **values: Any) -> None:
    """Paste numbers into the text, where the role ``glue:text`` shows each by its name.

    Parameters
    ----------
    scale : callable
        Applied to values and to the ends of intervals, such as ``np.exp``.
    **values : Estimate, DataArray, mapping, number or text
        An estimate is told with its 95 % interval, and so is an array over replicates. An array with other dimensions
        is told value by value, under names that go on with the coordinates: ``inside_test``. So is a mapping.
    """
    from myst_nb import glue

    for words, value in _told(values):
        glue("_".join(words), _written(value, scale), display=False)


def numbers(scale: Callable[[float], float] = float, **values: Any) -> None:
    """Show numbers in a folded table, "All numbers".

    Parameters
    ----------
    scale, **values
        As in `tell`; names that are no identifiers are given as ``**{"inside A": ...}``.
    """
    from IPython.display import HTML, display

    rows = [(", ".join(words).replace("_", " "), _written(value, scale)) for words, value in _told(values)]
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>" for name, text in rows)
    table = f'<table class="dataframe fb-numbers"><tbody>{cells}</tbody></table>'
    display(HTML(f'<details class="fb-all"><summary>All numbers</summary>{table}</details>'))


def answer(
    found: Sequence["Finding"],
    saw: str,
    find: Mapping["Claim", tuple[str, str, str]],
    why: str | Mapping["Claim", tuple[str, str, str]] = "",
    title: Mapping["Claim", tuple[str, str]] | None = None,
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
        relation to the earlier work is the answer's. Within a sentence ``{number}`` is the estimate with its 95 %
        interval, ``{value}`` the estimate alone; ``{more}``, ``{higher}`` and ``{above}`` become their opposites where
        the estimate lies below what no effect would give.
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
    heading = next(
        (texts[_place(by[claim])] for claim, texts in (title or {}).items() if by[claim].verdict != "not settled"), ""
    )
    relation = lead.relation or f"our {lead.claim.relation}"
    sentences = [
        *([f"**The earlier work saw:** {saw}"] if saw else []), f"**We find:** {said}", reason, f"**How sure:** {sure}",
    ]  # fmt: skip
    words = sum(len(sentence.split()) for sentence in sentences)
    if words > MOST_WORDS:
        raise ValueError(f"an answer has at most {MOST_WORDS} words, and this one {words}")
    chip = f'<span class="fb-relation fb-{relation.replace(" ", "-")}">{relation}</span>'
    body = "\n\n".join(filter(None, sentences))
    glue("answer", Markdown(f'<div class="fb-answer">\n\n**In short** {chip}\n\n{body}\n\n</div>'), display=False)
    told = {"observation": observation, "saw": saw, "find": said, "sure": sure, "relation": relation, "title": heading}
    glue("answered", json.dumps(told), display=False)


def _sentences(texts: Mapping["Claim", tuple[str, str, str]], by: Mapping["Claim", "Finding"]) -> str:
    return " ".join(
        choices[_place(by[claim])].format_map(_words(by[claim])) for claim, choices in texts.items()
    ).strip()


def _place(finding: "Finding") -> int:
    return VERDICTS.index(finding.verdict)


def _words(finding: "Finding") -> dict[str, str]:
    """What stands for the names in an answer's sentence."""
    row, scale = finding.row, math.exp if finding.claim.ratio else float
    value = scale(finding.estimate.value)
    sides = {"more": "less", "higher": "lower", "above": "below"}
    words = {one: one if value >= finding.claim.null else other for one, other in sides.items()}
    return words | {"number": row["number"], "value": plain(value)}


def _sure(found: Sequence["Finding"], lead: "Finding") -> str:
    """How many claims got which verdict, and over what the leading one's interval is."""
    count = Counter(finding.verdict for finding in found)
    verbs = dict(
        zip(
            VERDICTS,
            (("holds", "hold"), ("does not hold", "do not hold"), ("is not settled", "are not settled")),
            strict=True,
        )
    )
    told = ", ".join(f"{count[v]} {verbs[v][count[v] > 1]}" for v in VERDICTS if count[v])
    claims = f"of {len(found)} claims {told}" if len(found) > 1 else f"its claim {verbs[found[0].verdict][0]}"
    return f"{claims}; 95 % intervals over {lead.row['over']}."


def _told(values: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each single value with its words: the name, and where in a mapping or an array it stands."""
    for name, value in values.items():
        words = (*before, name)
        if isinstance(value, Mapping):
            yield from _told(value, words)
        elif isinstance(value, xr.DataArray) and (rest := [d for d in value.dims if d not in ("replicate", "end")]):
            yield from _told({_word(key): value.sel({rest[0]: key}) for key in value[rest[0]].values}, words)
        elif isinstance(value, xr.DataArray) and value.ndim:
            yield words, value if "end" in value.dims else over_replicates(value.values)
        else:
            yield words, value if isinstance(value, str | Estimate) else float(value)


def _word(key: Any) -> str:
    return f"{key:g}" if isinstance(key, float) else str(key)


def _written(value: Any, scale: Callable[[float], float]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return plain(scale(value))
    ends = (value.value, *value.interval()) if isinstance(value, Estimate) else value.values[[1, 0, 2]]
    return interval(*map(scale, ends))


def plain(value: float) -> str:
    """Write a number to two digits, a large one without decimals."""
    whole = value == round(value) or abs(value) >= 100
    return f"{value:.0f}" if math.isfinite(value) and whole else f"{value:#.2g}".rstrip(".")


def interval(value: float, low: float, high: float) -> str:
    """Write an estimate and its interval to two digits of the half-width, at most four or five in all."""
    if not math.isfinite(high - low):
        return f"{value:.3g} (no interval)"
    most = max(abs(low), abs(high))
    digits = 1 - math.floor(math.log10(max((high - low) / 2, most / 1e3))) if most else 1
    form = f".{max(digits, 0)}f" if digits < 6 else ".3g"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]".replace("-", "−")
