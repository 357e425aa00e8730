"""Pictures of this package's datasets, drawn with HoloViews and Bokeh; one style and one set of colours for all pages.

Nothing is estimated here: what is drawn is in the data given, but for the mean over replicates and its 95 % interval.
"""

import base64
import html
import io
import itertools
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr
from bokeh.models import FixedTicker, LogTicker
from bokeh.themes import Theme
from PIL import Image
from scipy.special import stdtrit

# Okabe and Ito's palette, told apart by colour-blind readers; the same name has the same colour on every page.
_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY, _BLACK, _GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#4B5563", "#8A8F98",
)  # fmt: skip
COLORS: dict[str, str] = {
    "train": _BLUE, "test": _ORANGE, "training": _BLUE, "photographs": _GREEN, "people": _ORANGE,
    "initial": _GREY, "uniform": _BLUE, "focused": _RED, "alone": _PURPLE,
    "relu": _RED, "leaky_relu": _ORANGE, "celu": _BLUE, "elu": _SKY, "gelu": _GREEN, "silu": _PURPLE,
    "softplus": _BLACK, "tanh": _GREY,
    "tangent": _BLUE, "gaussian": _GREEN, "direct": _ORANGE, "decoded": _RED, "smoothed": _SKY, "robust": _PURPLE,
    "discrimination": _BLACK, "nonlinear": _GREY, "divergence": "#F0E442",
    "harmonic": _BLUE, "bilinear": _ORANGE,
    "angular": _BLUE, "linear": _GREEN, "bins": _ORANGE, "von_mises": _PURPLE, "untrained": _GREY, "pixels": _BLACK,
    "theory": _BLACK, "null": _GREY, "predicted": _BLACK, "drift": _RED, "diffusion": _GREEN, "reset": _SKY,
    "kept": _PURPLE, "plain": _RED, "warm": _ORANGE, "damped": "#999933", "mean_reverting": _GREEN,
    "robbins_monro": _ORANGE, "anderson": _PURPLE, "newton": _BLUE, "fourier": _GREY, "von_mises_mixture": _BLACK,
    "hidden1": _SKY, "hidden2": _GREEN, "output": _BLUE,
    "frozen": _SKY, "finetuned": _RED, "small": _BLACK,
}  # fmt: skip
VERDICTS = {"holds": _GREEN, "does not hold": _RED, "not settled": _GREY}
_TEXT = "#707680"  # readable on the light and on the dark page
_THEME = {
    "figure": {
        "background_fill_alpha": 0, "border_fill_alpha": 0, "outline_line_color": None, "toolbar_location": "above",
        "toolbar_inner": True,
    },
    "Axis": {
        "axis_line_color": _TEXT, "major_tick_line_color": _TEXT, "minor_tick_line_color": None,
        "axis_label_text_color": _TEXT, "major_label_text_color": _TEXT, "axis_label_text_font_style": "normal",
        "axis_label_text_font_size": "13px", "major_label_text_font_size": "12px",
    },
    "Grid": {"grid_line_color": _TEXT, "grid_line_alpha": 0.15},
    "Title": {"text_color": _TEXT, "text_font_size": "14px", "text_font_style": "normal"},
    "Legend": {
        "background_fill_alpha": 0, "border_line_alpha": 0, "label_text_color": _TEXT, "label_text_font_size": "12px",
        "spacing": 8, "padding": 2, "margin": 2,
    },
}  # fmt: skip
_PHONE, _KEY, _LETTER = 325, 34, 6.3  # px: a plot on a phone, what a legend draws before a label, a letter
_PI_TICKS = {-np.pi: "−π", -np.pi / 2: "−π/2", 0.0: "0", np.pi / 2: "π/2", np.pi: "π"}
ANGLE = hv.Dimension("angle", label="stimulus angle θ (rad)")


def setup() -> None:
    """Load HoloViews into the notebook and set the book's style; call it once, at the top."""
    hv.extension("bokeh", logo=False)
    hv.output(widget_location="bottom")
    pd.options.styler.format.escape = "html"
    renderer = hv.renderer("bokeh")
    renderer.webgl = False
    renderer.theme = Theme(json={"attrs": _THEME})
    size = {"responsive": True, "min_height": 340, "max_width": 690, "autohide_toolbar": True, "active_tools": []}
    size |= {"hooks": [_scrolls]}
    over = size | {"hooks": [_scrolls, _fit], "legend_position": "top", "legend_limit": 1000}
    hv.opts.defaults(
        # without a title: what a widget chooses, the widget says
        hv.opts.Overlay(title="", **over),
        hv.opts.Curve(line_width=2, **size), hv.opts.Area(line_width=0, fill_alpha=0.18, **size),
        hv.opts.Scatter(size=7, **size), hv.opts.ErrorBars(lower_head=None, upper_head=None, line_width=2),
        hv.opts.HLine(line_width=1, line_dash="dashed", color=_TEXT),
    )  # fmt: skip


def color(name: str) -> str:
    """Return the book's colour of a split, stage, nonlinearity, estimator, rotation or layer; grey for any other."""
    return COLORS.get(name, _GREY)


def replicates(
    values: xr.DataArray,
    along: str,
    label: str,
    dimension: hv.Dimension,
    *,
    name: str | None = None,
    dash: str = "solid",
    thin: bool = True,
    band: bool = True,
    floor: float | None = None,
) -> hv.Overlay:
    """Draw thin curves for single replicates, the 95 % interval of their mean as a band, and the mean in bold.

    Parameters
    ----------
    values : DataArray (replicate, along)
    along : str
        The dimension of the horizontal axis.
    label : str
        In the legend; its colour is that of `name`, by default the label's own.
    dimension : Dimension
        Of the vertical axis, with its unit.
    dash : str
        Of the mean's line.
    thin, band : bool
        Draw single replicates, and the interval.
    floor : float, optional
        For a logarithmic axis, 0 for instance: only what lies above is drawn, and bands end at half the smallest
        value that is.
    """
    values = values.transpose("replicate", along)
    shade, x, rows = color(name or label), _single(values[along].values), values.values.astype(float)
    mean, count = rows.mean(0), len(rows)
    drawn = np.vstack([rows, mean])
    low = -np.inf if floor is None else drawn.min(initial=np.inf, where=drawn > floor) / 2
    horizontal = _horizontal(values[along])

    def curve(x: np.ndarray, y: np.ndarray, **options: Any) -> hv.Curve:
        return hv.Curve((x, _single(np.where(y > low, y, np.nan))), horizontal, dimension, **options).opts(color=shade)

    # all thin curves are one with gaps: each curve of its own adds kilobytes to a page
    apart = _single(np.tile([*x, np.nan], count)), np.pad(rows, ((0, 0), (0, 1)), constant_values=np.nan).ravel()
    drawn = [curve(*apart).opts(line_width=0.7, alpha=0.35)] if thin else []
    drawn.append(curve(x, mean, label=label).opts(line_width=2.5, line_dash=dash))
    if band and count > 1:
        half = stdtrit(count - 1, 0.975) * rows.std(0, ddof=1) / np.sqrt(count)
        edges = (_single(np.maximum(mean + side, low)) for side in (-half, half))
        drawn.insert(0, hv.Area((x, *edges), horizontal, [dimension, "high"]).opts(color=shade))
    return hv.Overlay(drawn)


def _scrolls(plot: Any, _element: Any) -> None:
    """Leave wheel and finger to the page: a tool works once it is chosen."""
    plot.state.toolbar.active_drag = plot.state.toolbar.active_scroll = None


@dataclass(frozen=True)
class Picture:
    """A plot, the numbers drawn in it and its options; pictures are laid over each other with ``*``.

    Of two pictures that lie over each other, the first's options hold where both have them.
    """

    plot: Any
    data: tuple[xr.DataArray, ...]
    look: Mapping[str, Any] = field(default_factory=dict)

    def __mul__(self, other: "Picture") -> "Picture":
        look = {**other.look, **self.look}
        plot = (self.plot * other.plot).opts(hv.opts.Overlay(**look))
        return Picture(plot, self.data + other.data, look)

    def opts(self, *options: Any, **named: Any) -> "Picture":
        """Return the picture with HoloViews' options set."""
        return replace(self, plot=self.plot.opts(*options, **named))


Choices = str | Mapping[Any, Any]
Shade = Mapping[str, tuple[float, float] | xr.DataArray] | None


def lines(
    values: xr.DataArray,
    along: str,
    label: str,
    *,
    hue: Choices | None = None,
    dash: Choices | None = None,
    select: Choices | Sequence[Choices] | None = None,
    shade: Shade = None,
    reference: Mapping[str, xr.DataArray | float] | None = None,
    name: str | None = None,
    text: str = "",
    thin: bool = True,
    band: bool = True,
    floor: float | None = None,
    ticks: Sequence[float] | None = None,
    framewise: bool = False,
    **options: Any,
) -> Picture:
    """Draw curves: thin for single replicates, bold for their mean, and its 95 % interval as a band.

    Parameters
    ----------
    values : DataArray (along, [replicate,] ...)
        Every other dimension is named by `hue`, `dash` or `select`.
    along : str
        Dimension of the horizontal axis; its label and unit are the coordinate's.
    label : str
        Of the vertical axis, with its unit.
    hue, dash : str or mapping
        The dimension that colours, or the kind of line, tell apart. A mapping from values of one dimension to texts, or
        for `hue` to pairs of a text and the name of a colour, draws these values alone.
    select : str, mapping or sequence of these
        Dimensions that a reader chooses from, likewise.
    shade : mapping of str to tuple of float or DataArray of bool
        Name of a colour → from where to where the horizontal axis is shaded, or an array that is true there.
    reference : mapping of str to DataArray or float
        Dark lines to compare with: chance, a theory, no effect.
    name, text : str
        Without `hue`: colour and legend.
    thin, band : bool
        Draw single replicates, and the interval.
    floor : float, optional
        As in `replicates`.
    ticks : sequence of float, optional
        The only labels of a logarithmic horizontal axis.
    framewise : bool
        Each choice has axes of its own.
    **options
        HoloViews' own, for all of the picture: ``logx``, ``logy``, ``ylim``, ``min_height``, …
    """
    vertical = hv.Dimension(_slug(label), label=label)

    def draw(part: xr.DataArray) -> hv.Overlay:
        drawn = [*_shades(shade, part, along), *_references(reference, part, along, vertical)]
        for one, shown, dashed, words in _told_apart(part, hue, dash, name, text):
            rows = one if "replicate" in one.dims else one.expand_dims("replicate")
            several = rows.sizes["replicate"] > 1
            drawn.append(replicates(
                rows, along, words, vertical, name=shown, dash=dashed, thin=thin and several, band=band, floor=floor
            ))  # fmt: skip
        return hv.Overlay(drawn).opts(**look)

    look = {"framewise": framewise, "ylabel": label, **_axis(values, along, ticks), **options}
    return Picture(_selected(values, select, draw, framewise), (values,), look)


def dots(
    values: xr.DataArray,
    along: str,
    label: str,
    *,
    hue: Choices | None = None,
    select: Choices | Sequence[Choices] | None = None,
    shade: Shade = None,
    reference: Mapping[str, xr.DataArray | float] | None = None,
    name: str | None = None,
    text: str = "",
    mean: bool = True,
    scale: Callable[[float], float] = float,
    dodge: float = 0.0,
    framewise: bool = False,
    **options: Any,
) -> Picture:
    """Draw dots: the mean over replicates with its 95 % interval, or with ``mean=False`` every replicate's.

    Other parameters are those of `lines`, and `scale` is that of `forest`.

    Parameters
    ----------
    dodge : float
        How far dots of different `hue` stand beside each other.
    """
    vertical = hv.Dimension(_slug(label), label=label)

    def draw(part: xr.DataArray) -> hv.Overlay:
        drawn = [*_shades(shade, part, along), *_references(reference, part, along, vertical)]
        several = list(_told_apart(part, hue, None, name, text))
        for place, (one, shown, _, words) in enumerate(several):
            rows = one if {"replicate", "end"} & set(one.dims) else one.expand_dims("replicate")
            shift, x, ink = dodge * (place - (len(several) - 1) / 2), one[along].values, {"color": color(shown)}
            x = x + shift if shift else x  # what stands there may be words
            if mean:
                low, y, high = _ends(rows, scale).transpose("end", along).values
                bars = hv.ErrorBars((x, y, abs(y - low), abs(high - y)), along, [vertical, "half", "upper"])
                drawn += [bars.opts(**ink)] if np.isfinite(low).any() else []
            else:
                x, y = np.tile(x, rows.sizes["replicate"]), rows.transpose("replicate", along).values.ravel()
            size = {"size": 8} if mean else {"size": 3.5, "alpha": 0.6}
            drawn.append(hv.Scatter((x, y), along, vertical, label=words).opts(**ink, **size))
        return hv.Overlay(drawn).opts(**look)

    look = {"framewise": framewise, "ylabel": label, **_axis(values, along), **options}
    return Picture(_selected(values, select, draw, framewise), (values,), look)


def forest(
    values: xr.DataArray | Mapping[str, Any],
    label: str,
    rows: Choices | Sequence[Choices] = "row",
    *,
    hue: Choices | None = None,
    select: Choices | Sequence[Choices] | None = None,
    reference: Sequence[float] = (),
    scale: Callable[[float], float] = float,
    **options: Any,
) -> Picture:
    """Draw estimates as dots on their 95 % intervals, one row below the other.

    Parameters
    ----------
    values : DataArray (rows, ..., replicate or end) or mapping of str to Estimate
        The mean over replicates and its interval, or those of `findings.each`; an Estimate has its own.
    label : str
        Of the horizontal axis, with its unit.
    rows : str, mapping or sequence of these
        The dimension of the rows, or those of its values that are drawn, with their texts; several give a row for each
        combination.
    hue, select
        As in `lines`.
    reference : sequence of float
        Where dashed lines stand: no effect, a claim's margin.
    scale : callable
        Applied to values and ends, such as ``np.exp``.
    **options
        HoloViews' own.
    """
    table = values if isinstance(values, xr.DataArray) else _as_array(values)

    def draw(part: xr.DataArray) -> hv.Overlay:
        drawn: list[hv.Element] = [hv.VLine(x).opts(color=_TEXT, line_width=1, line_dash="dashed") for x in reference]
        dimensions = [rows] if isinstance(rows, str | Mapping) else list(rows)
        chosen = [_choices(part, one) for one in dimensions]
        order = np.array([", ".join(said) for said in itertools.product(*(texts.values() for _, texts in chosen))])
        where = dict(zip((d for d, _ in chosen), (list(texts) for _, texts in chosen), strict=True))
        several = list(_told_apart(part, hue, None, None, ""))
        ends = [_ends(one, scale).sel(where).transpose("end", *where) for one, *_ in several]
        bounds = [[one.sel(end=end).values.ravel() for end in ("low", "value", "high")] for one in ends]
        there = np.isfinite(bounds).any((0, 1)) | (select is not None)  # what was never measured has no row
        for place, ((_, shown, _, words), own) in enumerate(zip(several, bounds, strict=True)):
            low, middle, high = (values[there] for values in own)
            y = np.arange(there.sum())[::-1] - 0.24 * (place - (len(several) - 1) / 2)
            bars = hv.Segments((low, y, high, y), ["low", "row", "high", "to"]).opts(color=color(shown), line_width=2.5)
            dot = hv.Scatter((middle, y), "mean", "row", label=words).opts(color=color(shown), size=9)
            drawn += [bars, dot]
        order = order[there][::-1].tolist()
        height = 110 + 30 * len(order)
        frame = {"min_height": height, "height": height, "yticks": list(enumerate(order))}
        return hv.Overlay(drawn).opts(xlabel=label, ylabel="", ylim=(-0.6, len(order) - 0.4), **frame | options)

    return Picture(_selected(table, select, draw, False), (_ends(table, scale),))


def _choices(values: xr.DataArray, chosen: Choices) -> tuple[str, dict[Any, Any]]:
    """The dimension that is meant, and its values with their texts."""
    if isinstance(chosen, str):
        return chosen, {key: str(key) for key in values[chosen].values.tolist()}
    found = [d for d in values.dims if d in values.coords and set(chosen) <= set(values[d].values.tolist())]
    if len(found) != 1:
        raise ValueError(f"{list(chosen)} must be values of one dimension of {values.dims}, not of {len(found)}")
    return str(found[0]), dict(chosen)


def _told_apart(
    values: xr.DataArray, hue: Choices | None, dash: Choices | None, name: str | None, text: str
) -> Iterator[tuple[xr.DataArray, str, str, str]]:
    """Each curve with the name of its colour, its kind of line, and its words in the legend."""
    hues = [(None, (text, name or text))]
    if hue is not None:
        dimension, texts = _choices(values, hue)
        hues = [({dimension: k}, v if isinstance(v, tuple) else (v, str(k))) for k, v in texts.items()]
    dashes = [(None, "")]
    if dash is not None:
        dimension, texts = _choices(values, dash)
        dashes = [({dimension: key}, said) for key, said in texts.items()]
    for at, (words, shade) in hues:
        for (where, said), kind in zip(dashes, ["solid", "dashed", "dotted", "dotdash"], strict=False):
            one = values.sel((at or {}) | (where or {}), drop=True)
            if one.notnull().any():
                yield one, shade, kind, ", ".join(filter(None, (words, said)))


def _selected(
    values: xr.DataArray, select: Any, draw: Callable[[xr.DataArray], hv.Overlay], framewise: bool
) -> hv.Overlay | hv.HoloMap:
    """One picture, or one for each combination of what a reader chooses from."""
    if select is None:
        return draw(values)
    several = [select] if isinstance(select, str | Mapping) else list(select)
    chosen = [_choices(values, one) for one in several]
    for one, (_, texts) in zip(several, chosen, strict=True):
        if isinstance(one, str):  # of numbers there is a slider, of words a menu
            texts |= {key: key for key in texts if isinstance(key, int | float)}
    pictures = {}
    for keys in itertools.product(*(texts for _, texts in chosen)):
        part = values.sel({d: key for (d, _), key in zip(chosen, keys, strict=True)})
        if part.notnull().any():
            pictures[tuple(texts[key] for (_, texts), key in zip(chosen, keys, strict=True))] = draw(part)
    names = [hv.Dimension(f"{d}_shown", label=_shown(values, d), values=list(texts.values())) for d, texts in chosen]
    return hv.HoloMap(pictures, kdims=names, sort=False).opts(framewise=framewise)


def _shown(values: xr.DataArray, dimension: str) -> str:
    return values[dimension].attrs.get("long_name", dimension)


def _shades(shade: Shade, part: xr.DataArray, along: str) -> list[hv.VSpan]:
    spans = []
    for name, ends in (shade or {}).items():
        if isinstance(ends, xr.DataArray):
            within = ends.sel({dimension: part[dimension] for dimension in ends.dims if dimension != along})
            ends = within[along].where(within).quantile([0, 1]).values
        spans.append(hv.VSpan(*map(float, ends)).opts(color=color(name), alpha=0.1))
    return spans


def _references(
    reference: Mapping[str, xr.DataArray | float] | None, values: xr.DataArray, along: str, vertical: hv.Dimension
) -> list[hv.Curve]:
    """Dark lines with a word each, told apart by their dashes."""
    x = values[along].values
    found = []
    for (text, y), kind in zip((reference or {}).items(), ["dashed", "dotted", "dotdash", "solid"], strict=False):
        level = y if isinstance(y, xr.DataArray) and y.ndim else xr.DataArray([float(y)] * 2, {along: x[[0, -1]]})
        at = (level[along].values, level.values)
        line = hv.Curve(at, along, vertical, label=text)
        found.append(line.opts(color=color("theory"), line_dash=kind, line_width=1.5))
    return found


def _ends(values: xr.DataArray, scale: Callable[[float], float]) -> xr.DataArray:
    """Mean over replicates and the ends of its 95 % interval, along a dimension ``end``."""
    if "end" not in values.dims:
        count = values.sizes["replicate"]
        mean = values.mean("replicate")
        half = stdtrit(count - 1, 0.975) * values.std("replicate", ddof=1) / np.sqrt(count)
        values = xr.concat([mean - half, mean, mean + half], xr.Variable("end", ["low", "value", "high"]))
    return xr.apply_ufunc(scale, values, vectorize=True)


def _as_array(estimates: Mapping[str, Any]) -> xr.DataArray:
    ends = [[*one.interval()[:1], one.value, *one.interval()[1:]] for one in estimates.values()]
    return xr.DataArray(ends, {"row": list(estimates), "end": ["low", "value", "high"]}, name="estimate")


def _axis(values: xr.DataArray, along: str, ticks: Sequence[float] | None = None) -> dict[str, Any]:
    """Options of the horizontal axis: its label; multiples of π/2 over a whole circle, or the only ticks."""
    look, at = {"xlabel": _horizontal(values[along]).label}, values[along].values
    if along == "angle" and at[-1] - at[0] > 2 * np.pi * (1 - 1.5 / len(at)):
        look |= {"hooks": [_scrolls, _fit, _pi_ticks], "xlim": (-np.pi, np.pi)}
    return look if ticks is None else look | {"xticks": [(value, f"{value:g}") for value in ticks]}


def _horizontal(coordinate: xr.DataArray) -> hv.Dimension:
    label = _labelled(coordinate)
    plain = label in ("angle", "stimulus angle (rad)")
    return ANGLE if plain else hv.Dimension(str(coordinate.name), label=label)


def _slug(label: str) -> str:
    return re.sub(r"\W+", "_", label).strip("_") or "value"


def _pi_ticks(plot: Any, _element: Any) -> None:
    axis = plot.state.below[0]
    axis.ticker = FixedTicker(ticks=list(_PI_TICKS))
    axis.major_label_overrides = _PI_TICKS


def _fit(plot: Any, _element: Any) -> None:
    """Fit texts to a phone: a legend's columns, up to four, the axis' title and its ticks, beside those of the rows."""
    ticks = [text for axis in plot.state.left for text in axis.major_label_overrides.values()]
    room = _PHONE - _LETTER * max(map(len, ticks), default=4)
    for legend in plot.state.legend:
        longest = max((len(item.label.value) for item in legend.items), default=0)
        legend.ncols = int(np.clip(room // (_KEY + _LETTER * longest), 1, 4))
    for axis in plot.state.below:
        axis.axis_label = textwrap.fill(axis.axis_label or "", max(16, int(room // _LETTER)))
        if isinstance(axis.ticker, LogTicker):
            axis.ticker.desired_num_ticks = 4


def mosaic(images: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> hv.Image:
    """Draw grey images (row, column, height, width) side by side, all with black at 0 and white at 1."""
    down, across, height, width = images.shape
    whole = images.transpose(0, 2, 1, 3).reshape(down * height, across * width)
    return hv.Image(whole, bounds=(0, 0, across, down)).opts(
        cmap="gray", clim=(0, 1), responsive=True, aspect=across / down, max_width=690, toolbar=None, active_tools=[],
        hooks=[_scrolls], show_grid=False, xlabel="", ylabel="", xticks=[(k + 0.5, n) for k, n in enumerate(columns)],
        yticks=[(down - k - 0.5, name) for k, name in enumerate(rows)],
    )  # fmt: skip


def turn(image: np.ndarray, curves: xr.DataArray, buttons: Mapping[str, str]) -> str:
    """Return HTML of a face that a reader turns, beside the curve of what a network knows at each angle.

    Parameters
    ----------
    image : array, shape (height, width)
        Grey values between 0 and 1.
    curves : DataArray (..., angle)
        √F in rad⁻¹ on a whole grid.
    buttons : mapping of str to str
        For each other dimension, what the button says that goes on to its next value.
    """
    picture = io.BytesIO()
    Image.fromarray((255 * np.clip(image, 0, 1)).astype(np.uint8)).resize((184, 184)).save(picture, "png")
    source = base64.b64encode(picture.getvalue()).decode()
    values = curves.transpose(*buttons, "angle").values
    table = ",".join(f"{value:.3g}" for value in values.ravel())
    names = html.escape(json.dumps([curves[dimension].values.tolist() for dimension in buttons]))
    pressed = "".join(f'<button type="button">{html.escape(text)}</button>' for text in buttons.values())
    marks = f"-36 14 {values.max():.2g},-36 34 rad⁻¹,6 14 √F,-14 154 0,0 172 −180°,170 172 0°,322 172 180°"
    texts = re.sub(r"(\S+) (\S+) ([^,]+),?", r'<text x="\1" y="\2">\3</text>', marks)
    return (
        f'<div class="fb-turn" data-values="{table}" data-names="{names}"><img alt="A face" src="data:image/png;base64,'
        f'{source}"><svg viewBox="-40 0 400 178" role="img" aria-label="The square root of Fisher information over the '
        f'angle"><polyline/><path d="M0 4V150H360"/><line y1="6" y2="150"/><circle r="5"/>{texts}</svg>'
        '<label>Turn the face <input type="range" min="-180" max="180" step="2" value="40"></label>'
        f'<div class="fb-buttons">{pressed}</div><p aria-live="polite"></p></div>'
    )


def estimates(table: pd.DataFrame) -> hv.Layout:
    """Draw each claim's estimates with their intervals, one below the other, and the thresholds that decide.

    Parameters
    ----------
    table : DataFrame
        With columns ``run``, ``claim``, ``estimate``, ``low``, ``high``, ``thresholds`` and ``verdict``.
    """

    def draw(claim: str, rows: pd.DataFrame) -> hv.Overlay:
        lines = [hv.VLine(t).opts(color=_TEXT, line_width=1, line_dash="dashed") for t in rows.thresholds.iloc[0]]
        for row in rows.itertuples():
            bar = hv.Segments([(row.low, row.run, row.high, row.run)], ["low", "row", "high", "end"]).opts(
                line_width=2.5
            )
            dot = hv.Scatter([(row.estimate, row.run)], "mean", "row").opts(size=9)
            lines += [each.opts(color=VERDICTS[row.verdict]) for each in (bar, dot)]
        height = 90 + 26 * len(rows)
        size = {"responsive": True, "min_height": height, "height": height, "max_width": 690}
        title = claim.replace("{", "{{").replace("}", "}}")  # HoloViews formats it
        return hv.Overlay(lines).opts(title=title, xlabel="estimate", ylabel="", **size)

    return hv.Layout([draw(*group) for group in table.groupby("claim", sort=False)]).cols(1).opts(shared_axes=False)


def show(plot: Any, caption: str, data: xr.Dataset | xr.DataArray | pd.DataFrame | None = None, name: str = "") -> None:
    """Display a plot, its caption and a link that downloads the numbers drawn in it.

    Parameters
    ----------
    plot : Picture or HoloViews object
    caption : str
        Readable alone; plain text.
    data : Dataset, DataArray or DataFrame, optional
        What is drawn; a picture knows its own.
    name : str, optional
        Of the file, without suffix; by default made of the caption's first words.
    """
    from IPython.display import HTML, display

    drawn = (data,) if data is not None else plot.data
    frames = [one if isinstance(one, pd.DataFrame) else _frame(one) for one in drawn]
    table = pd.concat(frames).to_csv(index=False, float_format="%.6g").encode()
    link = f"data:text/csv;base64,{base64.b64encode(table).decode()}"
    name = name or "_".join(re.findall(r"\w+", caption.lower())[:4])
    plot = plot.plot if isinstance(plot, Picture) else plot
    plot.traverse(_apart, [hv.Overlay])
    display(plot)
    display(
        HTML(
            f'<p class="fb-caption">{html.escape(caption)} '
            f'<a download="{name}.csv" href="{link}">Data of this figure (CSV)</a></p>'
        )
    )


def _frame(values: xr.Dataset | xr.DataArray) -> pd.DataFrame:
    """A table of what is drawn, with a column for each replicate."""
    if isinstance(values, xr.Dataset):
        return values.to_dataframe().reset_index()
    series = values.reset_coords(drop=True).rename(values.name or "value").to_series()
    if "replicate" in values.dims and values.ndim > 1:
        return series.unstack("replicate").add_prefix("replicate_").reset_index()
    return series.reset_index()


def _apart(overlay: hv.Overlay) -> None:
    """Have what asks for axes of its own ask that of its curves too: else HoloViews looks at all for each, slowly."""
    if hv.Store.lookup_options("bokeh", overlay, "norm").kwargs.get("framewise"):
        overlay.traverse(lambda element: element.opts(framewise=True), [hv.Element])


def _single(values: np.ndarray) -> np.ndarray:
    """Return numbers in single precision: enough for a picture, and half as much of a page."""
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _labelled(coordinate: xr.DataArray) -> str:
    units = coordinate.attrs.get("units", "1").replace("rad-2", "rad⁻²").replace("rad-1", "rad⁻¹")
    words = coordinate.attrs.get("long_name", str(coordinate.name))
    return words if units == "1" else f"{words} ({units})"
