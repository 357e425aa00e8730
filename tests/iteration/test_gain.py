"""Gain and noise of linear systems whose answer is known."""

import numpy as np
import pytest
import xarray as xr

import fisherbook as fb
from fisherbook.iteration import gain
from fisherbook.statistics import findings

G = np.array([0.4, 0.15, 0.0, -0.05])
PARTS = {"fixed": np.array([4.0, 1.0, 0.5, 0.0]), "pretraining": np.array([1.0, 3.0, 0.0, 0.5]),
         "fresh": np.array([2.0, 5.0, 1.0, 0.25])}  # fmt: skip


def complex_normal(rng, *shape):
    """Complex normal numbers of mean square 1."""
    return rng.normal(size=(*shape, 2)) @ np.array([1, 1j]) / np.sqrt(2)


def constant(rng, networks, draws=()):
    """Noise (*draws, network, frequency) that stays the same in all fine-tunings of a network."""
    own = np.sqrt(PARTS["pretraining"]) * complex_normal(rng, *draws, networks, len(G))
    return np.sqrt(PARTS["fixed"]) * np.exp(1j * np.arange(len(G))) + own


def drawn(rng, constants, replicates):
    """Noise (network, replicate, frequency), or with further dimensions in front."""
    shape = (*constants.shape[:-1], replicates, constants.shape[-1])
    return constants[..., None, :] + np.sqrt(PARTS["fresh"]) * complex_normal(rng, *shape)


def test_the_three_parts_of_the_noise_are_unbiased():
    rng = np.random.default_rng(0)
    values = np.moveaxis(drawn(rng, constant(rng, 4, (4000,)), 3), 0, -1)  # draws go last: components takes any shape
    found = gain.components(values)
    for name, part in found.items():
        error = part.std(-1) / np.sqrt(part.shape[-1])
        assert np.all(np.abs(part.mean(-1) - PARTS[name]) < 4 * error), name
        assert np.all(error < 0.05), name


def test_the_three_parts_add_up_to_the_mean_square():
    values = drawn(np.random.default_rng(1), constant(np.random.default_rng(2), 3), 4)
    np.testing.assert_allclose(sum(gain.components(values).values()), (np.abs(values) ** 2).mean((0, 1)))


def test_parts_of_values_that_all_agree_are_fixed():
    found = gain.components(np.full((3, 2, 1), 2 + 1j))
    np.testing.assert_allclose([found["fixed"], found["pretraining"], found["fresh"]], [[5], [0], [0]], atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 4, 2), (4, 1, 2)])
def test_a_single_network_or_replicate_has_no_parts(shape):
    with pytest.raises(ValueError, match="at least 2"):
        gain.components(np.ones(shape))


def test_response_finds_the_gain_whatever_is_common_or_even():
    rng, at, orders = np.random.default_rng(3), fb.grid(32), np.arange(1, 5)
    phases = rng.uniform(0, 2 * np.pi, (4000, 4, 1))
    waves = np.cos(orders[:, None] * at + phases)
    labels = {"chain": np.arange(len(phases)), "angle": at}
    drive = xr.DataArray(0.3 * waves.sum(1), labels)
    answer = xr.DataArray(0.3 * (G[:, None] * waves).sum(1), labels)
    common = xr.DataArray(rng.normal(size=drive.shape), labels) + drive**2
    own = [xr.DataArray(0.02 * rng.normal(size=drive.shape), labels) for _ in range(2)]
    curves = {sign: common + sign * answer + noise for sign, noise in zip((1, -1), own, strict=True)}
    found = gain.response(xr.Dataset({str(k): v for k, v in curves.items()}).to_dataarray("sign")
                          .assign_coords(sign=[1, -1]), drive, orders)  # fmt: skip
    error = found.std("chain") / np.sqrt(len(phases))
    assert found.dims == ("chain", "frequency")
    assert (abs(found.mean("chain") - G) < 4 * error).all()
    assert error.max() < 0.01


def test_a_single_noiseless_frequency_has_its_gain_exactly():
    at = fb.grid(12)
    drive = xr.DataArray(0.3 * np.cos(at + 0.7), {"angle": at})
    both = xr.DataArray([0.4, -0.4], {"sign": [1, -1]}) * drive + 9
    np.testing.assert_allclose(gain.response(both, drive, [1]), [0.4])
    np.testing.assert_allclose(gain.harmonics(drive, [1]), [0.3 * np.exp(0.7j)])


@pytest.mark.parametrize("orders", [[1, 6], [7], [0, 1], [1.5]])
def test_frequencies_that_the_grid_does_not_tell_apart_are_refused(orders):
    curve = xr.DataArray(np.cos(5 * fb.grid(12)), {"angle": fb.grid(12)})
    np.testing.assert_allclose(gain.harmonics(curve, range(1, 6)), [0, 0, 0, 0, 1], atol=1e-12)
    with pytest.raises(ValueError, match="from 1 to below half the number of angles, not"):
        gain.harmonics(curve, orders)


@pytest.mark.parametrize("at", [np.linspace(0, 1, 12), np.rad2deg(fb.grid(12)), np.arange(12)])
def test_angles_that_are_no_whole_grid_are_refused(at):
    with pytest.raises(ValueError, match="angles must be a whole grid of equal steps"):
        gain.harmonics(xr.DataArray(np.cos(at), {"angle": at}), [1])
    turned = np.roll(fb.grid(12), 5) + 0.1
    np.testing.assert_allclose(gain.harmonics(xr.DataArray(np.cos(turned), {"angle": turned}), [1]), [1])
    np.testing.assert_allclose(gain.harmonics(xr.DataArray(np.cos(fb.grid(12)), dims="angle"), [1]), [1])


def test_gain_and_noise_of_other_frequencies_are_refused():
    known = xr.DataArray(G, {"frequency": [1, 2, 3, 4]})
    assert np.array_equal(gain.predicted(known, PARTS, [3]), gain.predicted(G, PARTS, [3]))
    with pytest.raises(ValueError, match="gain and noise must be those of the same frequencies"):
        gain.predicted(known, {n: xr.DataArray(v, {"frequency": [2, 3, 4, 5]}) for n, v in PARTS.items()}, [3])


def test_what_is_not_known_has_no_harmonics_no_gain_and_no_amplification():
    drive = xr.DataArray(np.cos(fb.grid(12)), {"angle": fb.grid(12)})
    answers = 0.4 * drive * xr.DataArray([1.0, 1.0], {"chain": [0, 1]})
    answers[7, 1] = np.nan
    both = xr.DataArray([1, -1], {"sign": [1, -1]}) * answers
    assert np.isnan(gain.harmonics(answers, [1])).values.tolist() == [[False], [True]]
    np.testing.assert_allclose(gain.response(both, drive, [1]), [[0.4], [np.nan]])
    assert np.isnan(gain.amplification(np.nan, np.inf)).all()


def test_without_gain_constant_noise_drifts_and_fresh_noise_diffuses():
    for n in (0, 1, 5):
        np.testing.assert_allclose(gain.amplification(0.0, n), (n**2, n))


@pytest.mark.parametrize("scheme", [{}, {"rate": 0.3}, {"reversion": np.array([0, 0, 0.5, 0.5])}])
def test_predicted_variance_is_that_of_simulated_chains(scheme):
    rng = np.random.default_rng(4)
    networks, steps, replicates = 20000, 6, 2
    constants = constant(rng, networks)
    rate, reversion = scheme.get("rate", 1), scheme.get("reversion", 0)
    chains = np.zeros((networks, 2, len(G)), complex)
    for _ in range(steps):
        noise = np.stack([drawn(rng, constants, replicates).mean(1) for _ in range(2)], 1)
        chains = (1 - reversion) * chains - rate * (G * chains + noise)
    drift, diffusion = (part[0] for part in gain.predicted(G, PARTS, [steps], replicates, **scheme))
    found = gain.components(chains)
    np.testing.assert_allclose(found["fixed"] + found["pretraining"], drift, rtol=0.05)
    np.testing.assert_allclose(found["fresh"], diffusion, rtol=0.05)


def test_stationary_variance_is_the_limit_of_many_steps():
    for scheme in ({"rate": 0.5}, {"reversion": 0.3}):
        stationary = gain.amplification(G[:2], np.inf, **scheme)
        np.testing.assert_allclose(gain.amplification(G[:2], 2000, **scheme), stationary, rtol=1e-6)


def test_no_stationary_variance_without_gain_or_reversion():
    assert np.isinf(gain.amplification(G[2:], np.inf)).all()
    assert np.isfinite(gain.amplification(G[2:], np.inf, reversion=0.5)).all()


def test_pseudovalues_of_a_mean_are_the_values_and_their_spread_is_the_variance_of_a_function():
    rng = np.random.default_rng(5)
    values = rng.normal(size=7)
    np.testing.assert_allclose(findings.jackknife_values(np.mean, values), values)
    many = rng.normal(2, 1, (400, 12))
    found = np.array([findings.jackknife_values(lambda x: np.log(x.mean()), draw) for draw in many])
    expected = np.log(many.mean(1)).std()
    assert np.sqrt((found.var(1, ddof=1) / 12).mean()) == pytest.approx(expected, rel=0.1)


def test_arrays_of_different_networks_are_refused():
    with pytest.raises(ValueError, match="array 1 has 3, array 2 has 4"):
        findings.jackknife_values(lambda a, b: 0, np.ones(3), np.ones(4))
