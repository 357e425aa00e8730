"""Intervals over people: of one estimate, of a difference on the same faces, of a whole curve."""

import numpy as np
import pytest
import torch
from scipy import stats

from fisherbook.fisher import intervals, kernels
from fisherbook.fisher.calibration import gaussian_code, simulate, tuning_code
from fisherbook.fisher.estimate import estimate


def drawn(replicates=1, angles=12, seed=0, people=25):
    return simulate(tuning_code(4), angles, 4 * people, replicates, faces_per_person=4, correlation=0.4, seed=seed)


def test_an_interval_is_the_t_interval_over_people():
    found = estimate(drawn())
    limits = intervals.interval(found, 0.9)
    reach = stats.t.ppf(0.95, 24) * found.standard_error
    assert limits.upper.values == pytest.approx((found.fisher_information + reach).values)
    assert limits.lower.attrs["units"] == "rad-2"


def test_influence_and_jackknife_agree():
    responses, tangents = next(drawn(people=40).chunks())[1:]
    responses, tangents, groups = responses[0, 0], tangents[0, 0], np.arange(160) // 4
    for kernel in (kernels.tangent, kernels.gaussian):
        found = kernel(responses, tangents, groups)
        value, error = intervals.jackknife(
            lambda r, d, groups, kernel=kernel: kernel(r, d, groups).information, groups, responses, tangents
        )
        assert float(value) == pytest.approx(float(found.information), rel=0.02)
        assert float(error) == pytest.approx(float((found.influence**2).sum() ** 0.5), rel=0.1)


@pytest.mark.slow
def test_a_difference_on_the_same_faces_is_known_better_than_either():
    activity = drawn(replicates=300, angles=[0.5])
    first, second = (estimate(activity, estimator=name, influence=True) for name in ("tangent", "gaussian"))
    change = intervals.difference(second, first)
    assert float(change.standard_error.mean()) < 0.4 * float(first.standard_error.mean())
    assert float(change.standard_error.mean()) == pytest.approx(float(change.fisher_information.std()), rel=0.25)
    assert float(intervals.difference(first, first).standard_error.max()) == 0


@pytest.mark.slow
def test_a_band_holds_the_whole_curve_as_often_as_it_says():
    code, angles = gaussian_code(3), 24
    found = estimate(simulate(code, angles, 80, 400, seed=1), influence=True)
    whole, single = intervals.band(found, draws=500), intervals.interval(found)
    inside = ((whole.lower <= 100) & (whole.upper >= 100)).all("angle").mean()
    pointwise = ((single.lower <= 100) & (single.upper >= 100)).all("angle").mean()
    assert 0.92 <= float(inside) <= 0.995
    assert float(pointwise) < 0.9
    assert (whole.upper > single.upper).all()


def test_a_difference_matches_labels_and_names_what_does_not():
    people = np.arange(100) // 4
    responses, tangents = (values[0] for values in next(drawn(angles=[0.5]).chunks())[1:])
    first = estimate(responses, tangents=tangents, angles=0.5, identity=people, influence=True)
    order = np.random.default_rng(0).permutation(100)
    mixed = estimate(
        responses[:, order], tangents=tangents[:, order], angles=0.5, identity=people[order], influence=True
    )
    assert float(intervals.difference(first, mixed).standard_error.max()) < 1e-9
    with pytest.raises(ValueError, match="different labels along person: 7 is in one only"):
        intervals.difference(first, first.sel(person=first.person != 7))
    with pytest.raises(ValueError, match="different labels along angle"):
        intervals.difference(first, first.assign_coords(angle=[1.5]))


@pytest.mark.filterwarnings("ignore:discrimination never confused")
def test_what_is_never_confused_has_an_infinite_interval_difference_and_band():
    sides = np.random.default_rng(0).normal(size=(1, 2, 60, 2)) + np.array([-20, 20])[:, None, None]
    found = estimate(sides, angles=[0.0], delta=0.2, estimator="discrimination", influence=True)
    for limits in (intervals.interval(found), intervals.band(found, draws=20)):
        assert np.isneginf(limits.lower).all() and np.isposinf(limits.upper).all()
    assert np.isinf(intervals.difference(found, found).standard_error).all()


def test_what_needs_influence_says_so():
    with pytest.raises(ValueError, match="call estimate with influence=True"):
        intervals.band(estimate(drawn()))


def test_a_jackknife_of_a_mean_is_its_standard_error():
    values = torch.randn(30, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, error = intervals.jackknife(lambda x, groups: x.mean(), np.arange(30), values)
    assert float(value) == pytest.approx(float(values.mean()))
    assert float(error) == pytest.approx(float(values.std()) / 30**0.5)
