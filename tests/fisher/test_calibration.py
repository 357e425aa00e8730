"""Codes whose information is known on paper, and how estimators do on them."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import integrate, stats

from fisherbook import results
from fisherbook.fisher import calibration
from fisherbook.fisher.estimate import FewFaces, estimate

STEP = 1e-3  # rad
COVARIANCE = [[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 0.5]]
SMOOTH = {
    "gaussian": calibration.gaussian_code(3, 50.0, COVARIANCE),
    "tuning": calibration.tuning_code(4),
    "curved": calibration.curved_code(),
}


def moments(code, angle, faces=100_000):
    """Mean and covariance of a code's responses over many faces, the same ones at every angle."""
    drawn = calibration.simulate(code, [angle], faces, seed=1)  # the same latents every time
    responses = next(drawn.chunks(tangents=False))[1][0, 0].double().numpy()
    return responses.mean(0), np.cov(responses.T)


def divergence(first, second):
    """Kullback-Leibler divergence of two normal distributions."""
    (mean_1, cov_1), (mean_2, cov_2) = first, second
    apart = mean_2 - mean_1
    trace = np.trace(np.linalg.solve(cov_2, cov_1)) - len(apart)
    logarithm = np.linalg.slogdet(cov_2)[1] - np.linalg.slogdet(cov_1)[1]
    return (apart @ np.linalg.solve(cov_2, apart) + trace + logarithm) / 2


@pytest.mark.parametrize("name", ["gaussian", "tuning"])
@pytest.mark.parametrize("angle", [-2.0, 0.5])
def test_twice_the_divergence_of_neighbours_is_the_information_times_the_step_squared(name, angle):
    code = SMOOTH[name]
    here, there = (moments(code, angle + sign * STEP / 2) for sign in (-1, 1))
    assert 2 * divergence(here, there) / STEP**2 == pytest.approx(code.information(angle)["full"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("angle", [-2.0, 0.5])
@pytest.mark.parametrize("name", [*SMOOTH, "poisson"])
def test_linear_information_is_the_mean_s_slope_over_the_covariance(name, angle):
    code, step = SMOOTH.get(name, calibration.poisson_code(4)), 0.05 if name == "poisson" else STEP
    (before, _), (_, covariance), (after, _) = (moments(code, angle + k * step / 2) for k in (-1, 0, 1))
    slope = (after - before) / step
    expected = slope @ np.linalg.solve(covariance, slope)
    assert code.information(angle)["linear"] == pytest.approx(expected, rel=0.04)


def test_a_counts_information_is_that_of_its_distribution():
    code = calibration.poisson_code(1, peak=6.0)
    rate, step = lambda a: 1 + 5 * math.exp((math.cos(a + math.pi) - 1) / 0.49), 1e-4
    counts = np.arange(60)
    low, high = (stats.poisson(rate(2.5 + sign * step / 2)).logpmf(counts) for sign in (-1, 1))
    score = (high - low) / step
    expected = (stats.poisson(rate(2.5)).pmf(counts) * score**2).sum()
    assert code.information(2.5)["full"] == pytest.approx(expected, rel=1e-5)


def test_the_curved_code_s_information_is_that_of_its_angle_alone():
    spread = 0.3
    score, _ = integrate.quad(lambda z: stats.norm.pdf(z) * (z / spread) ** 2, -9, 9)
    known = calibration.curved_code(spread).information(0.7)
    assert known["full"] == pytest.approx(score)
    assert known["decoded"] == known["full"] > known["linear"]


def test_a_covariance_may_be_given_and_leaves_the_information_alone():
    code = SMOOTH["gaussian"]
    assert moments(code, 1.0)[1] == pytest.approx(np.array(COVARIANCE), abs=0.02)
    for angle in (-3.0, 0.0, 1.0):
        known = code.information(angle)
        assert known["linear"] == pytest.approx(50)
        assert known["full"] == pytest.approx(50)


@pytest.mark.parametrize("name", SMOOTH)
def test_tangents_are_the_derivatives_of_the_responses(name):
    drawn = calibration.simulate(SMOOTH[name], [0.4], 30, replicates=2)
    _, _, tangents = next(drawn.chunks())
    low, high = (next(drawn.shifted(s * STEP / 2).chunks(tangents=False))[1] for s in (-1, 1))
    torch.testing.assert_close((high - low) / STEP, tangents, rtol=1e-5, atol=1e-5)


def test_faces_of_one_person_are_alike_and_pairs_are_as_correlated_as_asked():
    code = calibration.gaussian_code(4, slope_noise=0.0)
    drawn = calibration.simulate(code, [0.0], 4000, faces_per_person=2, correlation=0.6, pairing=0.7, tails=8, seed=2)
    latents = drawn.latents[0, :, :4]
    assert np.corrcoef(latents[::2].flatten(), latents[1::2].flatten())[0, 1] == pytest.approx(0.6, abs=0.05)
    assert float(latents.var()) == pytest.approx(1, abs=0.05)
    assert drawn.identity[0, :4].tolist() == [0, 0, 1, 1]
    low, high = (drawn.shifted(s).latents.flatten() for s in (-0.1, 0.1))
    assert np.corrcoef(low, high)[0, 1] == pytest.approx(0.7, abs=0.05)


@pytest.mark.slow
def test_calibration_is_a_labelled_table_that_can_be_repeated():
    once, again = (
        calibration.calibrate(
            calibration.gaussian_code, ["tangent", "direct"], faces=[60, 120], units=[2, 5], tails=[np.inf, 5.0],
            delta=[0.05, 0.1], draws=30, seed=3,
        )
        for _ in range(2)
    )  # fmt: skip
    xr.testing.assert_identical(once, again)
    assert dict(once.sizes) == {
        "estimator": 2, "faces": 2, "units": 2, "delta": 2, "tails": 2, "correlation": 1,
    }  # fmt: skip
    assert (once.coverage.mean() > 0.9).item()
    assert (once.relative_rmse.sel(faces=120) < once.relative_rmse.sel(faces=60)).mean() > 0.8
    results.validate(once)


CASES = {
    "tangent": (calibration.gaussian_code, {"units": [10]}),
    "tangent of people": (
        calibration.gaussian_code, {"units": [10], "correlation": [0.5], "faces_per_person": 10, "faces": [280]},
    ),
    "tangent with heavy tails": (calibration.gaussian_code, {"units": [20], "tails": [5.0]}),
    "gaussian": (calibration.tuning_code, {"units": [6]}),
    "direct": (calibration.gaussian_code, {"units": [10], "pairing": 0.5}),
    "direct on counts": (calibration.poisson_code, {"units": [8], "pairing": 0.0, "delta": [0.2]}),
    "decoded": (lambda units: calibration.curved_code(), {"units": [2]}),
    "smoothed": (calibration.gaussian_code, {"units": [4], "faces": [100]}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_estimators_are_unbiased_and_their_intervals_honest_where_their_assumptions_hold(case):
    code, conditions = CASES[case]
    conditions = {"faces": [200], "draws": 300, "seed": 4} | conditions
    found = calibration.calibrate(code, [case.split()[0]], **conditions).squeeze()
    assert abs(float(found.relative_bias)) < 4 * float(found.relative_bias_error) + 0.005
    assert 0.91 <= float(found.coverage) <= 0.985
    assert float(found.relative_standard_error) == pytest.approx(float(found.relative_rmse), rel=0.25)


@pytest.mark.parametrize(
    ("units", "error", "each", "correlation"), [(2, 0.1, 1, 0), (20, 0.15, 1, 0), (10, 0.15, 10, 0.5)]
)
def test_the_planned_number_of_faces_gives_the_wanted_error(units, error, each, correlation):
    faces = calibration.plan_faces(units, error, slope_variation=0.2, faces_per_person=each, correlation=correlation)
    assert faces % each == 0
    code = partial(calibration.gaussian_code, information=100.0, slope_noise=2.0)
    found = calibration.calibrate(
        code, faces=[faces], units=[units], faces_per_person=each, correlation=[correlation], draws=300, seed=5
    ).squeeze()
    assert float(found.relative_rmse) == pytest.approx(error, rel=0.2)


def test_plans_grow_with_units_precision_tails_and_people():
    plan = calibration.plan_faces
    assert plan(20) == 2 * 100 + 20 + 3 + 1
    assert plan(20) < plan(200) < plan(200, 0.05)
    assert plan(20) < plan(20, kurtosis=9) and plan(20) < plan(20, slope_variation=1)
    assert plan(20) < plan(20, faces_per_person=10, correlation=0.3)


@pytest.mark.parametrize("noise", calibration.NOISES)
def test_a_population_s_information_is_that_of_its_trials(noise):
    code, half = calibration.population_code(4, noise, seed=3), 0.05
    before, here, after = (
        calibration.draw_trials(code, np.full(20_000, angle), seed=4) for angle in (0.5 - half, 0.5, 0.5 + half)
    )
    slope = (after.mean(0) - before.mean(0)) / (2 * half)
    found = slope @ np.linalg.solve(np.cov(here.T), slope)
    assert code.information(0.5)["linear"] == pytest.approx(found, rel=0.06)


def test_differential_noise_limits_the_information_as_on_paper():
    common, limited = (calibration.population_code(30, noise) for noise in ("common", "differential"))
    whole, left = (np.array([c.information(a)["linear"] for a in np.linspace(-3, 3, 7)]) for c in (common, limited))
    jitter = 1 / left - 1 / whole
    assert jitter == pytest.approx(np.full(7, jitter[0]))  # the variance of the angle itself, the same everywhere
    assert (left / whole).mean() == pytest.approx(0.5, abs=0.03)


def test_trials_have_noise_of_their_own_and_can_be_repeated():
    code = calibration.population_code(5, "counts")
    once, again = (calibration.draw_trials(code, [0.0, 1.0, 0.0], seed=2) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert (once[0] != once[2]).any()


@pytest.mark.parametrize(("units", "information", "delta"), [(2, 100.0, 0.2), (10, 400.0, 0.1), (5, 400.0, 0.3)])
def test_the_planned_number_of_trials_gives_the_wanted_error(units, information, delta):
    trials = calibration.plan_trials(units, information, delta, 0.2)
    code = partial(calibration.gaussian_code, information=information, slope_noise=0.0)
    found = calibration.calibrate(
        code, ["direct"], units=[units], faces=[trials], delta=[delta], pairing=0.0, draws=600, seed=6
    ).squeeze()
    assert float(found.relative_rmse) == pytest.approx(0.2, rel=0.1)


def test_planned_trials_are_the_fewest_that_will_do():
    plan = calibration.plan_trials
    assert plan(1, 1e9, 1.0) == 104  # the first of 2 / (2 T - 6) < 0.1^2: only the covariance is uncertain
    assert plan(20, 100, 0.1) > plan(20, 100, 0.2) > plan(20, 400, 0.2) > plan(2, 400, 0.2)
    assert plan(20, 100, 0.2, 0.05) > 3 * plan(20, 100, 0.2, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibration.gaussian_code(1), "units must be a whole number of at least 2"),
        (lambda: calibration.gaussian_code(2, covariance=np.eye(3)), "units has 2, covariance has 3"),
        (lambda: calibration.simulate(SMOOTH["tuning"], tails=2), "tails must be a number above 2"),
        (
            lambda: calibration.simulate(SMOOTH["tuning"], faces=25, faces_per_person=10),
            "faces must be a multiple of faces_per_person, not 25 of 10",
        ),
        (lambda: calibration.population_code(3, "gains"), "noise must be one of .* did you mean 'gain'"),
        (lambda: calibration.plan_trials(3, 0, 0.1), "information must be a number above 0"),
        (lambda: calibration.plan_faces(3, 0), "relative_error must be a number above 0"),
    ],
)
def test_bad_input_is_told_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_few_people_are_warned_of():
    with pytest.warns(FewFaces, match="4 people are few"):
        estimate(calibration.simulate(SMOOTH["tuning"], 2, 40, faces_per_person=10, correlation=0.2))
