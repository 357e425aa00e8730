"""One covariance for all angles: right where each angle has few trials, or one."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

import fisherbook as fb
from fisherbook.fisher.calibration import calibrate_trials
from fisherbook.fisher.codes import NOISES, draw_trials, gaussian_code, population_code, simulate
from fisherbook.fisher.pooled import pooled

PAGE = Path(__file__).parents[2] / "book" / "populations.md"
AT = fb.grid(12)
ANGLES = np.repeat(AT, 25)
CODE = population_code(6, "gain")
TRIALS = draw_trials(CODE, ANGLES, seed=1)


def truth(code, angles=AT):
    return np.array([code.information(angle)["linear"] for angle in angles])


@pytest.mark.parametrize("noise", NOISES)
def test_the_estimate_is_near_the_truth_under_every_published_noise(noise):
    code = population_code(12, noise)
    found = [pooled(draw_trials(code, np.repeat(AT, 40), seed), np.repeat(AT, 40), AT) for seed in range(3)]
    error = np.array([one.information for one in found]) / truth(code) - 1
    assert abs(error.mean()) < 0.1
    claimed = np.array([one.standard_error * t.ppf(0.975, one.degrees_of_freedom) for one in found]) / truth(code)
    assert (abs(error) <= claimed).mean() > 0.85


def test_more_units_than_trials_at_an_angle_and_one_trial_at_each_are_welcome():
    code = population_code(40, "common")
    angles = np.random.default_rng(2).uniform(-np.pi, np.pi, 400)
    found = pooled(draw_trials(code, angles, 3), angles, AT)
    assert found.information.mean() == pytest.approx(truth(code).mean(), rel=0.15)
    assert found.standard_error.mean() < 0.2 * truth(code).mean()


def test_independent_units_of_constant_noise_have_the_information_of_their_slopes():
    code = gaussian_code(3, information=50.0, slope_noise=0.0)
    found = pooled(draw_trials(code, np.repeat(AT, 100), 4), np.repeat(AT, 100), AT)
    assert found.information == pytest.approx(np.full(12, 50.0), rel=0.25)
    assert found.information.mean() == pytest.approx(50, rel=0.05)


def test_it_errs_less_than_an_estimate_from_each_angle_s_own_trials():
    judged = calibrate_trials(("pooled", "smoothed"), ("common",), units=10, trials=40, draws=5)
    error = judged.relative_rmse.squeeze("noise")
    assert float(error.sel(estimator="pooled")) < 0.7 * float(error.sel(estimator="smoothed"))
    fb.results.validate(judged)


@settings(max_examples=6)
@given(st.integers(0, 1000))
def test_order_of_trials_whole_turns_and_units_of_measurement_change_nothing(seed):
    random = np.random.default_rng(seed)
    order, scale = random.permutation(len(ANGLES)), random.uniform(0.01, 100, 6)  # no offset: a gain knows its zero
    known = pooled(TRIALS, ANGLES, AT)
    other = pooled((TRIALS * scale)[order], ANGLES[order] + 2 * np.pi * random.integers(-2, 3), AT)
    np.testing.assert_allclose(other.information, known.information, rtol=1e-6)
    np.testing.assert_allclose(other.standard_error, known.standard_error, rtol=1e-6)


def test_a_stimulus_of_half_a_turn_has_four_times_the_information():
    whole, half = pooled(TRIALS, ANGLES, AT), pooled(TRIALS, ANGLES / 2, AT / 2, period=np.pi)
    np.testing.assert_allclose(half.information, 4 * whole.information, rtol=1e-6)
    np.testing.assert_allclose(half.standard_error, 4 * whole.standard_error, rtol=1e-6)


def test_estimate_labels_what_the_kernel_finds():
    found = fb.estimate(TRIALS.reshape(12, 25, 6), angles=AT, estimator=["pooled", "smoothed"]).sel(estimator="pooled")
    kernel = pooled(TRIALS, ANGLES, AT)
    np.testing.assert_array_equal(found.fisher_information, kernel.information)
    np.testing.assert_array_equal(found.standard_error, kernel.standard_error)
    assert found.effective_faces.values == pytest.approx(kernel.effective_trials)
    fb.results.validate(found)


def told(noise):
    code = population_code(40, noise)
    trials = draw_trials(code, np.repeat(fb.grid(24), 40), 5).reshape(24, 40, 40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fb.estimate(trials, angles=24, estimator="pooled")
    return [w.category for w in caught if issubclass(w.category, fb.Misfit)]


def test_noise_that_turns_with_the_angle_is_told_and_noise_that_does_not_is_not():
    assert told("turning") == [fb.Misfit]
    assert told("common") == []


@pytest.mark.parametrize(
    ("trials", "angles", "message"),
    [
        (TRIALS, np.repeat(AT[:4], 75), "pooled needs 5 or more angles all the way round the circle, not 4"),
        (TRIALS, ANGLES / 4, "not 12 with a gap of 0.77 turns"),
        (np.where(TRIALS > 20, np.nan, TRIALS), ANGLES, "activity must be finite"),
        (TRIALS * [1, 1, 0, 1, 1, 1], ANGLES, r"1 of 6 units are constant \(the first is unit 2\)"),
        (np.where(np.arange(300)[:, None] == 7, TRIALS, TRIALS * [1, 0, 1, 1, 1, 1]), ANGLES, "in one trial alone"),
        (TRIALS[:, [0, 1, 2, 3, 4, 4]], ANGLES, "of 6 units over 300 trials is singular"),
        (TRIALS[::16], ANGLES[::16], "pooled needs at least 16 trials more than its mean has terms"),
    ],
)
def test_bad_input_is_told_in_a_sentence(trials, angles, message):
    with pytest.raises(ValueError, match=message):
        pooled(trials, angles, AT)


def test_a_line_is_no_circle():
    with pytest.raises(ValueError, match="pooled takes a stimulus on a circle, not on a line"):
        fb.estimate(TRIALS, angles=ANGLES, period=None, estimator="pooled")


def test_faces_that_are_the_same_at_all_angles_are_no_trials():
    with pytest.raises(ValueError, match="pooled' needs other trials at every angle"):
        fb.estimate(simulate(gaussian_code(3), 12, 60), estimator="pooled")
    with pytest.raises(ValueError, match="no influence of single trials"):
        fb.estimate(TRIALS.reshape(12, 25, 6), angles=AT, estimator="pooled", influence=True)


def test_the_page_on_own_recordings_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
            exec(block, names)
    printed = re.search(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert capsys.readouterr().out.strip() == printed.strip()


def test_masked_trials_are_left_out_as_if_they_had_not_been_recorded():
    random = np.random.default_rng(3)
    angles = np.linspace(-np.pi, np.pi, 12, endpoint=False)
    responses = np.cos(angles[:, None, None] - np.arange(6)) + random.normal(size=(12, 30, 6))
    masked = np.ma.masked_array(responses, np.zeros(responses.shape, bool))
    masked[3, 5] = masked[7, :2] = np.ma.masked
    left = [np.asarray(one[~one.mask.any(-1)]) for one in masked]
    found = fb.estimate(masked, angles=angles, estimator="pooled")
    wanted = fb.estimate(left, angles=angles, estimator="pooled")
    np.testing.assert_allclose(found.fisher_information, wanted.fisher_information, rtol=1e-9)
    np.testing.assert_allclose(found.standard_error, wanted.standard_error, rtol=1e-9)
