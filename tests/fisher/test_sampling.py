"""Angles added where a rough curve needs them, and steps held against their limit."""

import numpy as np
import pytest
import xarray as xr

from fisherbook import results
from fisherbook.fisher import sampling
from fisherbook.fisher.calibration import curved_code, simulate, tuning_code
from fisherbook.fisher.estimate import estimate


def rough(angles):
    """A curve that is flat on one half of the circle and rough on the other."""
    values = np.where(angles < 0, 10.0, 10 + 5 * np.sin(1e4 * angles))
    return xr.Dataset({"fisher_information": (("replicate", "angle"), np.stack([values, values]))})


def test_angles_go_where_the_curve_is_rough():
    found = sampling.interval_means(rough, 8, relative_error=0.05)
    assert (found.n_angles[:4] == 4).all()
    assert (found.n_angles[4:] >= 16).all()
    assert found.met.all()
    assert abs(found.fisher_information - 10).max() < 3 * 0.05 * 10
    assert found.angle.values == pytest.approx(-np.pi + np.pi / 4 * (np.arange(8) + 0.5))
    results.validate(found)


def test_evaluations_are_bounded():
    asked = []

    def counted(angles):
        asked.extend(angles)
        assert (np.diff(angles) > 0).all()
        return rough(angles)

    found = sampling.interval_means(counted, 8, relative_error=1e-4, most=100)
    assert len(asked) == int(found.n_angles.sum()) <= 100
    assert len(set(asked)) == len(asked)
    assert not found.met[4:].any()
    assert found.n_angles[4:].sum() > 60


@pytest.mark.slow
def test_an_interval_s_mean_is_the_curve_s():
    code = tuning_code(6)
    found = sampling.interval_means(lambda a: estimate(simulate(code, a, 200)), 6, relative_error=0.02)
    dense = np.linspace(-np.pi, np.pi, 241)[:-1]
    truth = estimate(simulate(code, dense, 200)).fisher_information.values.reshape(6, 40).mean(1)
    assert found.fisher_information.values == pytest.approx(truth, rel=0.05)


def test_steps_approach_their_limit_and_extrapolation_reaches_it():
    found = sampling.step_sizes(simulate(tuning_code(6), 5, 300, 2), [0.4, 0.1, 0.2])
    off = abs(found.fisher_information / found.tangent - 1).mean(["replicate", "angle"])
    assert found.delta.values.tolist() == [0.1, 0.2, 0.4]
    assert float(off[0]) < float(off[1]) < float(off[2])
    assert float(off[1] / off[0]) == pytest.approx(4, rel=0.1)
    assert float(abs(found.disagreement).max()) < 0.05 * float(off[0])
    assert (found.disagreement_error < 1e-3).all()
    results.validate(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampling.interval_means(rough, 8, most=10), "most must be a whole number of at least 32"),
        (lambda: sampling.interval_means(rough, 8, relative_error=0), "relative_error must be a number above 0"),
        (
            lambda: sampling.step_sizes(simulate(curved_code()), [0.1]),
            r"deltas must be at least two steps, not \[0.1\]",
        ),
        (lambda: sampling.step_sizes(simulate(curved_code()), [0.1, -1]), "deltas must be a number above 0"),
    ],
)
def test_bad_input_is_told_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
