import numpy as np
import pytest
import xarray as xr

import fisherbook as fb
from fisherbook.statistics import findings, power_law

ANGLES = fb.grid(72)
Q = xr.DataArray([0, 0.5, 1, 2, 2, 4], dims="loss")


def along_angle(values, *leading):
    return xr.DataArray(values, dims=(*leading, "angle"), coords={"angle": ANGLES})


def test_the_exponent_of_a_power_law_comes_back_for_every_replicate():
    densities = along_angle([fb.von_mises(loc, 3).pdf(ANGLES) for loc in (-3, 0.2, 1.5)], "replicate")
    alphas = xr.DataArray([0.2, 0.5, -0.1], dims="replicate")
    found = power_law.fit(alphas * np.log(densities) + 7, densities)
    assert np.allclose(found.exponent, alphas)
    assert np.allclose(found.scatter, 0, atol=1e-12)


def test_angles_where_the_density_is_small_do_not_count():
    density = along_angle(fb.von_mises(0, 3).pdf(ANGLES))
    rare = density <= 0.1 * density.max()
    assert 0 < rare.sum() < len(ANGLES)
    spoilt = (0.5 * np.log(density)).where(~rare, 100.0)
    assert np.isclose(power_law.exponent(spoilt, density), 0.5)


def test_the_scatter_is_the_noise_about_the_line(rng):
    density = along_angle(fb.von_mises(0, 1).pdf(ANGLES))
    noise = along_angle(0.2 * rng.standard_normal((500, 72)), "replicate")
    found = power_law.fit(np.log(density) + noise, density)
    assert np.isclose((found.scatter**2).mean(), 0.04, rtol=0.02)
    assert abs(found.exponent.mean() - 1) < 4 * found.exponent.std() / np.sqrt(500)


def test_a_missing_angle_does_not_count_and_what_was_not_measured_has_no_exponent():
    density = along_angle(fb.von_mises(0, 1).pdf(ANGLES))
    values = along_angle(np.tile(0.5 * np.log(density), (3, 1)), "replicate")
    values[0, 30:33], values[1, 2:], values[2] = np.nan, np.nan, np.nan
    found = power_law.fit(values, density)
    assert np.allclose(found.exponent, [0.5, np.nan, np.nan], equal_nan=True)
    assert np.allclose(found.scatter, [0, np.nan, np.nan], atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (2, 1), (1, 1.5), (3, 0), (6, -1)])
def test_the_line_of_the_inverse_comes_back(a, b):
    found = power_law.inverse_line((1 / (a + b * Q)).expand_dims(replicate=3, split=2), Q)
    assert np.allclose(found.intercept, a, atol=1e-5) and np.allclose(found.slope, b, atol=1e-5)
    assert dict(found.sizes) == {"split": 2, "replicate": 3}


@pytest.mark.slow
def test_the_interval_of_the_slope_covers_it(rng):
    hits = 0
    for _ in range(300):
        alphas = 1 / (1 + Q.values) + 0.03 * rng.standard_normal((6, 6)) + 0.02 * rng.standard_normal((6, 1))
        low, high = findings.over_replicates(
            power_law.inverse_line(xr.DataArray(alphas, dims=("replicate", "loss")), Q).slope
        ).interval()
        hits += low < 1 < high
    assert 0.91 < hits / 300 < 0.98


def test_angles_are_matched_whichever_way_they_are_computed_and_missing_ones_refused():
    density = along_angle(fb.von_mises(0, 1).pdf(ANGLES))
    degrees = np.deg2rad(np.arange(-180, 180, 5.0))
    assert (degrees != ANGLES).any()
    values = (0.5 * np.log(density)).assign_coords(angle=degrees)
    assert np.isclose(power_law.exponent(values[::-3], density[::-1]), 0.5)
    assert np.isclose(power_law.exponent(values.drop_vars("angle"), density), 0.5)
    with pytest.raises(ValueError, match="density must be given at all angles"):
        power_law.fit(values, density[::2])


def test_no_line_is_fitted_to_a_single_loss():
    with pytest.raises(ValueError, match="a line needs two different q or more, not"):
        power_law.inverse_line(xr.DataArray(np.full((4, 6), 0.5), dims=("replicate", "loss")), 0 * Q)


def test_no_line_is_fitted_to_exponents_below_zero():
    with pytest.raises(ValueError, match="not positive"):
        power_law.inverse_line(xr.DataArray(np.full((4, 6), -0.1), dims=("replicate", "loss")), Q)
