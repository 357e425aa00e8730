import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fisherbook as fb
from fisherbook import angles as circle

DENSITIES = [
    circle.uniform(),
    circle.uniform(-1.0, 0.5),
    circle.uniform(2.0, 4.0),
    circle.von_mises(np.pi / 2, 3),
    circle.von_mises(-3, 200),
    circle.tabulated(1 + 0.5 * np.cos(circle.grid(50))),
    circle.tabulated([0, 0, 1, 2, 0, 0]),
]


def test_the_grid_is_half_open():
    grid = circle.grid(8)
    assert grid[0] == -np.pi and grid[-1] < np.pi and len(grid) == 8
    assert np.allclose(np.diff(grid), 2 * np.pi / 8)


def test_a_whole_number_is_how_many_and_a_float_is_the_angle():
    assert len(circle.as_angles(12)) == len(circle.as_angles(np.int64(12))) == 12
    for angle in (1.0, 0.0, np.float32(0.5), np.array(2.0)):
        assert circle.as_angles(angle).tolist() == [float(angle)]
    assert circle.as_angles([180], unit="deg") == pytest.approx([np.pi])


@given(st.floats(-50, 50))
def test_wrapping_lands_on_the_half_open_circle_and_keeps_the_direction(angle):
    wrapped = circle.wrap(angle)
    assert -np.pi <= wrapped < np.pi
    assert np.isclose(np.cos(wrapped), np.cos(angle)) and np.isclose(np.sin(wrapped), np.sin(angle), atol=1e-12)


@pytest.mark.parametrize("density", DENSITIES, ids=lambda d: f"{d.kind}{len(d.parameters)}")
def test_a_density_integrates_to_one_and_samples_what_it_says(density):
    fine = circle.grid(200_000)
    mass = density.pdf(fine) * 2 * np.pi / len(fine)
    assert np.isclose(mass.sum(), 1, atol=1e-4)
    samples = density.sample((np.arange(100_000) + 0.5) / 100_000)
    assert samples.min() >= -np.pi and samples.max() < np.pi
    for k in (1, 2, 3):
        assert np.isclose(np.exp(1j * k * samples).mean(), (mass * np.exp(1j * k * fine)).sum(), atol=2e-4)
    assert density.contains(samples).all()
    assert (density.pdf(samples) > 0).mean() > 0.999


@pytest.mark.parametrize("kappa", [99, 101, 1e4, 1e6, 1e9, 1e15])
def test_samples_of_a_narrow_density_are_as_narrow_as_it(kappa):
    samples = circle.wrap(circle.von_mises(3.14, kappa).sample((np.arange(100_000) + 0.5) / 100_000) - 3.14)
    expected = 1 / (kappa - 0.5)  # to second order
    assert np.isclose(samples.var() / expected, 1, rtol=1e-3) and abs(samples.mean()) * kappa**0.5 < 1e-3


def test_ordinary_densities_keep_the_angles_that_their_draws_have_made():
    draws = [0.0, 0.01, 0.5, 0.9, 0.999]
    kept = [-np.pi, 0.7665404083588547, 0.9999999999571347, 1.1284051773624633, 1.3106651049890248]
    assert np.allclose(circle.von_mises(1, 100).sample(draws), kept, rtol=0, atol=1e-12)


def test_von_mises_is_the_textbook_density():
    from scipy.stats import vonmises

    at = circle.grid(17)
    assert np.allclose(circle.von_mises(0.3, 2.5).pdf(at), vonmises.pdf(at, 2.5, loc=0.3))


def test_the_support_of_a_table_is_the_arc_around_its_mass():
    n = 12
    values = np.zeros(n)
    values[[0, 1, 11]] = 1  # straddles ±π
    low, high = circle.tabulated(values).support
    assert np.isclose(high - low, 2 * np.pi / n * 4)
    assert circle.tabulated(values).contains(-np.pi) and not circle.tabulated(values).contains(0.0)


@given(st.integers(3, 400), st.integers(-800, 800), st.integers(1, 400))
def test_both_ends_of_an_arc_belong_to_it_and_no_other_angle_of_the_grid(n, first, steps):
    steps = 1 + steps % (n - 1)
    at, step = circle.grid(n), 2 * np.pi / n
    for low in (at[first % n], first * step - np.pi):  # wrapped, or some turns away
        arc = circle.uniform(low, low + steps * step)
        expected = np.isin(np.arange(n), (first + np.arange(steps + 1)) % n)
        assert np.array_equal(arc.contains(at), expected) and np.array_equal(arc.pdf(at) > 0, expected)


def test_densities_are_values_that_can_be_compared_and_hashed():
    assert circle.von_mises(0, 1) == circle.von_mises(2 * np.pi, 1.0)
    assert len({circle.uniform(), circle.uniform(), circle.von_mises(0, 0)}) == 2


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: circle.grid(0), "angles must be a whole number of at least 1, not 0"),
        (lambda: circle.von_mises(0, -1), "kappa must be a finite number of at least 0, not -1"),
        (lambda: circle.uniform(1, 0), "uniform needs low < high"),
        (lambda: circle.tabulated([1, -1, 2]), "values must be at least 3 finite, non-negative numbers"),
        (lambda: circle.tabulated(np.ma.array([1, 2, 3, 99], mask=[0, 0, 0, 1])), "values must be at least 3 finite"),
        (lambda: circle.as_angles([[0.1]]), "angles must have the dimensions"),
        (lambda: circle.as_angles([np.nan]), "angles must be finite"),
        (lambda: circle.as_angles(np.arange(0, 360, 15)), "angles from 0 to 345 rad lie beyond two periods"),
        (lambda: circle.as_angles(["a"]), "angles must be numbers"),
        (lambda: circle.as_angles(True), "angles must be a whole number of at least 1, not True"),
    ],
)
def test_bad_angles_and_densities_meet_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(-10, 10))
def test_the_circular_mean_turns_with_its_angles(angles, turn):
    turned = circle.circular_mean(np.array(angles) + turn)
    assert abs(np.exp(1j * turned) - np.exp(1j * (circle.circular_mean(angles) + turn))) < 1e-9


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: fb.von_mises(np.nan), "loc must be a number, not nan"),
        *((lambda k=k: fb.von_mises(0, k), "kappa must be a finite number") for k in ("a", None, 1j, [1.0, 2.0])),
        (lambda: fb.uniform(-np.inf, 0), "low must be a number, not -inf"),
        (lambda: fb.numbers("1, inf"), "each of the numbers must be a number, not inf"),
        (lambda: fb.plan_trials(10, np.inf, 0.3), "information must be a number above 0, not inf"),
        (lambda: fb.plan_trials(10, 1e-300, 0.3), "more than 10.15 trials are needed"),
        (lambda: fb.grid(np.inf), "angles must be a whole number of at least 1, not inf"),
        (lambda: fb.grid([3]), "angles must be a whole number of at least 1"),
    ],
)
def test_what_is_no_finite_number_is_refused_by_name(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
