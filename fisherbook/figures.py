"""Pictures of this package's datasets, drawn with HoloViews and Bokeh; one style and one set of colours for all pages.

Nothing is estimated here: what is drawn is in the data given, but for the mean over replicates and its 95 % interval.
"""

import base64
import html
from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr
from bokeh.models import FixedTicker
from bokeh.themes import Theme
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
VERDICTS = {"reproduced": _GREEN, "not reproduced": _RED, "inconclusive": _GREY}
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
    size = {"responsive": True, "min_height": 340, "max_width": 690, "autohide_toolbar": True}
    hv.opts.defaults(
        # without a title: what a widget chooses, the widget says
        hv.opts.Overlay(legend_position="top", legend_limit=1000, hooks=[_fit_legend], title="", **size),
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
    horizontal = ANGLE if along == "angle" else hv.Dimension(along, label=_labelled(values[along]))

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


def angle_axis(plot: Any) -> Any:
    """Mark multiples of π/2 on the horizontal axis of a plot over the whole circle."""

    def ticks(plot: Any, _element: Any) -> None:
        axis = plot.state.below[0]
        axis.ticker = FixedTicker(ticks=list(_PI_TICKS))
        axis.major_label_overrides = _PI_TICKS

    return plot.opts(hooks=[_fit_legend, ticks], xlim=(-np.pi, np.pi))


def _fit_legend(plot: Any, _element: Any) -> None:
    """Give a legend as many columns, up to four, as fit on a phone beside the ticks' labels."""
    ticks = [text for axis in plot.state.left for text in axis.major_label_overrides.values()]
    room = _PHONE - _LETTER * max(map(len, ticks), default=4)
    for legend in plot.state.legend:
        longest = max((len(item.label.value) for item in legend.items), default=0)
        legend.ncols = int(np.clip(room // (_KEY + _LETTER * longest), 1, 4))


def loglog(plot: Any) -> Any:
    """Make both axes of a plot logarithmic."""
    return plot.opts(logx=True, logy=True)


def log_ticks(plot: Any, values: Sequence[float]) -> Any:
    """Label only these values on a plot's logarithmic horizontal axis."""
    return plot.opts(xticks=[(value, f"{value:g}") for value in values])


def guide(slope: float, through: tuple[float, float], span: tuple[float, float], text: str) -> hv.Overlay:
    """Draw a dotted straight line of a given slope in a doubly logarithmic plot, with a word on it."""
    x = np.array(span)
    y = through[1] * (x / through[0]) ** slope
    line = hv.Curve((x, y)).opts(color=_TEXT, line_width=1.5, line_dash="dotted")
    return line * hv.Text(x[-1], y[-1], f" {text}", halign="left").opts(text_color=_TEXT, text_font_size="12px")


def mosaic(images: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> hv.Image:
    """Draw grey images (row, column, height, width) side by side, all with black at 0 and white at 1."""
    down, across, height, width = images.shape
    whole = images.transpose(0, 2, 1, 3).reshape(down * height, across * width)
    return hv.Image(whole, bounds=(0, 0, across, down)).opts(
        cmap="gray", clim=(0, 1), responsive=True, aspect=across / down, max_width=690, toolbar=None, show_grid=False,
        xlabel="", ylabel="", xticks=[(k + 0.5, name) for k, name in enumerate(columns)],
        yticks=[(down - k - 0.5, name) for k, name in enumerate(rows)],
    )  # fmt: skip


def interval(low: float, mean: float, high: float, row: str, shade: str) -> list[hv.Element]:
    """Draw an estimate as a dot on its interval, in one row of a picture whose rows have names."""
    bar = hv.Segments([(low, row, high, row)], ["low", "row", "high", "end"])
    dot = hv.Scatter([(mean, row)], "mean", "row")
    return [bar.opts(color=shade, line_width=2.5), dot.opts(color=shade, size=9)]


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
            lines += interval(row.low, row.estimate, row.high, row.run, VERDICTS[row.verdict])
        height = 90 + 26 * len(rows)
        size = {"responsive": True, "min_height": height, "height": height, "max_width": 690}
        title = claim.replace("{", "{{").replace("}", "}}")  # HoloViews formats it
        return hv.Overlay(lines).opts(title=title, xlabel="estimate", ylabel="", **size)

    return hv.Layout([draw(*group) for group in table.groupby("claim", sort=False)]).cols(1).opts(shared_axes=False)


def show(plot: Any, caption: str, data: xr.Dataset | xr.DataArray | pd.DataFrame, name: str) -> None:
    """Display a plot, its caption and a link that downloads the numbers drawn in it.

    Parameters
    ----------
    plot : HoloViews object
    caption : str
        Readable alone; plain text.
    data : Dataset, DataArray or DataFrame
        What is drawn.
    name : str
        Of the file, without suffix.
    """
    from IPython.display import HTML, display

    frame = data if isinstance(data, pd.DataFrame) else data.to_dataframe().reset_index()
    table = frame.to_csv(index=False, float_format="%.6g").encode()
    link = f"data:text/csv;base64,{base64.b64encode(table).decode()}"
    plot.traverse(_apart, [hv.Overlay])
    display(plot)
    display(
        HTML(
            f'<p class="fb-caption">{html.escape(caption)} '
            f'<a download="{name}.csv" href="{link}">Data of this figure (CSV)</a></p>'
        )
    )


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
