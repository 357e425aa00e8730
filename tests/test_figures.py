"""What the pictures draw, and leave out."""

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from fisherbook import figures


@pytest.fixture(scope="module", autouse=True)
def bokeh():
    hv.extension("bokeh", logo=False)


def drawn(rows, **options):
    values = xr.DataArray(rows, dims=("replicate", "lag"), coords={"lag": [1.0, 2.0]})
    return figures.replicates(values, "lag", "celu", hv.Dimension("S"), **options)


def test_a_logarithmic_axis_meets_no_value_below_its_floor():
    rows = np.array([[1.0, -2.0], [3.0, 0.0], [2.0, 4.0]])
    heights = np.concatenate([plot.dimension_values(d.name) for plot in drawn(rows, floor=0) for d in plot.vdims])
    assert np.nanmin(heights) == pytest.approx(1 / 3)  # half the smallest that is drawn, the mean of the second column
    assert np.isnan(heights).sum() == 2 + 3  # and a gap after each of the thin curves


def test_the_mean_is_bold_and_its_band_is_students_interval():
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 12.0]])
    band, thin, mean = drawn(rows)
    assert mean.label == "celu"
    assert np.array_equal(thin.dimension_values(1), [1, 2, np.nan, 3, 4, np.nan, 5, 12, np.nan], equal_nan=True)
    assert np.allclose(mean.dimension_values(1), rows.mean(0))
    half = 4.302653 * rows.std(0, ddof=1) / np.sqrt(3)
    assert np.allclose(band.dimension_values("high") - band.dimension_values("S"), 2 * half)


def labelled():
    rng = np.random.default_rng(0)
    coords = {"split": ["train", "test"], "loss": ["cosine", "log"], "replicate": [0, 1, 2], "lag": [1.0, 2.0, 4.0]}
    return xr.DataArray(rng.normal(size=(2, 2, 3, 3)), coords, name="height")


def test_lines_draws_what_it_is_asked_for_and_knows_its_data():
    people = {"train": "met", "test": "new"}
    picture = figures.lines(labelled(), "lag", "height (rad)", hue={"log": ("by log", "relu")}, select=people)
    assert list(picture.plot.keys()) == ["met", "new"]
    bold = [curve for curve in picture.plot["new"].traverse(specs=[hv.Curve]) if curve.label == "by log"]
    expected = labelled().sel(split="test", loss="log").mean("replicate")
    assert len(bold) == 1 and np.allclose(bold[0].dimension_values(1), expected)
    assert picture.data[0].equals(labelled()) and hv.render(picture.plot) is not None


def test_choices_that_belong_to_no_dimension_or_to_two_meet_a_sentence():
    with pytest.raises(ValueError, match="values of one dimension"):
        figures.lines(labelled(), "lag", "height", hue={"sine": "s"}, select="split")


def test_dots_draw_the_mean_on_students_interval_or_every_replicate():
    values = labelled().sel(split="test", loss="log")
    bars, dots = figures.dots(values, "lag", "height").plot
    half = 4.302653 * values.std("replicate", ddof=1) / np.sqrt(3)
    assert np.allclose(bars.dimension_values("half"), half) and len(dots) == 3
    (every,) = figures.dots(values, "lag", "height", mean=False).plot
    assert len(every) == 9


def test_dots_of_different_hues_stand_beside_each_other_and_their_intervals_are_scaled_with_them():
    values = np.exp(labelled().sel(split="test"))
    picture = figures.dots(values, "lag", "1 / height", hue="loss", scale=lambda x: 1 / x, dodge=0.2).plot
    first, second = picture.traverse(specs=[hv.Scatter])
    assert np.allclose(second.dimension_values(0) - first.dimension_values(0), 0.2)
    mean, half = values.mean("replicate"), 4.302653 * values.std("replicate", ddof=1) / np.sqrt(3)
    bars = picture.traverse(specs=[hv.ErrorBars])[0]
    shown = mean.isel(loss=0)
    assert np.allclose(first.dimension_values(1), 1 / shown)
    assert np.allclose(bars.dimension_values("upper"), abs(1 / (shown + half.isel(loss=0)) - 1 / shown))


@pytest.mark.parametrize("select", [None, "split"])
def test_pictures_laid_over_each_other_keep_their_options(select):
    figures.setup()
    values = labelled() if select else labelled().sel(split="test")
    shade = {"focused": (1, 2)}
    under = figures.dots(values, "lag", "height", hue="loss", select=select, shade=shade, ylim=(-7, 7))
    both = under * figures.lines(values, "lag", "other", hue="loss", select=select, min_height=430, logx=True)
    drawn = hv.render(both.plot["test"] if select else both.plot)
    assert (drawn.y_range.start, drawn.y_range.end, drawn.min_height) == (-7, 7, 430)
    assert (drawn.xaxis.axis_label, drawn.yaxis.axis_label) == ("lag", "height") and type(
        drawn.x_scale
    ).__name__ == "LogScale"


def test_a_forest_draws_each_row_once_scaled_with_its_reference():
    rows = labelled().mean("lag")
    picture = figures.forest(rows, "factor", ("split", "loss"), scale=np.exp, reference=[1.0])
    (dots,) = picture.plot.traverse(specs=[hv.Scatter])
    expected = np.exp(rows.mean("replicate")).values.ravel()
    assert np.allclose(dots.dimension_values(0), expected)
    assert dots.dimension_values(1).tolist() == [3, 2, 1, 0]
    assert hv.render(picture.plot) is not None


def test_a_figures_tools_leave_the_wheel_and_the_finger_to_the_page():
    figures.setup()
    toolbar = hv.render(figures.lines(labelled(), "lag", "height", hue="loss", select="split").plot["train"]).toolbar
    assert toolbar.active_drag is None and toolbar.active_scroll is None


def test_a_face_that_turns_has_its_picture_every_value_and_its_buttons():
    curves = xr.DataArray(
        np.linspace(1, 2, 8).reshape(4, 2).T,
        {"angle": np.linspace(-3, 2, 4), "people": ["A", "<B>"]},
        ("people", "angle"),
    )
    drawn = figures.turn(np.zeros((4, 4)), curves, {"people": "Other people"})
    assert 'data-values="1,1.29,1.57,1.86,1.14,1.43,1.71,2"' in drawn and "<B>" not in drawn
    assert drawn.count("data:image/png;base64,") == 1 and '<button type="button">Other people</button>' in drawn
    assert 'aria-live="polite"' in drawn and 'type="range"' in drawn and ">√F<" in drawn
