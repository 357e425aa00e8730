"""Steps between two angles held against their limit."""

import pytest

from fisherbook import results
from fisherbook.fisher import sampling
from fisherbook.fisher.calibration import curved_code, simulate, tuning_code


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
