from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import fisherbook as fb
from fisherbook.iteration import adaptation as ad
from fisherbook.iteration import schemes

ANGLES = 64
AT = fb.grid(ANGLES)
GAIN = (0.4, 0.3, 0.25, 0.2)
FIXED = schemes.normalised(0.3 * np.cos(AT + 1) + 0.2 * np.sin(2 * AT))[0]
KNOWN = {
    "plain": {}, "smoothed": {}, "damped": {}, "robbins_monro": {},
    "mean_reverting": {"reversion": 0.3}, "anderson": {}, "newton": {"gain": GAIN, "power": 0.5},
}  # fmt: skip


def linear(noise=0.0, gain=GAIN, **options):
    return ad.Linear(gain, (noise,) * len(gain), **options)


def uniform_starts(chains):
    return np.zeros((chains, ANGLES))


def power(log_density, k):
    return (np.abs(schemes.coefficients(log_density)[..., k]) ** 2).mean(-1)


def test_coefficients_are_those_of_the_fourier_series():
    curve = 0.7 * np.cos(3 * AT) - 0.2 * np.sin(AT) + 5
    c = schemes.coefficients(curve)
    assert np.allclose(c[[0, 1, 3]], [5, 0.2j, 0.7]) and np.allclose(np.delete(c, [0, 1, 3]), 0)
    assert np.allclose(schemes.band(curve, 2), -0.2 * np.sin(AT))


def test_all_schemes_are_there_and_tested():
    assert set(KNOWN) == set(fb.SCHEMES)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", KNOWN)
def test_a_scheme_finds_the_fixed_point(scheme):
    measure = linear(fixed_point=tuple(FIXED))
    found = fb.adapt(measure, scheme, schemes.multisines(3, ANGLES, scales=4), 80, **KNOWN[scheme])
    far = np.abs(found.log_density[0] - FIXED).max()
    assert np.abs(found.solution[-1] - FIXED).max() < 0.01 < 0.1 * far


def test_a_constraint_apart_from_the_density_has_its_fixed_point_at_its_logarithm_over_the_gain():
    log_s = 0.05 * np.cos(2 * AT + 1)
    starts = schemes.multisines(3, ANGLES, scales=4)
    found = fb.adapt(lambda densities: linear()(densities) - log_s, "newton", starts, 80, **KNOWN["newton"])
    assert np.abs(found.solution[-1] - schemes.normalised(log_s / GAIN[1])[0]).max() < 0.01


def test_pixels_of_gratings_hold_information_as_the_strength_of_their_noise_says():
    faces = fb.load_faces("gratings", 12, limit=3000, frequency=2.0, noise=0.3)
    stimulus = fb.Stimulus(faces, noise_wave=(0.3, 2, 1.0))
    at, everybody = fb.grid(6), stimulus.indices(None)
    shown = [stimulus.product(everybody, torch.from_numpy(at), t).flatten(2).numpy() for t in (False, True)]
    found = fb.estimate(shown[0], angles=at, tangents=shown[1], estimator="tangent").fisher_information
    still = fb.Stimulus(replace(faces, noise=None)).speed(at, [0]) / 0.3**2
    assert np.allclose(found, still * np.exp(-0.6 * np.cos(2 * at + 1)), rtol=0.1)


@pytest.mark.parametrize("scheme", KNOWN)
def test_schemes_are_pure(scheme):
    rng = np.random.default_rng(0)
    density, curve, error = rng.standard_normal((3, 2, ANGLES)) * 0.1
    step, copies = fb.SCHEMES[scheme], [density.copy(), curve.copy()]
    state = step(density, curve, error, {})[1]
    frozen = dict(state)
    one, two = (step(density, curve, error, state)[0] for _ in range(2))
    assert np.array_equal(one, two) and state == frozen
    assert np.array_equal(density, copies[0]) and np.array_equal(curve, copies[1])


@pytest.mark.parametrize(("scheme", "options", "factor"), [
    ("plain", {}, 1.0), ("damped", {"rate": 0.3}, 0.3), ("mean_reverting", {"kept": 0, "reversion": 0.3}, 1.0),
])  # fmt: skip
def test_noise_diffuses_with_the_predicted_variance(scheme, options, factor):
    chains, steps, noise = 400, 12, 1e-4
    found = fb.adapt(linear(noise), scheme, uniform_starts(chains), steps, **options)
    for k, gain in enumerate(GAIN, 1):
        kept = 1 - factor * gain - options.get("reversion", 0.0)
        predicted = factor**2 * noise / 4 * sum(kept ** (2 * n) for n in range(steps))
        assert abs(power(found.log_density[-1], k) / predicted - 1) < 5 / chains**0.5


def test_plain_is_a_random_walk_where_there_is_no_gain():
    found = fb.adapt(linear(1e-4, gain=(0.0,)), "plain", uniform_starts(400), 10)
    growth = power(found.log_density, 1)
    assert np.allclose(growth[1:] / np.arange(1, 11), 1e-4 / 4, rtol=0.2)


def test_robbins_monro_with_the_inverse_gain_converges_as_a_mean_does():
    noise, chains, steps, gain = 1e-3, 400, 20, GAIN[0]
    found = fb.adapt(linear(noise, GAIN[:1]), "robbins_monro", schemes.multisines(chains, ANGLES, scales=1), steps,
                     rate=1 / gain, power=1.0)  # fmt: skip
    predicted = noise / 4 / gain**2 / np.arange(1, steps + 1)
    assert np.allclose(power(found.log_density[1:], 1) / predicted, 1, atol=5 / chains**0.5)


def test_newton_averages_and_draws_unresolved_scales_back():
    noise, chains, steps = 1e-3, 400, 16
    found = fb.adapt(
        linear(noise, (0.3, -0.1)), "newton", schemes.multisines(chains, ANGLES, 0.3, 2), steps, gain=(0.3,)
    )
    best = noise / 4 / 0.3**2 / steps  # of any average of as many curves
    assert 0.8 * best < power(found.solution[-1], 1) < 1.6 * best
    assert power(found.solution[-1], 1) < power(found.log_density[-1], 1)
    assert power(found.log_density[-1], 2) < 0.01 * power(found.log_density[0], 2)


def test_densities_stay_positive_and_normalised_whatever_the_noise():
    found = fb.adapt(linear(20.0, replicates=1), "plain", uniform_starts(3), 5)
    density = np.exp(found.log_density)
    assert np.allclose(density.mean("angle") * 2 * np.pi, 1) and (density > 0).all() and np.isfinite(density).all()
    assert found.clipped[-1].min() > 0 and (found.clipped[0] == 0).all()
    assert set(found.degenerate.values[-1]) <= {"spike", "hole", "spike and hole"}
    assert (found.degenerate[0] == "none").all()


def test_spikes_and_holes_are_named():
    spike, hole = 4 * np.exp(-((AT / 0.1) ** 2)), -4 * np.exp(-((AT / 0.1) ** 2))
    named = schemes.degenerate(schemes.normalised(np.stack([spike, hole, 0 * AT]))[0])
    assert named.tolist() == ["spike", "hole", "none"]


def test_a_lost_replicate_is_left_out_and_a_lost_chain_named():
    def lossy(densities, lost=1):
        curve = linear(1e-4)(densities)
        curve[1, :lost] = np.nan
        return curve

    found = fb.adapt(lossy, "plain", uniform_starts(2), 2)
    assert np.isfinite(found.log_density).all()
    with pytest.raises(RuntimeError, match=r"iteration 0 of chains \[1\]"):
        fb.adapt(lambda densities: lossy(densities, 4), "plain", uniform_starts(2), 2)


def test_starts_are_taken_by_their_labels_and_may_be_zero_somewhere():
    starts = schemes.multisines(2, ANGLES)
    starts[0, 3] = -np.inf
    plain = fb.adapt(linear(), "plain", starts, 1)
    turned = xr.DataArray(starts, dims=("chain", "angle")).T
    assert plain.log_density.equals(fb.adapt(linear(), "plain", turned, 1).log_density)


@pytest.mark.parametrize(("options", "said"), [
    ({"rate": 0.1}, "an option of plain must be one of scales, not 'rate'"),
    ({"scales": 0}, "scales must be a whole number of at least 1, not 0"),
    ({"starts": np.full((2, ANGLES), np.nan)}, "values must be finite"),
    ({"target": np.ones(3)}, "target has 3, starts has 64"),
    ({"target": np.arange(64.0)}, "target must be a number above 0"),
    ({"scheme": "newton", "gain": xr.DataArray([0.3, 0.2], {"frequency": [2, 4]})}, r"without a gap, not of \[2, 4\]"),
])  # fmt: skip
def test_what_an_iteration_cannot_take_is_refused_before_anything_is_measured(options, said):
    with pytest.raises(ValueError, match=said):
        fb.adapt(lambda _: 1 / 0, **{"scheme": "plain", "starts": uniform_starts(2), "iterations": 1} | options)


@pytest.mark.parametrize("shape", [(2, ANGLES), (1, 3, ANGLES), (2, 3, ANGLES // 2)])
def test_a_measure_that_returns_other_curves_is_told_so(shape):
    with pytest.raises(ValueError, match=r"measure must return .* \(2 chains, replicates, 64 angles\), not \("):
        fb.adapt(lambda _: np.zeros(shape), "plain", uniform_starts(2), 1)


# The criteria of convergence


def judged(scheme, monkeypatch=None, **options):
    """The three criteria for a scheme, from an informed start and a noise such as real networks have."""
    starts, noise, steps = schemes.multisines(6, ANGLES), 3e-3, 12
    target = np.exp(0.1 * np.cos(2 * AT + 0.5))
    runs = [
        fb.adapt(linear(noise, fixed_point=tuple(FIXED)), scheme, starts, steps, target=t, **options)
        for t in (None, target)
    ]
    fresh = linear(noise, fixed_point=tuple(FIXED), replicates=8, seed=99)(runs[0].solution.values[-1:])
    begin = linear(noise, fixed_point=tuple(FIXED), replicates=8, seed=98)(runs[0].log_density.values[:1])
    check, met = ad.fresh_check(fresh, begin, 4), ad.meeting(runs[0], 4)
    shift = ad.planted(runs[1], runs[0], GAIN)
    low = shift.interval()[0]
    return (
        check.interval()[1] < 0.3 and check.value < 0.1,
        np.exp(met.interval()[1]) < 0.1,
        low > 0 and 0.8 < shift.value < 1.2,
    )


def test_the_criteria_pass_newton():
    assert judged("newton", gain=GAIN) == (True, True, True)


def test_a_scheme_that_returns_its_start_fails_all_criteria(monkeypatch):
    monkeypatch.setitem(schemes.SCHEMES, "stay", lambda density, curve, error, state: (density, state))
    assert judged("stay") == (False, False, False)


def test_a_scheme_that_shrinks_to_its_prior_meets_but_is_not_at_the_fixed_point(monkeypatch):
    monkeypatch.setitem(schemes.SCHEMES, "shrink", lambda density, curve, error, state: (0.5 * density, state))
    fresh, met, moved = judged("shrink")
    assert met and not fresh and not moved


def test_the_fresh_check_has_no_bias_from_noise():
    truth = 0.1 * np.cos(AT)
    rng = np.random.default_rng(0)
    start, final = (amount * truth + rng.standard_normal((200, 4, ANGLES)) * 0.2 for amount in (1, 0.3))
    check = ad.fresh_check(final, start, 2)
    assert abs(check.value - 0.09) < 4 * check.standard_error < 0.12
    named = xr.DataArray(final, dims=("chain", "replicate", "angle")).transpose("replicate", ...)
    assert ad.fresh_check(named, start, 2) == check


def test_meeting_compares_schemes():
    starts = schemes.multisines(6, ANGLES)
    slow, fast = (fb.adapt(linear(), "damped", starts, 5, rate=rate) for rate in (0.1, 1.0))
    wider = ad.meeting(fast, None, slow)
    assert wider.interval()[0] > np.log(2) and wider.of == "chains"
    turned = fast.transpose("angle", "chain", "iteration", "replicate")
    assert ad.meeting(turned, None, slow.transpose("chain", ...)) == wider
    with pytest.raises(ValueError, match=r"values must have the dimensions \(chain, angle\)"):
        ad.meeting(xr.concat([slow, fast], "rate"), None)
    with pytest.raises(ValueError, match="found has 6, reference has 5"):
        ad.meeting(fast, None, slow.isel(chain=slice(5)))


def test_a_planted_shift_is_found_whatever_the_order_of_chains_and_gains_must_be_those_of_the_first_frequencies():
    starts, target = schemes.multisines(6, ANGLES), np.exp(0.1 * np.cos(2 * AT + 0.5))
    moved, still = (fb.adapt(linear(3e-3), "newton", starts, 4, target=t, gain=GAIN) for t in (target, None))
    shift = ad.planted(moved, still, GAIN)
    assert ad.planted(moved, still.isel(chain=[3, 1, 0, 2, 5, 4]), GAIN) == shift
    assert ad.planted(moved, still, xr.DataArray(list(GAIN), {"frequency": [1, 2, 3, 4]})) == shift
    with pytest.raises(ValueError, match=r"without a gap, not of \[1, 2, 4\]"):
        ad.planted(moved, still, xr.DataArray(list(GAIN[:3]), {"frequency": [1, 2, 4]}))
