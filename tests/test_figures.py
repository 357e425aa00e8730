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
