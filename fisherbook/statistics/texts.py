"""Numbers in words: what a notebook pastes into its text, and its folded tables."""

import html
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import xarray as xr

from .estimates import Estimate, over_replicates


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
    """Show numbers in a folded table, "All numbers" with their names.

    Parameters
    ----------
    scale, **values
        As in `tell`; names that are no identifiers are given as ``**{"inside A": ...}``.
    """
    from IPython.display import HTML, display

    rows = [(", ".join(words).replace("_", " "), _written(value, scale)) for words, value in _told(values)]
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>" for name, text in rows)
    table = f'<table class="dataframe fb-numbers"><tbody>{cells}</tbody></table>'
    named = (", ".join([*values][:2]) + ", …" * (len(values) > 2)).replace("_", " ")
    display(HTML(f'<details class="fb-all"><summary>All numbers: {html.escape(named)}</summary>{table}</details>'))


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
