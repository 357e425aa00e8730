"""One clear sentence for every bad argument, and the warning of too few faces."""

import contextlib
import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class FewFaces(UserWarning):
    """Faces, or people, are too few for a trustworthy estimate or error."""


class Misfit(UserWarning):
    """The noise is not what an estimator's model says: its estimate is a bound from below."""


def not_installed(what: str, error: ModuleNotFoundError, extra: str) -> ImportError:
    """Return the error that says which extra of the package brings a library, or `error` if it is no library's."""
    if (error.name or "").startswith("fisherbook"):
        return error
    return ImportError(f"{what} needs {error.name}: pip install 'fisherbook[{extra}]' brings it", name=error.name)


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


def whole_number(argument: str, value: float, least: int = 1) -> int:
    """Return `value` as an int if it is a whole number of at least `least`, else raise a ValueError."""
    single = getattr(value, "ndim", 0) == 0 and hasattr(value, "__float__") and not isinstance(value, bool | np.bool_)
    if not single or not float(value).is_integer() or value < least:
        raise ValueError(f"{argument} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def number(argument: str, value: float, above: float = -np.inf, below: float | None = np.inf) -> float:
    """Return `value` as a float if it lies strictly between the bounds, of which None is none, else raise."""
    with contextlib.suppress(TypeError, ValueError):
        value = float(value)
    if isinstance(value, float) and value > above and (below is None or value < below):
        return value
    said = ("above", above), ("below", below)
    bounds = " and ".join(f"{word} {bound:g}" for word, bound in said if bound not in (None, np.inf, -np.inf))
    raise ValueError(f"{argument} must be a number {bounds}, not {value!r}".replace("number ,", "number,"))


def having(argument: str, value: object, attribute: str, what: str) -> None:
    """Raise a TypeError unless a value has an attribute that tells what it should be."""
    if not hasattr(value, attribute):
        raise TypeError(f"{argument} must be {what}, not of type {type(value).__name__}")


def plain(value: Any) -> NDArray:
    """Return anybody's array as one of numpy, of a tensor in double precision."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    if value.is_meta or "strided" not in str(value.layout):
        raise ValueError(f"a tensor must be dense and hold numbers, not {value.layout} on {value.device}")
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()


def same_length(**lengths: int) -> None:
    """Raise a ValueError that names all lengths unless they are equal."""
    if len(set(lengths.values())) > 1:
        came = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"these must have equal lengths, but {came}")


def positions(argument: str, chosen: ArrayLike, length: int, otherwise: str = "") -> NDArray[np.int64]:
    """Return the positions, from 0, that a choice among so many means: positions, or a mask that is True where chosen.

    Raises
    ------
    ValueError
        If it is anything else, or chooses nothing; `otherwise` ends the sentence with what else is allowed.
    """
    found = np.asarray(chosen)
    if found.dtype == bool and found.shape == (length,):
        found = np.flatnonzero(found)
    whole = found.ndim == 1 and len(found) and found.dtype.kind in "iu" and not np.ma.is_masked(chosen)
    if not whole or found.min() < 0 or found.max() >= length:
        allowed = f"{argument} must be indices from 0 to {length - 1}, or {length} of True and False with one True"
        raise ValueError(f"{allowed}{otherwise}, not {np.array2string(found, threshold=6, edgeitems=2)}")
    return found.astype(np.int64)


def shape(argument: str, came: Sequence[int], *names: str) -> None:
    """Raise a ValueError unless an array of shape `came` has one dimension per name."""
    if len(came) != len(names):
        raise ValueError(f"{argument} must have the dimensions ({', '.join(names)}), not shape {tuple(came)}")


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a parameter that lists several, separated by commas.

    Examples
    --------
    >>> listed("cosine, absolute")
    ('cosine', 'absolute')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str) -> tuple[int | float, ...]:
    """Return the numbers of a parameter that lists several, separated by commas: whole ones as int.

    Examples
    --------
    >>> numbers("60, 20, 0.5")
    (60, 20, 0.5)
    """
    try:
        found = [float(word) for word in listed(text)]
    except ValueError:
        raise ValueError(f"numbers separated by commas are needed, as in '60, 20', not {text!r}") from None
    return tuple(int(x) if x.is_integer() else number("each of the numbers", x) for x in found)


def enough_room(activity: object, what: str, needed: float) -> None:
    """Raise a ValueError if the bytes needed are more than an activity's memory; arrays and codes have no bound."""
    if needed > (memory := getattr(activity, "memory", needed)):
        raise ValueError(
            f"{what} needs {needed / 2**20 + 0.5:.0f} MiB, more than the memory of {memory / 2**20:.0f} MiB: record or "
            "measure with a larger memory, fewer faces or replicates at a time, or on fewer units (`projected`)"
        )
