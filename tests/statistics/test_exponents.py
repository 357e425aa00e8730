import numpy as np
import pytest
import xarray as xr

import fisherbook as fb
from fisherbook.statistics import findings, power_law

ANGLES = fb.grid(72)


def along_angle(values, *leading):
    return xr.DataArray(values, dims=(*leading, "angle"), coords={"angle": ANGLES})


def test_the_exponent_of_a_power_law_comes_back_for_every_replicate():
    densities = along_angle([fb.von_mises(loc, 3).pdf(ANGLES) for loc in (-3, 0.2, 1.5)], "replicate")
    alphas = xr.DataArray([0.2, 0.5, -0.1], dims="replicate")
    found = power_law.concentration(alphas * np.log(densities) + 7, densities)
    assert np.allclose(found.exponent, alphas)
    assert np.allclose(found.scatter, 0, atol=1e-12)


def test_angles_where_the_density_is_small_do_not_count():
    density = along_angle(fb.von_mises(0, 3).pdf(ANGLES))
    rare = density <= 0.1 * density.max()
    assert 0 < rare.sum() < len(ANGLES)
    spoilt = (0.5 * np.log(density)).where(~rare, 100.0)
    assert np.isclose(power_law.concentration(spoilt, density).exponent, 0.5)


def test_the_scatter_is_the_noise_about_the_line(rng):
    density = along_angle(fb.von_mises(0, 1).pdf(ANGLES))
    noise = along_angle(0.2 * rng.standard_normal((500, 72)), "replicate")
    found = power_law.concentration(np.log(density) + noise, density)
    assert np.isclose((found.scatter**2).mean(), 0.04, rtol=0.02)
    assert abs(found.exponent.mean() - 1) < 4 * found.exponent.std() / np.sqrt(500)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (2, 1), (1, 1.5), (3, 0), (6, -1)])
def test_the_line_of_the_inverse_comes_back(a, b):
    q = np.array([0, 0.5, 1, 2, 2, 4])
    found = power_law.inverse_line(np.tile(1 / (a + b * q), (3, 1)), q)
    assert np.allclose(found, [[a, b]] * 3, atol=1e-5)


@pytest.mark.slow
def test_the_interval_of_the_slope_covers_it(rng):
    q = np.array([0, 0.5, 1, 2, 2, 4])
    hits = 0
    for _ in range(300):
        alphas = 1 / (1 + q) + 0.03 * rng.standard_normal((6, 6)) + 0.02 * rng.standard_normal((6, 1))
        low, high = findings.over_replicates(power_law.inverse_line(alphas, q)[:, 1]).interval()
        hits += low < 1 < high
    assert 0.91 < hits / 300 < 0.98


def test_no_line_is_fitted_to_exponents_below_zero():
    with pytest.raises(ValueError, match="not positive"):
        power_law.inverse_line(np.full((4, 2), -0.1), [0, 1])
