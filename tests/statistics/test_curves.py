import numpy as np
import pytest
import torch
import xarray as xr

import fisherbook as fb
from fisherbook import angles as circle
from fisherbook.network.activity import Activity
from fisherbook.statistics import curves
from fisherbook.store import Store


def made_activity(evaluate, n_faces, identity=None, n_replicates=1, angles=48):
    """An activity whose responses and tangents (replicate, angle, face, unit) are written down."""
    face = np.tile(np.arange(n_faces), (n_replicates, 1))
    identity = None if identity is None else np.tile(identity, (n_replicates, 1))
    return Activity(circle.grid(angles), np.arange(n_replicates), face, identity, {}, "key", evaluate)


def one_unit(n_faces, slope, seed=0):
    """r = slope-scaled angle plus a fixed deviation per face: information slope(θ)² / variance of the deviations."""
    noise = torch.randn(n_faces, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def evaluate(at, tangents, _block):
        gain = torch.from_numpy(slope(at))[None, :, None, None]
        return (noise[:, None] + 0 * gain), (gain + 0 * noise[:, None] if tangents else None)

    return evaluate, float(noise.var())


def test_the_logarithm_is_half_that_of_the_plug_in_information():
    evaluate, variance = one_unit(50, lambda a: 2 + np.cos(a))
    found = fb.log_fisher(made_activity(evaluate, 50))
    expected = np.log((2 + np.cos(circle.grid(48))) / np.sqrt(variance))
    assert np.allclose(found.log_fisher.sel(part="all", replicate=0), expected)


def test_the_bias_of_the_logarithm_is_that_of_the_plug_in():
    evaluate, _ = one_unit(50, lambda a: 2 + np.cos(a))
    found = fb.log_fisher(made_activity(evaluate, 50))
    assert np.isclose(found.log_fisher_bias.item(), 0.5 * np.log(49 / 47), atol=5e-3)


def test_the_bias_is_missing_where_faces_are_too_few_for_a_corrected_estimate():
    evaluate, _ = one_unit(40, lambda a: 2 + np.cos(a))
    identity = np.repeat(np.arange(4), 10)
    found = fb.log_fisher(made_activity(evaluate, 40, identity), {"one": range(6), "all": range(40)})
    assert np.isfinite(found.log_fisher_bias.sel(part="all")).all()
    assert np.isnan(found.log_fisher_bias.sel(part="one")).all()
    assert np.isfinite(found.log_fisher).all()


def test_increments_are_differences_between_angles_and_know_no_edge():
    evaluate, _ = one_unit(50, lambda a: np.exp(0.3 * np.sin(a)))
    found = fb.increments(made_activity(evaluate, 50), [0.01, 2 * np.pi / 48])
    at = found.angle.values
    assert np.allclose(found.sel(lag=0.01).squeeze(), 0.3 * (np.sin(at + 0.01) - np.sin(at)))
    assert np.allclose(found.isel(lag=1).squeeze(), 0.3 * (np.roll(np.sin(at), -1) - np.sin(at)))


def test_a_single_pair_of_angles_gives_the_logarithm_of_the_direct_estimate(tmp_path):
    stimulus = fb.Stimulus(fb.load_faces("orl", size=16))
    stages = [fb.Stage("uniform", fb.uniform(), steps=40, batch=8)]
    ensemble = fb.train(stimulus, fb.Network(hidden=(12, 6)), stages, 2, store=Store(tmp_path), progress=False)
    activity = fb.record(ensemble, stimulus, 6)
    tangent, small = (fb.log_fisher(activity, delta=d).log_fisher for d in (None, 1e-4))
    assert np.allclose(tangent, small, atol=1e-4)
    assert abs(tangent - fb.log_fisher(activity, delta=0.3).log_fisher).max() > 1e-3


def test_halves_share_nobody_and_have_equally_many_people():
    identity = np.repeat(np.arange(7), 3)
    a, b = fb.halves(identity, seed=3)
    assert len(a) == len(b) == 9
    assert not set(identity[a]) & set(identity[b])
    assert all(np.isin(np.flatnonzero(identity == p), a).all() for p in set(identity[a]))


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_the_local_exponent_is_that_of_a_power_law(exponent):
    lags = np.array([1e-4, 3e-4, 1e-3])
    assert np.isclose(curves.local_exponent(lags, 7 * lags ** (2 * exponent)), exponent)


def test_a_random_walk_has_exponent_one_half_and_a_sine_has_one():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(50, 20_000)), 1)
    wave = np.sin(np.arange(20_000) * 1e-3)[None]
    lags = np.array([1, 2, 4, 8])
    for curve, expected in ((walk, 0.5), (wave, 1.0)):
        structure = np.stack([((curve[:, k:] - curve[:, :-k]) ** 2).mean() for k in lags])
        assert np.isclose(curves.local_exponent(lags, structure), expected, atol=0.02)


def test_curves_on_a_grid_from_any_angle_on_have_the_same_increments_folds_and_spread():
    at = circle.grid(12)
    curve = xr.DataArray(np.cos(at) + 0.3 * np.sin(at) + [[0.0], [0.1]] * at, {"replicate": [0, 1], "angle": at})
    steps, folded = curves.grid_increments(curve, [1, 3]), curves.folded(curve, 0.5)
    assert np.allclose(folded.distance, np.arange(7) * np.pi / 6 - 0.5) and folded.dims == ("replicate", "distance")
    assert np.allclose(folded[0, 1:-1], np.cos(folded.distance[1:-1] + 0.5))
    for turned in (curve.roll(angle=5, roll_coords=True), curve.assign_coords(angle=at % (2 * np.pi))):
        xr.testing.assert_allclose(curves.folded(turned, 0.5), folded)
        found = curves.grid_increments(turned, [1, 3])
        xr.testing.assert_allclose(found.assign_coords(angle=circle.wrap(found.angle)).sortby("angle"), steps)
    assert np.array_equal(curves.folded(curve.drop_vars("angle"), 0.5), folded)


def test_angles_that_are_no_whole_grid_in_order_are_refused():
    at = circle.grid(12)
    for wrong in (at[::-1], np.roll(at, 3)[[1, 0, *range(2, 12)]], at / 2, np.append(at[:11], 3.0)):
        curve = xr.DataArray(np.cos(wrong), {"angle": wrong})
        for call in (lambda c: curves.grid_increments(c, [1]), curves.folded):
            with pytest.raises(ValueError, match="must be a whole grid of equal steps"):
                call(curve)
    with pytest.raises(ValueError, match="0 among them"):
        curves.folded(xr.DataArray(at, {"angle": at + np.pi / 12}))
    with pytest.raises(ValueError, match="half the number of angles"):
        curves.folded(xr.DataArray(circle.grid(5), {"angle": circle.grid(5)}))


def test_the_spread_of_curves_with_a_missing_angle_is_missing():
    values = xr.DataArray(np.random.default_rng(0).normal(size=(2, 4, 12)), dims=("case", "replicate", "angle"))
    whole = curves.spread(values)
    values[1, 2, 7] = np.nan
    assert np.allclose(curves.spread(values), [whole[0], np.nan], equal_nan=True)


def test_the_density_of_many_angles_is_the_density_they_were_drawn_from():
    density = fb.von_mises(3.0, 2.0)
    samples = density.sample((np.arange(50_000) + 0.5) / 50_000)
    at = circle.grid(64)
    assert np.allclose(curves.density_of(samples, at), density.pdf(at), atol=0.006)
    for missing in (np.nan, np.inf):
        with pytest.raises(ValueError, match="1 of 3 are not finite"):
            curves.density_of([0.0, 1.0, missing], at)
    turned = curves.density_of(circle.wrap(samples + at[5] - at[0]), at)
    assert np.allclose(turned, np.roll(curves.density_of(samples, at), 5), atol=2e-3)
