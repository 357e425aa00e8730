import numpy as np
import pytest
import xarray as xr
from scipy.optimize import minimize

import fisherbook as fb
from fisherbook.statistics import power_law

ANGLES = fb.grid(12)
DENSITY = fb.von_mises(0.4, 0.8).pdf(ANGLES)
COST = 1 + 0.4 * np.cos(2 * ANGLES)


def best_log_roots(q, resources, size):
    """log √F that minimises the mean error under bounded resources, by a general optimiser, knowing no calculus."""

    def error(x):
        log_root = size(x)
        loss = np.exp(-q * log_root) if q else -log_root
        return (DENSITY * loss).sum() / DENSITY.sum()

    bounded = [{"type": "eq", "fun": lambda x, r=r: np.log(r(x))} for r in resources]
    start = np.zeros(len(ANGLES) * (2 if len(resources) == 2 else 1))
    found = minimize(error, start, method="SLSQP", constraints=bounded, options={"maxiter": 500, "ftol": 1e-13})
    assert found.success
    return size(found.x) - size(found.x).mean()


@pytest.mark.parametrize("s", [1, 2])
@pytest.mark.parametrize("q", [0, 0.5, 1, 2, 4])
def test_the_power_law_is_what_an_optimiser_finds(q, s):
    found = best_log_roots(q, [lambda x: (COST * np.exp(s * x)).mean()], lambda x: x)
    expected = np.log(power_law.root_information(DENSITY, power_law.optimal_exponent(q, s), COST))
    assert np.allclose(found, expected, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("q", [0, 0.5, 1, 2, 4])
def test_the_joint_constraint_is_what_an_optimiser_finds(q):
    half = len(ANGLES)
    cells = [lambda x: np.exp(x[:half]).mean(), lambda x: (DENSITY * np.exp(x[half:])).sum() / DENSITY.sum()]
    found = best_log_roots(q, cells, lambda x: x[:half] + x[half:] / 2)
    expected = np.log(power_law.root_information(DENSITY, power_law.optimal_joint_exponent(q)))
    assert np.allclose(found, expected, atol=2e-3)


def test_maximal_information_follows_the_density_itself_and_fisher_information_its_square():
    assert power_law.optimal_exponent(0) == 1 == power_law.optimal_joint_exponent(0)
    assert np.allclose(1 / power_law.optimal_exponent(np.array([0, 1, 4]), 2), [2, 3, 6])


@pytest.mark.parametrize("q", [0, 1, 4])
def test_information_is_uniform_under_the_cost_whatever_the_loss(q):
    at_rest = power_law.fixed_point(COST)
    assert np.isclose(at_rest.sum(), 1)
    assert np.allclose(power_law.root_information(at_rest, power_law.optimal_exponent(q), COST), 1)


def test_a_target_is_met_by_the_density_that_its_power_shapes():
    target = np.exp(0.3 * np.cos(2 * ANGLES + 1))
    density = power_law.fixed_point(COST, target, power=3)
    assert np.allclose(power_law.root_information(density, power_law.optimal_exponent(2), COST), target)


def test_the_null_exponent_is_the_slope_against_the_logarithm_of_steps():
    steps = np.array([250, 500, 1000])
    log_root = xr.DataArray([2 + 0.4 * np.log(steps), np.zeros(3), [1, np.nan, 2]], dims=("replicate", "stage"))
    assert np.allclose(power_law.null_exponent(log_root, steps), [0.4, 0, np.nan], equal_nan=True)


def test_a_loss_that_falls_with_the_error_is_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        power_law.optimal_exponent(-1)
    with pytest.raises(ValueError, match="s must be"):
        power_law.optimal_exponent(1, 0)
