"""What curves of several replicates share: harmonics and peaks, against curves turned by independent random angles."""

import numpy as np
import pytest

import fisherbook as fb
from fisherbook.statistics import curves

ANGLES = fb.grid(120) + 0.01
ORDERS = np.arange(1, 9)


def scattered(rng, replicates=6, amplitude=0.2):
    """Curves (replicate, angle) whose harmonics, weaker at higher orders, have independent random phases."""
    phases = rng.uniform(0, 2 * np.pi, (replicates, 20, 1))
    order = np.arange(1, 21)[:, None]
    return (amplitude / order * np.cos(order * ANGLES + phases)).sum(1)


def test_harmonics_of_a_known_curve():
    curve = 3 + 0.4 * np.cos(4 * (ANGLES - 0.3)) + 0.1 * np.sin(7 * ANGLES)
    found = curves.harmonics(curve, ANGLES, ORDERS)
    expected = np.zeros(8, complex)
    expected[3], expected[6] = 0.2 * np.exp(-1.2j), 0.05 / 1j
    assert np.allclose(found, expected) and np.isclose(-np.angle(found[3]) / 4, 0.3)


def test_shared_power_is_the_mean_over_pairs_and_has_no_bias():
    rng = np.random.default_rng(0)
    c = rng.normal(size=(5, 3)) + 1j * rng.normal(size=(5, 3))
    pairs = [(c[r] * c[s].conj()).real for r in range(5) for s in range(5) if r != s]
    assert np.allclose(curves.shared_power(c), np.mean(pairs, 0))
    noise = rng.normal(size=(2, 20_000, 4, 1))
    found = curves.shared_power(0.3 + noise[0] + 1j * noise[1])
    assert abs(found.mean() - 0.09) < 4 * found.std() / 20_000**0.5


def test_a_planted_harmonic_is_found_and_no_other():
    rng, found = np.random.default_rng(1), []
    for _ in range(100):
        values = scattered(rng) + 0.2 * np.cos(4 * ANGLES)
        found.append(curves.shared_harmonics(values, ANGLES, ORDERS, draws=400).p_value < 0.05)
    rate = np.mean(found, 0)
    assert rate[3] >= 0.95 and np.delete(np.array(found), 3, 1).any(1).mean() <= 0.05 + 3 * 0.022


@pytest.mark.parametrize("constant", [0.0, 3.3])
def test_constants_share_no_harmonic(constant):
    found = curves.shared_harmonics(np.full((6, 120), constant), ANGLES, ORDERS, draws=99)
    assert (found.p_value == 1).all() and (found.power == 0).all()
    one = curves.shared_harmonics(np.tile(np.cos(4 * ANGLES), (6, 1)), ANGLES, ORDERS, draws=99).p_value
    assert (one.sel(order=4) == 0.01) and (one.drop_sel(order=4) == 1).all()


def test_a_missing_value_and_a_single_replicate_are_refused():
    values = scattered(np.random.default_rng(3))
    with pytest.raises(ValueError, match="replicates must be a whole number of at least 2, not 1"):
        curves.shared_harmonics(values[:1], ANGLES, ORDERS)
    values[2, 5] = np.nan
    with pytest.raises(ValueError, match="1 of 720 are not finite"):
        curves.shared_harmonics(values, ANGLES, ORDERS)


@pytest.mark.slow
def test_random_phases_are_called_shared_no_more_often_than_stated():
    rng = np.random.default_rng(2)
    tests = [curves.shared_harmonics(scattered(rng, 4), ANGLES, ORDERS, draws=400) for _ in range(500)]
    wrong = np.array([(t.p_value < 0.05).any() for t in tests])
    assert abs(wrong.mean() - 0.05) < 3 * 0.0097
    assert (wrong == [(t.power > t.threshold).any() for t in tests]).mean() > 0.97


def test_peaks_know_no_edge():
    curve = np.cos(4 * ANGLES) + 0.1 * np.cos(ANGLES)
    assert np.allclose(np.sort(np.abs(fb.angles.wrap(ANGLES[curves.peaks(curve)]))), [0, np.pi / 2, np.pi / 2, np.pi],
                       atol=0.06)  # fmt: skip
    for shift in range(0, 120, 7):
        turned = np.roll(curve, shift)
        assert np.array_equal(curves.peaks(turned), np.sort((curves.peaks(curve) + shift) % 120))
    ripple = curve + 0.1 * np.cos(40 * ANGLES)
    assert len(curves.peaks(ripple)) > 4 and len(curves.peaks(ripple, prominence=0.3)) == 4
