"""The estimators as functions of arrays: unbiased where they say so, and indifferent to what cannot matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fisherbook.fisher import classifiers, kernels
from fisherbook.fisher.circular import decoded, smoothed, smoothed_trials
from fisherbook.fisher.covariance import least_faces

DRAWS = 400
MEAN_SLOPE = 2.0  # of the first unit; the information is its square


def normal(generator, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def latents(generator, draws, people, each, units, correlation=0.0, tails=None):
    """Standardised faces (draw, face, unit) of `people` with `each` faces, correlated within people."""

    def draw(number):
        scale = 1.0
        if tails:
            chi2 = torch.as_tensor(stats.chi2(tails).rvs((draws, people, number, 1), random_state=7 + number))
            scale = ((tails - 2) / chi2).sqrt()
        return normal(generator, draws, people, number, units) * scale

    own = draw(each)
    if isinstance(correlation, torch.Tensor) or correlation:
        correlation = torch.as_tensor(correlation, dtype=torch.float64)
        own = correlation.sqrt() * draw(1) + (1 - correlation).sqrt() * own
    return own.flatten(1, 2)


def linear_code(seed, draws, people, each, units, correlation=0.0, tails=None):
    """Responses and tangents of a code whose linear information is MEAN_SLOPE², with people's labels."""
    generator = torch.Generator().manual_seed(seed)
    x, e = (latents(generator, draws, people, each, units, correlation, tails) for _ in range(2))
    slope = torch.zeros(units, dtype=torch.float64)
    slope[0] = MEAN_SLOPE
    return x, e + slope, np.arange(people * each) // each


def assert_unbiased(values, truth, slack=0.0):
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - truth) < 4 * error + slack * abs(truth), (values.mean() / truth, error / truth)


def coverage(found, truth):
    reach = found.standard_error * stats.t.ppf(0.975, float(found.degrees_of_freedom[0]))
    return float(((found.information - truth).abs() <= reach).double().mean())


@pytest.mark.slow
@pytest.mark.parametrize(("faces", "units"), [(100, 20), (200, 2), (150, 50)])
def test_tangent_estimate_is_unbiased_for_a_gaussian_code(faces, units):
    x, d, _ = linear_code(0, DRAWS, faces, 1, units)
    found = kernels.tangent(x, d)
    assert_unbiased(found.information, MEAN_SLOPE**2)
    assert 0.92 <= coverage(found, MEAN_SLOPE**2) <= 0.98


def test_the_naive_estimate_is_biased_by_the_predicted_amount():
    faces, units = 100, 20
    x, d, _ = linear_code(1, DRAWS, faces, 1, units)
    n = faces - 1
    predicted = n / (n - units - 1) * (MEAN_SLOPE**2 + units / faces)
    assert_unbiased(kernels.tangent(x, d).plugin, predicted)
    assert predicted > 1.3 * MEAN_SLOPE**2


def test_for_independent_normal_faces_the_correction_is_the_inverse_wishart_one():
    x, d, _ = linear_code(2, 50, 200, 1, 10)
    found = kernels.tangent(x, d)
    n, z = 199, d - d.mean(1, keepdim=True)
    noise = (torch.linalg.solve(torch.cov(x[0].T), z[0].T) * z[0].T).sum() / (n * 200)
    expected = (n - 10 - 1) / n * (found.plugin[0] - noise)
    assert found.information[0] == pytest.approx(float(expected), rel=0.02)
    assert found.effective_faces.numpy() == pytest.approx(n)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("people", "units", "correlation"), [(28, 20, 0.3), (28, 20, 0.5), (40, 20, 0.5), (40, 2, 0.8), (8, 2, 0.3)]
)
def test_tangent_estimate_is_unbiased_for_faces_of_few_people(people, units, correlation):
    x, d, groups = linear_code(3, DRAWS, people, 10, units, correlation)
    found = kernels.tangent(x, d, groups)
    assert_unbiased(found.information, MEAN_SLOPE**2)
    assert 0.92 <= coverage(found, MEAN_SLOPE**2) <= 0.985
    assert (found.degrees_of_freedom == people - 1).all()


@pytest.mark.slow
def test_to_ignore_people_is_fatal():
    x, d, _ = linear_code(4, DRAWS, 28, 10, 20, 0.5)
    ignored = kernels.tangent(x, d)
    assert ignored.information.mean() > 1.25 * MEAN_SLOPE**2
    assert coverage(ignored, MEAN_SLOPE**2) < 0.7


def test_units_that_tell_people_apart_do_not_spoil_the_estimate():
    mixed = torch.where(torch.arange(4) % 2 == 0, 0.9, 0.1)
    x, d, groups = linear_code(5, DRAWS, 40, 10, 4, mixed)
    assert_unbiased(kernels.tangent(x, d, groups).information, MEAN_SLOPE**2)


@pytest.mark.slow
@pytest.mark.parametrize(("faces", "units"), [(200, 20), (150, 60)])
def test_heavy_tails_are_corrected_where_the_inverse_wishart_factor_fails(faces, units):
    x, d, _ = linear_code(6, DRAWS, faces, 1, units, tails=5)
    found = kernels.tangent(x, d)
    n = faces - 1
    wishart = (n - units - 1) / n * (found.plugin.mean() - units / faces)
    assert wishart > 1.07 * MEAN_SLOPE**2
    assert_unbiased(found.information, MEAN_SLOPE**2, slack=0.015)
    assert 0.91 <= coverage(found, MEAN_SLOPE**2) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "pairing", "correlation"),
    [("independent", 0, 0)] + [("paired", *case) for case in [(0, 0), (0.5, 0), (0.9, 0), (1, 0), (0.9, 0.5)]],
)
def test_direct_estimate_is_unbiased_at_every_pairing(design, pairing, correlation):
    generator = torch.Generator().manual_seed(8)
    people, each, units, delta = (28, 10, 20, 0.1) if correlation else (200, 1, 20, 0.1)
    one, two = (latents(generator, DRAWS, people, each, units, correlation) for _ in range(2))
    plus = pairing * one + math.sqrt(1 - pairing**2) * two
    plus[..., 0] += MEAN_SLOPE
    groups = np.arange(people * each) // each if correlation else None
    found = kernels.direct(torch.stack([one, plus], -3), delta, groups, design)
    assert_unbiased(found.information, (MEAN_SLOPE / delta) ** 2)
    assert 0.92 <= coverage(found, (MEAN_SLOPE / delta) ** 2) <= 0.985


def test_the_correction_for_independent_trials_fails_for_paired_faces():
    generator = torch.Generator().manual_seed(9)
    faces, units, delta = 200, 20, 0.05
    one = normal(generator, DRAWS, faces, units)
    plus = one + delta * 20 * torch.eye(units, dtype=torch.float64)[0]
    found = kernels.direct(torch.stack([one, plus], -3), delta)
    published = found.plugin * (2 * faces - units - 3) / (2 * faces - 2) - 2 * units / (faces * delta**2)
    assert_unbiased(found.information, 400)
    assert published.mean() < 0.9 * 400


def blind_truth(slope, covariance):
    """Information used, shuffled and ignored of a slope and a covariance."""
    variance = covariance.diagonal()
    shuffled = (slope**2 / variance).sum()
    decoder = slope / variance
    used = slope @ torch.linalg.solve(covariance, slope)
    return {"used": used, "shuffled": shuffled, "ignored": shuffled**2 / (decoder @ covariance @ decoder)}


@pytest.mark.parametrize("correlations", ["used", "shuffled", "ignored"])
@pytest.mark.parametrize("kernel", ["tangent", "paired", "independent", "smoothed"])
def test_information_without_noise_correlations_is_unbiased(kernel, correlations):
    generator = torch.Generator().manual_seed(30)
    units, faces, draws = 5, 80, 300
    root = torch.eye(units, dtype=torch.float64) + 0.4 * normal(generator, units, units)
    slope = torch.linspace(-1, 1.5, units, dtype=torch.float64)
    truth = float(blind_truth(slope, root @ root.T)[correlations])
    one, two = (normal(generator, draws, faces, units) @ root.T for _ in range(2))
    if kernel == "tangent":
        found = kernels.tangent(one, slope + 0.7 * two, correlations=correlations)
    elif kernel == "smoothed":
        angles = torch.arange(8, dtype=torch.float64).repeat_interleave(faces) * math.pi / 4
        noise = normal(generator, draws, 8 * faces, units) @ root.T
        found = smoothed_trials(
            noise + angles.sin()[:, None] * slope, angles, torch.zeros(1).double(), correlations=correlations
        )
        found = type(found)(*(column[:, 0] for column in found[:6]))
    else:
        other = 0.8 * one + 0.6 * two if kernel == "paired" else two[:, :60]
        found = kernels.direct((one, other + 2 * slope), 2.0, design=kernel, correlations=correlations)
    assert_unbiased(found.information, truth, slack=0.01)
    assert 0.9 <= coverage(found, truth) <= 0.99
    claimed = float(found.standard_error.square().mean().sqrt())
    assert claimed == pytest.approx(float(found.information.std()), rel=0.3)


def test_a_decoder_blind_to_correlations_finds_none_where_there_is_none_and_all_in_one_unit():
    generator = torch.Generator().manual_seed(32)
    rows, slopes = normal(generator, 1000, 60, 4), normal(generator, 1000, 60, 4)
    blind = kernels.tangent(rows, slopes, correlations="ignored")
    assert_unbiased(blind.information, 0.0, slack=0.005)
    assert blind.information.min() < 0 and blind.standard_error.max() < 1 and coverage(blind, 0.0) > 0.95
    one, plain = (kernels.tangent(rows[..., :1], slopes[..., :1], correlations=c) for c in ("ignored", "used"))
    assert (one.information - plain.information).abs().max() < 0.002


def test_without_correlations_more_units_than_faces_will_do():
    x, d, _ = linear_code(31, 50, 30, 1, 60)
    assert_unbiased(kernels.tangent(x, d, correlations="shuffled").information, MEAN_SLOPE**2, slack=0.02)


def test_two_equal_sides_have_no_information():
    one = normal(torch.Generator().manual_seed(0), 50, 3)
    assert kernels.direct(torch.stack([one, one]), 0.1).information == 0


def bent_code(seed, draws, people, each, units, correlation=0.0, bend=0.3):
    generator = torch.Generator().manual_seed(seed)
    x, e = (latents(generator, draws, people, each, units, correlation) for _ in range(2))
    map_ = bend * normal(generator, units, units)
    slope = torch.zeros(units, dtype=torch.float64)
    slope[0] = MEAN_SLOPE
    truth = MEAN_SLOPE**2 + float(((map_ + map_.T) ** 2).sum()) / 2
    return x, slope + x @ map_.T + e, truth


@pytest.mark.slow
@pytest.mark.parametrize(("people", "each", "correlation", "slack"), [(200, 1, 0, 0), (40, 10, 0.5, 0.02)])
@pytest.mark.parametrize("bend", [0.3, 0.0])
def test_gaussian_estimate_is_unbiased_for_a_covariance_that_changes(people, each, correlation, slack, bend):
    x, d, truth = bent_code(10, DRAWS if each == 1 else 150, people, each, 10, correlation, bend)
    found = kernels.gaussian(x, d, np.arange(people * each) // each if each > 1 else None)
    assert_unbiased(found.information, truth, slack)
    assert 0.92 <= coverage(found, truth) <= 0.985


def test_the_uncorrected_trace_term_is_far_off():
    x, d, truth = bent_code(11, DRAWS, 100, 1, 10, bend=0.0)
    found = kernels.gaussian(x, d)
    excess = found.plugin.mean() - kernels.tangent(x, d).plugin.mean()
    assert excess == pytest.approx(10 * 11 / 100 * 1.12, rel=0.1)  # tr(Σ⁻¹D)(N + 1)/T, to first order in N/T
    assert_unbiased(found.information, truth)


# ---- what cannot matter ----------------------------------------------------------------------------------

EVERY = {
    "tangent": lambda x, d, g: kernels.tangent(x, d, g),
    "gaussian": lambda x, d, g: kernels.gaussian(x, d, g),
    "direct": lambda x, d, g: kernels.direct(torch.stack([x - 0.05 * d, x + 0.05 * d], -3), 0.1, g),
    "robust": lambda x, d, g: classifiers.robust(torch.stack([x - 0.2 * d, x + 0.2 * d], -3), 0.4, g),
    "discrimination": lambda x, d, g: classifiers.discrimination(torch.stack([x - 0.2 * d, x + 0.2 * d], -3), 0.4, g),
    "nonlinear": lambda x, d, g: classifiers.nonlinear(torch.stack([x - 0.2 * d, x + 0.2 * d], -3), 0.4, g),
    "divergence": lambda x, d, g: classifiers.divergence(torch.stack([x - 0.2 * d, x + 0.2 * d], -3), 0.4, g),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@given(
    mixture=arrays(float, (3, 3), elements=st.floats(-1, 1)),
    shift=arrays(float, 3, elements=st.floats(-1e3, 1e3)),
    grouped=st.booleans(),
)
@settings(max_examples=6)
def test_an_invertible_linear_map_of_the_units_changes_nothing(name, mixture, shift, grouped):
    x, d, groups = linear_code(12, 1, 15, 4, 3, 0.3)
    map_ = torch.as_tensor(mixture + 4 * np.eye(3))
    groups = groups if grouped else None
    before, after = EVERY[name](x, d, groups), EVERY[name](x @ map_.T + torch.as_tensor(shift), d @ map_.T, groups)
    torch.testing.assert_close(after.information, before.information, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(after.standard_error, before.standard_error, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tangent", "gaussian", "direct"])
@given(seed=st.integers(0, 1000), grouped=st.booleans())
@settings(max_examples=12)
def test_the_order_of_faces_changes_nothing(name, seed, grouped):
    x, d, groups = linear_code(13, 2, 20, 3, 4, 0.5)
    order = np.random.default_rng(seed).permutation(60)
    before = EVERY[name](x, d, groups if grouped else None)
    after = EVERY[name](x[:, order], d[:, order], groups[order] if grouped else None)
    for one, other in zip(before[:5], after[:5], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["tangent", "gaussian", "direct"])
def test_a_batch_is_its_members_one_by_one(name):
    x, d, groups = linear_code(14, 6, 12, 5, 3, 0.5)
    batch = EVERY[name](x.unflatten(0, (2, 3)), d.unflatten(0, (2, 3)), groups)
    for i in range(6):
        alone = EVERY[name](x[i], d[i], groups)
        for whole, one in zip(batch[:6], alone[:6], strict=True):
            torch.testing.assert_close(whole.flatten(0, 1)[i], one)


def test_independent_units_add_their_information():
    x, d, _ = linear_code(15, 1, 500, 1, 6)
    x = torch.linalg.qr(x - x.mean(1, keepdim=True))[0]  # exactly uncorrelated
    plugin = kernels.plugin_information
    parts = plugin(x[..., :2], d[..., :2]) + plugin(x[..., 2:], d[..., 2:])
    torch.testing.assert_close(plugin(x, d), parts)


def test_the_plugin_is_what_every_estimate_reports_and_is_positive():
    x, d, groups = linear_code(16, 20, 40, 2, 5)
    d = d - d.mean(1, keepdim=True) + 1e-3
    found = kernels.tangent(x, d, groups)
    torch.testing.assert_close(found.plugin, kernels.plugin_information(x, d))
    assert (found.plugin > 0).all()
    assert (found.information < 0).any()


def test_people_of_unequal_numbers_of_faces_are_welcome():
    x, d, _ = linear_code(17, DRAWS, 30, 10, 5, 0.5)
    some = np.concatenate([np.arange(10 * p, 10 * p + 1 + p % 10) for p in range(30)])
    found = kernels.tangent(x[:, some], d[:, some], (np.arange(300) // 10)[some])
    assert_unbiased(found.information, MEAN_SLOPE**2, slack=0.03)


# ---- the circle ------------------------------------------------------------------------------------------


def test_decoded_is_one_over_the_variance_of_an_unbiased_estimate():
    generator = torch.Generator().manual_seed(18)
    angles = torch.tensor([-math.pi, 0.3], dtype=torch.float64)  # the first one's estimates wrap
    estimates = (
        torch.remainder(angles[:, None] + 0.2 * normal(generator, DRAWS, 2, 60) + math.pi, 2 * math.pi) - math.pi
    )
    found = decoded(estimates, torch.ones_like(estimates), angles)
    for i in range(2):
        assert_unbiased(found.information[:, i], 25)
    assert (found.extra["large_error_share"] == 0).all()
    torch.testing.assert_close(found.extra["fisher_information_without_large_errors"], found.information)


def test_decoded_tells_large_errors_apart():
    generator = torch.Generator().manual_seed(19)
    estimates = 0.2 * normal(generator, 1, 1, 400)
    estimates[..., ::20] += math.pi - 0.3
    found = decoded(estimates, torch.ones_like(estimates), torch.zeros(1, dtype=torch.float64))
    assert found.extra["large_error_share"] == pytest.approx(0.05)
    assert float(found.information) < 5
    assert float(found.extra["fisher_information_without_large_errors"]) == pytest.approx(25, rel=0.3)


def test_decoded_knows_stimuli_of_half_a_turn():
    generator = torch.Generator().manual_seed(20)
    angles = torch.tensor([-math.pi / 2], dtype=torch.float64)
    estimates = torch.remainder(angles + 0.1 * normal(generator, 300) + math.pi / 2, math.pi) - math.pi / 2
    found = decoded(estimates[None], torch.ones(1, 300), angles, period=math.pi)
    assert float(found.information) == pytest.approx(100, rel=0.3)


def test_smoothed_finds_the_tangents_of_a_smooth_code():
    generator = torch.Generator().manual_seed(21)
    angles = torch.linspace(-math.pi, math.pi, 25, dtype=torch.float64)[:-1]
    phase = normal(generator, 1, 100, 3)
    preferred = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64)
    at = angles[:, None, None] - preferred - 0.3 * phase
    exact = kernels.tangent(at.cos().exp() + phase.roll(1, -2), -at.sin() * at.cos().exp())
    found = smoothed(at.cos().exp() + phase.roll(1, -2), angles)
    torch.testing.assert_close(found.information, exact.information, rtol=1e-3, atol=1e-3)


def test_smoothed_is_unbiased_for_trials_with_noise_of_their_own_at_every_angle():
    generator = torch.Generator().manual_seed(22)
    angles = torch.linspace(-math.pi, math.pi, 25, dtype=torch.float64)[:-1]
    mean = torch.stack([angles.cos(), angles.sin(), (2 * angles).cos()], -1)
    found = smoothed(mean[:, None] + 0.5 * normal(generator, 60, 24, 100, 3), angles)
    truth = 4 * (1 + 4 * (2 * angles).sin() ** 2)
    assert_unbiased((found.information / truth).mean(-1), 1.0)


# ---- classifiers -----------------------------------------------------------------------------------------


def contaminated(share):
    generator = torch.Generator().manual_seed(23)
    x = normal(generator, 12, 400, 2)
    wild = torch.arange(400) < share * 400
    x[:, wild] = 30 * x[:, wild]
    d = torch.zeros_like(x)
    d[..., 0] = 10
    return torch.stack([x - 0.05 * d, x + 0.05 * d], -3)


@pytest.mark.slow
def test_robust_estimate_is_that_of_the_core_where_direct_is_ruined():
    pair = contaminated(0.05)
    assert kernels.direct(pair, 0.1).information.mean() < 30
    found = classifiers.robust(pair, 0.1)
    assert found.information.mean() == pytest.approx(100, rel=0.1)


@pytest.mark.slow
def test_robust_estimate_is_consistent_for_normal_faces():
    found = classifiers.robust(contaminated(0), 0.1)
    error = float(found.information.std()) / math.sqrt(12)
    assert float(found.information.mean()) == pytest.approx(100, abs=4 * error + 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["discrimination", "nonlinear", "divergence"])
@pytest.mark.parametrize("people", [None, 30])
def test_classifiers_stay_below_the_information_and_near_it(name, people):
    x, d, groups = linear_code(24, 10, people or 300, 300 // (people or 300), 4, 0.3 if people else 0)
    found = EVERY[name](x, d * 0.75 + 0 * x, groups if people else None)
    truth = (0.75 * MEAN_SLOPE) ** 2
    error = float(found.information.std()) / math.sqrt(10)
    assert 0.55 * truth < float(found.information.mean()) < truth + 3 * error


@pytest.mark.slow
def test_a_classifier_finds_nothing_where_there_is_nothing():
    generator = torch.Generator().manual_seed(25)
    pair = normal(generator, 12, 2, 200, 3)
    for name in ("discrimination", "nonlinear", "divergence"):
        found = getattr(classifiers, name)(pair, 0.5)
        assert float(found.information.mean()) < 3 * float(found.standard_error.mean()) / math.sqrt(12), name


@pytest.mark.slow
def test_a_quadratic_classifier_sees_a_covariance_that_changes():
    generator = torch.Generator().manual_seed(26)
    x = normal(generator, 6, 400, 4)
    pair = torch.stack([x * 0.8, x * 1.25], -3)
    assert float(classifiers.discrimination(pair, 0.4).information.mean()) < 1
    assert float(classifiers.nonlinear(pair, 0.4).information.mean()) > 3
    assert float(classifiers.divergence(pair, 0.4).information.mean()) > 1


# ---- bad input -------------------------------------------------------------------------------------------


def code(faces=40, units=3):
    x, d, _ = linear_code(27, 1, faces, 1, units)
    return x[0], d[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_activity_that_is_not_finite_is_named(value, which):
    arrays_ = code()
    arrays_[which][3, 1] = value
    with pytest.raises(ValueError, match="activity must be finite"):
        kernels.tangent(*arrays_)


def test_too_few_faces_are_told_how_many_are_needed():
    with pytest.raises(ValueError, match=r"3 units need at least 8 faces .* 7 came"):
        kernels.tangent(*code(7))
    kernels.tangent(*code(least_faces(3)))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_units_are_counted_and_named(value):
    x, d = code()
    x[:, 1] = value
    with pytest.raises(ValueError, match=r"1 of 3 units are constant .* unit 1\)"):
        kernels.tangent(x, d)


def test_units_that_repeat_others_are_told_apart_from_few_faces():
    x, d = code()
    with pytest.raises(ValueError, match="singular: either units are linear combinations"):
        kernels.tangent(torch.cat([x, x[:, :1] + 1], -1), torch.cat([d, d[:, :1]], -1))


def test_people_that_are_too_few_for_the_units_are_told_their_worth():
    x, d, groups = linear_code(28, 1, 3, 10, 6, 0.95)
    with pytest.raises(ValueError, match=r"6 units need more than 9 effective faces; these are worth \d"):
        kernels.tangent(x, d, groups)


@pytest.mark.parametrize(
    ("groups", "message"),
    [(np.zeros(40), "faces of one person"), (np.arange(5), r"one label for each of the 40 faces, not shape \(5,\)")],
)
def test_people_must_be_people(groups, message):
    with pytest.raises(ValueError, match=message):
        kernels.tangent(*code(), groups)


def test_shapes_must_agree():
    x, d = code()
    with pytest.raises(ValueError, match=r"tangents must have the shape of the responses, \(40, 3\), not \(39, 3\)"):
        kernels.tangent(x, d[1:])
    with pytest.raises(ValueError, match=r"pair must have the dimensions \(..., side=2, face, unit\)"):
        kernels.direct(x, 0.1)
    with pytest.raises(
        ValueError, match=r"5 or more angles all the way round the circle, not 8 with a gap of 4\.2 rad"
    ):
        smoothed(x.expand(8, 40, 3), torch.linspace(0, 2.1, 8))
