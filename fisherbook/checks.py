"""One clear sentence for every bad argument, and the warning of too few faces."""

import difflib
from collections.abc import Iterable, Sequence


class FewFaces(UserWarning):
    """Faces, or people, are too few for a trustworthy estimate or error."""


class Misfit(UserWarning):
    """The noise is not what an estimator's model says: its estimate is a bound from below."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """The hint ``"; did you mean 'x'?"`` for a misspelt name, or nothing when no name is near."""
    near = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_of(argument: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of the `allowed` names.

    Raises
    ------
    ValueError
        With the argument's name, what came, the nearest valid name and all that is allowed.
    """
    allowed = list(allowed)
    if value in allowed:
        return value
    hint = nearest(value, allowed) if isinstance(value, str) else ""
    raise ValueError(f"{argument} must be one of {', '.join(allowed)}, not {value!r}{hint}")


def whole_number(argument: str, value: int, least: int = 1) -> int:
    """Return `value` as an int if it is a whole number of at least `least`, else raise a ValueError."""
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{argument} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def number(argument: str, value: float, above: float | None = None, below: float | None = None) -> float:
    """Return `value` as a float if it lies strictly between the bounds given, else raise a ValueError."""
    value = float(value)
    if (above is None or value > above) and (below is None or value < below):
        return value
    bounds = " and ".join(
        f"{word} {bound:g}" for word, bound in (("above", above), ("below", below)) if bound is not None
    )
    raise ValueError(f"{argument} must be a number {bounds}, not {value!r}".replace("number ,", "number,"))


def same_length(**lengths: int) -> None:
    """Raise a ValueError that names all lengths unless they are equal."""
    if len(set(lengths.values())) > 1:
        came = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"these must have equal lengths, but {came}")


def shape(argument: str, came: Sequence[int], *names: str) -> None:
    """Raise a ValueError unless an array of shape `came` has one dimension per name."""
    if len(came) != len(names):
        raise ValueError(f"{argument} must have the dimensions ({', '.join(names)}), not shape {tuple(came)}")
