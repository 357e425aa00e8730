"""Each numbered equation of the book's page on derivations, simulated; a test says in its first line which."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fisherbook.fisher import covariance, kernels
from fisherbook.fisher.circular import decoded

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "derivations.md").read_text(encoding="utf-8")


def standard(rng, draws, faces, units):
    """Standard normal faces (draw, face, unit)."""
    return rng.standard_normal((draws, faces, units))


def clustered(rng, draws, people, each, units, rho):
    """Standard normal faces of `people` with `each` faces, whose intraclass correlation is rho."""
    own, shared = (standard(rng, draws, people * m, units).reshape(draws, people, m, units) for m in (each, 1))
    return (math.sqrt(rho) * shared + math.sqrt(1 - rho) * own).reshape(draws, -1, units)


def centred(x):
    return x - x.mean(1, keepdims=True)


def covariances(x, y=None):
    """Sample covariances of faces (draw, face, unit), one per draw."""
    x, y = centred(x), centred(x if y is None else y)
    return x.swapaxes(1, 2) @ y / (x.shape[1] - 1)


def trace(matrix):
    return np.trace(matrix, axis1=-2, axis2=-1)


def form(inverse, vector):
    return np.einsum("...a,...ab,...b", vector, inverse, vector)


def assert_mean(values, expected, slack=0.0):
    """Hold the mean of simulated values to what is expected, within 4 of its errors and a relative slack."""
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - expected) < 4 * error + slack * abs(expected), (np.mean(values), expected, error)


def assert_no_mean(values, wrong):
    """Hold that the mean of simulated values is not `wrong`: the simulation can tell."""
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - wrong) > 6 * error


# ---- what is estimated ---------------------------------------------------------------------------------------


def test_no_linear_decoder_beats_linear_fisher_information(rng):
    """Equation (1)."""
    root, slope = standard(rng, 1, 5, 5)[0], rng.standard_normal(5)
    sigma = root @ root.T
    information = slope @ np.linalg.solve(sigma, slope)
    decoders = np.vstack([rng.standard_normal((1000, 5)), np.linalg.solve(sigma, slope)])
    reached = (decoders @ slope) ** 2 / form(sigma, decoders)
    assert (reached[:-1] < information).all()
    assert reached[-1] == pytest.approx(information)


# ---- the inverse of a sample covariance ------------------------------------------------------------------------


def test_the_mean_inverse_covariance_of_normal_faces_is_wisharts(rng):
    """Equation (2)."""
    n, units = 29, 6
    inverses = np.linalg.inv(covariances(standard(rng, 4000, n + 1, units)))
    assert_mean(inverses[:, 0, 0], n / (n - units - 1))
    assert_mean(inverses[:, 0, 1], 0)
    assert_no_mean(inverses[:, 0, 0], n / (n - units))


def test_the_mean_of_inverse_times_matrix_times_covariance_mixes_in_transpose_and_trace(rng):
    """Equation (3)."""
    n, units = 14, 3
    a = np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 1.0], [0.0, 3.0, -2.0]])
    s = covariances(standard(rng, 20000, n + 1, units))
    found = np.linalg.inv(s) @ a @ s
    expected = (n * a - a.T - np.trace(a) * np.eye(units)) / (n - units - 1)
    for index in np.ndindex(a.shape):
        assert_mean(found[(slice(None), *index)], expected[index])
    assert_no_mean(found[:, 0, 1], a[0, 1])


def leverages(x):
    """Leverages (draw, face) of centred faces, and the inverses of their covariances."""
    x = centred(x)
    inverses = np.linalg.inv(x.swapaxes(1, 2) @ x / (x.shape[1] - 1))
    return np.einsum("dfa,dab,dfb->df", x, inverses, x) / (x.shape[1] - 1), inverses


def test_leaving_one_component_out_is_known_from_its_leverage(rng):
    """Equations (4) and (16), exact for any numbers."""
    z, slope = standard(rng, 1, 20, 4)[0], rng.standard_normal(4)
    whole = z.T @ z / 20
    less = whole - np.outer(z[0], z[0]) / 20
    h = z[0] @ np.linalg.solve(20 * whole, z[0])
    w = np.linalg.solve(whole, slope)
    assert z[0] @ np.linalg.solve(less, z[0]) == pytest.approx(20 * h / (1 - h))
    assert z[0] @ np.linalg.solve(less, slope) == pytest.approx(z[0] @ w / (1 - h))
    change = slope @ np.linalg.solve(less, slope) - slope @ w
    assert change == pytest.approx((w @ z[0]) ** 2 / (20 * (1 - h)))


def test_leverages_tell_the_mean_inverse_for_heavy_tails_too(rng):
    """Equation (4): components are left out of their own inverse, whatever their distribution."""
    faces, units = 60, 20
    z = rng.standard_t(5, (2000, faces, units)) * np.sqrt(0.6)
    inverses = np.linalg.inv(z.swapaxes(1, 2) @ z / faces)
    h = np.einsum("da,dab,db->d", z[:, 0], inverses, z[:, 0]) / faces
    less = np.linalg.inv((z[:, 1:].swapaxes(1, 2) @ z[:, 1:]) / faces)
    assert_mean(faces * h / (1 - h) - trace(less), 0)
    assert_no_mean(trace(less), units * faces / (faces - 1 - units - 1))  # Wishart's, with one component less


# ---- faces of one person ---------------------------------------------------------------------------------------

PEOPLE = {"people": 28, "each": 10, "units": 20, "rho": 0.5}
SCALES = np.array([1 + 9 * 0.5, 1 - 0.5])
FREEDOM = np.array([27, 252])
SHARES = np.array([0.1, 0.9])
N = 279


def equivalent(scales, freedom, units):
    """kappa of the deterministic equivalent A = Sigma / kappa, and what each kind of component keeps."""
    n, kappa = freedom.sum(), 1.0
    for _ in range(200):
        kept = 1 / (1 + units * scales * kappa / n)
        kappa = n / (freedom * scales * kept).sum()
    return kappa, kept


def parts_of(x, each):
    """Means of people times the root of their number of faces, and deviations from these means."""
    people = x.reshape(len(x), -1, each, x.shape[-1])
    means = people.mean(2, keepdims=True)
    return centred(means[:, :, 0]) * math.sqrt(each), (people - means).reshape(x.shape)


def test_means_of_people_and_deviations_of_faces_are_uncorrelated_and_of_known_covariance(rng):
    """Equation (5)."""
    x = clustered(rng, 400, 28, 10, 2, 0.5)
    between, within = parts_of(x, 10)
    assert_mean((between[..., 0] ** 2).sum(1) / FREEDOM[0], SCALES[0])
    assert_mean((within[..., 0] ** 2).sum(1) / FREEDOM[1], SCALES[1])
    assert_mean((between[:, 0, 0] * within[:, 0, 0]), 0)
    whole = (between**2).sum((1, 2)) + (within**2).sum((1, 2))
    np.testing.assert_allclose(whole, (centred(x) ** 2).sum((1, 2)))


def test_the_covariance_of_clustered_faces_is_too_small_on_average(rng):
    """Equation (6)."""
    people, each, rho = 4, 10, 0.5
    s = covariances(clustered(rng, 4000, people, each, 1, rho))[:, 0, 0]
    assert_mean(s, 1 - (each - 1) * rho / (people * each - 1))
    assert_no_mean(s, 1)


def test_effective_faces_give_the_variance_of_a_clustered_covariance(rng):
    """Equation (7)."""
    s = covariances(clustered(rng, 6000, 28, 10, 1, 0.5))[:, 0, 0]
    nu = N / (1 + 9 * 0.5**2)
    assert 2 * s.mean() ** 2 / s.var() == pytest.approx(nu, rel=0.1)
    x, groups = torch.as_tensor(clustered(rng, 20, 28, 10, 3, 0.5)), np.arange(280) // 10
    assert float(kernels.tangent(x, x, groups).effective_faces.mean()) == pytest.approx(nu, rel=0.05)


def test_the_deterministic_equivalent_gives_the_mean_inverse_where_a_matched_wishart_matrix_fails(rng):
    """Equations (8) and (9), for an intraclass correlation that is the same for all units."""
    x = clustered(rng, 300, **PEOPLE)
    kappa, kept = equivalent(SCALES, FREEDOM, 20)
    inverses = np.linalg.inv(covariances(x))
    found = trace(inverses) / 20
    assert_mean(found, kappa, slack=0.01)
    nu, a = N / (1 + 9 * 0.5**2), 1 - 9 * 0.5 / N
    assert_no_mean(found, nu / (a * (nu - 20 - 1)))
    assert found.mean() < 0.97 * nu / (a * (nu - 20 - 1))
    for part, freedom, q, scale in zip(parts_of(x, 10), FREEDOM, kept, SCALES, strict=True):
        plain = np.einsum("dfa,dab,dfb->d", part, inverses, part) / freedom
        assert_mean(plain, q * scale * 20 * kappa, slack=0.01)


def inverse_of(x, d, groups):
    """What the package makes of the inverse covariance of faces, along the mean of d."""
    x, d = torch.as_tensor(x), torch.as_tensor(d)
    who = covariance.people(groups, x)
    rows, mean = covariance.centred(x)
    factor = covariance.cholesky(rows, mean, x.shape[-2] - 1)
    u = covariance.whiten(factor, d.expand(len(x), 1, -1)).squeeze(-2)
    return covariance.inverse_bias(covariance.components(covariance.whiten(factor, rows), who), u, who)


def test_the_factor_is_measured_along_the_mean_derivative_where_units_differ(rng):
    """Equation (9), for units of which some tell people apart and others do not."""
    rho = np.where(np.arange(8) < 4, 0.8, 0.1)
    shared, own = standard(rng, 300, 40, 8), standard(rng, 300, 400, 8)
    x = np.sqrt(rho) * shared.repeat(10, axis=1) + np.sqrt(1 - rho) * own
    groups = np.arange(400) // 10
    for unit in (0, 7):
        d = np.eye(8)[unit]
        k = inverse_of(x, d, groups).k.numpy()
        truth = np.linalg.inv(covariances(x))[:, unit, unit]  # times k it is 1 on average
        assert_mean(k * truth, 1, slack=0.01)
    assert k.mean() > 1.03 / np.linalg.inv(covariances(x))[:, 0, 0].mean()  # one k would not do for both


def test_one_more_component_lowers_the_mean_inverse_as_its_kind_says(rng):
    """Equation (10), for few components of a large and many of a small covariance."""
    units, freedom, scales = 10, np.array([15, 60]), np.array([4.0, 0.5])
    kinds = [math.sqrt(s) * standard(rng, 3000, f, units) for f, s in zip(freedom, scales, strict=True)]
    sums = [z.swapaxes(1, 2) @ z for z in kinds]
    whole = trace(np.linalg.inv(sums[0] + sums[1]))
    kappa, kept = equivalent(scales, freedom, units)
    y = kept * scales * kappa
    assert (freedom * y).sum() == pytest.approx(freedom.sum())
    for c in (0, 1):
        last = kinds[c][:, -1:]
        less = trace(np.linalg.inv(sums[0] + sums[1] - last.swapaxes(1, 2) @ last))
        fall = 1 - whole.mean() / less.mean()
        assert fall == pytest.approx(y[c] / (freedom * kept * y).sum(), rel=0.1)


# ---- the estimate from derivatives -----------------------------------------------------------------------------


def by_person(d, each):
    """V, the covariance of the mean derivative, from sums by person."""
    sums = centred(d).reshape(len(d), -1, each, d.shape[-1]).sum(2)
    people = sums.shape[1]
    return people / (people - 1) * sums.swapaxes(1, 2) @ sums / (people * each) ** 2


def test_sums_by_person_give_the_covariance_of_the_mean(rng):
    """Equation (11)."""
    people, each, rho = 6, 5, 0.6
    d = clustered(rng, 5000, people, each, 1, rho)
    expected = (1 + (each - 1) * rho) / (people * each)
    assert_mean(by_person(d, each)[:, 0, 0], expected)
    assert_mean(d.mean(1)[:, 0] ** 2, expected)
    assert_no_mean(d.var(1, ddof=1)[:, 0] / (people * each), expected)


def test_the_estimate_is_unbiased_and_needs_both_corrections(rng):
    """Equation (12)."""
    slope = np.array([2.0, *[0.0] * 19])
    x, d = (clustered(rng, 150, **PEOPLE) for _ in range(2))
    groups = np.arange(280) // 10
    found = kernels.tangent(torch.as_tensor(x), torch.as_tensor(d + slope), groups)
    assert_mean(found.information.numpy(), 4)
    kappa, _ = equivalent(SCALES, FREEDOM, 20)
    assert_mean(found.plugin.numpy(), kappa * (4 + 20 * SCALES[0] / 280), slack=0.01)
    alone = kernels.tangent(torch.as_tensor(x), torch.as_tensor(d + slope))
    assert_no_mean(alone.information.numpy(), 4)


def test_a_derivative_that_follows_the_response_leaves_the_predicted_bias(rng):
    """Equation (13)."""
    n, units = 14, 3
    b = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 2.0]])
    x = standard(rng, 8000, n + 1, units)
    d = x @ b.T
    inverses = np.linalg.inv(covariances(x))
    noise = trace(inverses @ covariances(d)) / (n + 1)
    estimates = (n - units - 1) / n * (form(inverses, d.mean(1)) - noise)
    predicted = (np.trace(b @ b) + np.trace(b) ** 2) / (n * (n + 1))
    assert_mean(estimates, predicted)
    assert_no_mean(estimates, 0)


# ---- its standard error ----------------------------------------------------------------------------------------


def test_the_influence_of_a_face_is_the_derivative_by_its_weight(rng):
    """Equation (14)."""
    r, d = standard(rng, 2, 40, 3)

    def plugin(weights):
        share = weights / weights.sum()
        x, slope = r - share @ r, share @ d
        return slope @ np.linalg.solve(x.T * share @ x * 40 / 39, slope)

    step = 1e-5 * np.eye(40)
    slopes = np.array([(plugin(1 + one) - plugin(1 - one)) / 2e-5 * 40 for one in step])
    w = np.linalg.solve(np.cov(r.T), d.mean(0))
    psi = 2 * (d - d.mean(0)) @ w - ((r - r.mean(0)) @ w) ** 2 * 40 / 39 + d.mean(0) @ w
    np.testing.assert_allclose(slopes, psi, atol=1e-6)


def test_influence_by_person_gives_the_variance_of_the_estimate(rng):
    """Equation (15), for many faces and tails that are heavy."""
    people, each = 100, 4
    scale = np.sqrt(6 / rng.chisquare(8, (500, people, 1, 1)))
    x, d = (clustered(rng, 500, people, each, 2, 0.5) for _ in range(2))
    x = (x.reshape(500, people, each, 2) * scale).reshape(x.shape)
    d = d + np.array([4.0, 0.0])
    w = np.linalg.solve(covariances(x), d.mean(1)[..., None])[..., 0]
    plugin = (w * d.mean(1)).sum(-1)
    psi = np.einsum("dfa,da->df", 2 * centred(d), w) - np.einsum("dfa,da->df", centred(x), w) ** 2 + plugin[:, None]
    claimed = people / (people - 1) * ((psi.reshape(500, people, each).sum(2) / (people * each)) ** 2).sum(1)
    assert claimed.mean() == pytest.approx(plugin.var(), rel=0.2)
    alone = ((psi / (people * each)) ** 2).sum(1)  # as if faces were independent
    assert alone.mean() < 0.75 * plugin.var()


def test_what_leaving_one_out_changes_has_the_right_variance_times_a_root(rng):
    """Equation (17)."""
    n, units = 99, 30
    x = standard(rng, 400, n + 1, units)
    h, inverses = leverages(x)
    change = np.einsum("da,dfa->df", inverses[:, 0], centred(x)) ** 2 / (n * (1 - h))
    change -= change.mean(1, keepdims=True)
    truth = 2 * (n / (n - units - 1)) ** 2 / (n - units - 3)
    rooted = (change**2).sum(1) * (1 - h.mean(1))
    assert rooted.mean() == pytest.approx(truth, rel=0.1)
    assert (change**2).sum(1).mean() > 1.25 * truth
    assert (change**2 * (1 - h) ** 2).sum(1).mean() < 0.75 * truth  # with the plain squares of (14)


def test_the_form_of_a_normal_inverse_has_a_chi_squared_variance(rng):
    """Equation (18)."""
    n, units = 39, 10
    forms = (n - units - 1) / n * np.linalg.inv(covariances(standard(rng, 4000, n + 1, units)))[:, 0, 0]
    assert_mean(forms, 1)
    assert forms.var() == pytest.approx(2 / (n - units - 3), rel=0.1)
    assert forms.var() > 1.2 * 2 / n


def test_an_estimated_slope_counts_the_second_order_variance_twice(rng):
    """Equation (19), in coordinates in which the covariance of responses is the identity."""
    v, slope = np.diag([0.5, 1.0, 2.0]), np.array([0.3, 0.2, -0.4])
    drawn = slope + standard(rng, 1, 40_000, 3)[0] * np.sqrt(np.diag(v))
    truth = 4 * slope @ v @ slope + 2 * np.trace(v @ v)
    assert (drawn**2).sum(1).var() == pytest.approx(truth, rel=0.05)
    estimated = 4 * form(v, drawn) - 2 * np.trace(v @ v)
    assert_mean(estimated, truth)
    assert_no_mean(estimated + 4 * np.trace(v @ v), truth)  # added, as it would be for a known slope


# ---- information in the covariance -------------------------------------------------------------------------------


def bent(rng, units):
    """A covariance, a map B of responses to derivatives, and the covariance's derivative."""
    root, b = standard(rng, 2, units, units)
    sigma = root @ root.T + np.eye(units)
    return sigma, b, b @ sigma + sigma @ b.T


def test_the_information_of_a_covariance_is_that_of_the_divergence_of_neighbours(rng):
    """Equation (20)."""
    sigma, b, change = bent(rng, 4)
    inverse = np.linalg.inv(sigma)
    j = np.trace(b @ b) + np.trace(inverse @ b @ sigma @ b.T)
    assert np.trace(inverse @ change @ inverse @ change) / 2 == pytest.approx(j)
    step = 1e-3
    near = sigma + step * change
    kl = (np.trace(inverse @ near) - 4 - np.linalg.slogdet(near)[1] + np.linalg.slogdet(sigma)[1]) / 2
    assert 2 * kl / step**2 == pytest.approx(j, rel=0.05)


def regression_noise(rng, draws, n, residual):
    """Noise of a regression on normal faces, in coordinates in which these have the covariance 1 in the sample."""
    units = len(residual)
    x = centred(standard(rng, draws, n + 1, units))
    x = x @ np.linalg.inv(np.linalg.cholesky(x.swapaxes(1, 2) @ x / n)).swapaxes(1, 2)
    e = standard(rng, draws, n + 1, units) @ np.linalg.cholesky(residual).T
    return centred(e).swapaxes(1, 2) @ x / n


RESIDUAL = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.5]])


def test_the_noise_of_a_regression_adds_to_its_three_traces(rng):
    """Equation (21)."""
    n, t = 30, np.trace(RESIDUAL)
    m = regression_noise(rng, 8000, n, RESIDUAL)
    assert_mean(trace(m @ m), t / n)
    assert_mean(trace(m) ** 2, t / n)
    assert_mean((m**2).sum((1, 2)), 3 * t / n)


def test_the_form_measured_with_the_sample_covariance_is_solved_for_the_true_one(rng):
    """Equation (22)."""
    n, units = 19, 4
    b = standard(rng, 1, units, units)[0]
    s = covariances(standard(rng, 4000, n + 1, units))
    measured = trace(np.linalg.inv(s) @ b @ s @ b.T)
    solved = ((n - units - 1) * measured + np.trace(b @ b) + np.trace(b) ** 2) / n
    assert_mean(solved, (b**2).sum())
    assert_no_mean(measured, (b**2).sum())


def test_without_a_change_of_the_covariance_the_noise_of_the_regression_is_the_variance(rng):
    """Equation (23)."""
    n = 30
    m = regression_noise(rng, 20_000, n, RESIDUAL)
    j = ((m + m.swapaxes(1, 2)) ** 2).sum((1, 2)) / 2
    expected = 2 * (5 * np.trace(RESIDUAL @ RESIDUAL) + np.trace(RESIDUAL) ** 2) / n**2
    assert j.var() == pytest.approx(expected, rel=0.1)


# ---- two stimuli -------------------------------------------------------------------------------------------------


def sides(rng, draws, faces, units, rho):
    """Two normal responses of each face, correlated by rho, with equal means."""
    one, two = (standard(rng, draws, faces, units) for _ in range(2))
    return one, rho * one + math.sqrt(1 - rho**2) * two


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_half_sums_and_half_differences_make_the_covariance_of_two_sides(rng, rho):
    """Equation (24)."""
    minus, plus = sides(rng, 4000, 21, 1, rho)
    s = ((covariances(minus) + covariances(plus)) / 2)[:, 0, 0]
    half_sum, half_difference = (covariances((plus + sign * minus) / math.sqrt(2))[:, 0, 0] for sign in (1, -1))
    np.testing.assert_allclose((half_sum + half_difference) / 2, s)
    assert_mean(half_sum, 1 + rho)
    assert_mean(half_difference, 1 - rho)
    assert 2 * s.mean() ** 2 / s.var() == pytest.approx(2 * 20 / (1 + rho**2), rel=0.12)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_estimate_from_two_stimuli_is_unbiased_at_every_pairing(rng, rho):
    """Equation (25): to first order in N / n, and without that limit in the package."""
    faces, units = 200, 10
    n, slope = faces - 1, np.eye(units)[0]
    minus, plus = sides(rng, 400, faces, units, rho)
    plus = plus + slope
    inverses = np.linalg.inv((covariances(minus) + covariances(plus)) / 2)
    plugin = form(inverses, plus.mean(1) - minus.mean(1))
    noise = trace(inverses @ covariances(plus - minus)) / faces
    nu = 2 * n / (1 + rho**2)
    k, c = (nu - units - 1) / nu, 1 - (units + 1) * rho * (1 + rho) / (2 * n)
    assert_mean(k * plugin - c * noise, 1, slack=2e-3)
    found = kernels.direct(torch.as_tensor(np.stack([minus, plus], 1)), 1.0)
    np.testing.assert_allclose(found.information, k * plugin - c * noise, rtol=0.03, atol=0.01)


def test_for_independent_sides_it_is_the_published_correction(rng):
    """Equation (26); on paired faces that one is far off."""
    faces, units = 40, 5

    def published(minus, plus):
        inverses = np.linalg.inv((covariances(minus) + covariances(plus)) / 2)
        k = (2 * faces - units - 3) / (2 * faces - 2)
        return k * form(inverses, plus.mean(1) - minus.mean(1)) - 2 * units / faces

    minus, plus = sides(rng, 2000, faces, units, 0.0)
    assert_mean(published(minus, plus + np.eye(units)[0]), 1)
    minus, plus = sides(rng, 2000, faces, units, 0.95)
    assert published(minus, plus + np.eye(units)[0]).mean() < 0.85


# ---- what behaviour shows ------------------------------------------------------------------------------------------


def test_a_biased_estimate_shows_its_information_and_never_more_than_there_is(rng):
    """Equation (27): of a normal observation with information 25, a shrunk estimate shows all, a noisy one less."""
    faces, angle = 30, torch.zeros(1, dtype=torch.float64)
    observed = 0.2 * standard(rng, 2000, 1, faces)
    own = 0.1 * standard(rng, 2000, 1, faces)
    ones = torch.ones(2000, 1, faces, dtype=torch.float64)
    shrunk = decoded(torch.as_tensor(0.5 * observed), 0.5 * ones, angle).information
    assert_mean(shrunk.numpy(), 25)
    assert_mean(decoded(torch.as_tensor(observed + own), ones, angle).information.numpy(), 20)
    assert_mean((faces - 3) / (faces - 1) / observed.var(-1, ddof=1), 25)


# ---- the page, the docstrings and the tests agree ------------------------------------------------------------------


def cited(text):
    """The numbers of the equations that a text names."""
    lists = re.findall(r"[Ee]quations?\s+(\(\d+\)(?:(?:,| and| to)\s+\(\d+\))*)", text)
    return {int(number) for one in lists for number in re.findall(r"\d+", one)}


NUMBERS = [int(number) for number in re.findall(r"^\$\$ \(eq-(\d+)\)$", PAGE, re.MULTILINE)]


def test_equations_are_labelled_as_the_book_numbers_them():
    assert list(range(1, len(NUMBERS) + 1)) == NUMBERS
    assert {int(number) for number in re.findall(r"\{eq\}`eq-(\d+)`", PAGE)} <= set(NUMBERS)


def test_every_equation_is_simulated_and_the_docstrings_cite_some_of_them():
    assert cited(Path(__file__).read_text(encoding="utf-8")) == set(NUMBERS)
    for module in (kernels, covariance):
        numbers = cited(Path(module.__file__).read_text(encoding="utf-8"))
        assert numbers
        assert numbers <= set(NUMBERS)
