"""The energy distance between sets of people: closed forms, halves, and the level of its permutation test."""

from itertools import combinations

import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import binom, energy_distance

from fisherbook.statistics.distances import energy


def on_circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def clusters(rng, people, each, spread=1.0, shift=0.0, within=0.3):
    """Samples (person, sample) about everybody's own mean."""
    return shift + spread * rng.standard_normal((people, 1)) + within * rng.standard_normal((people, each))


def compared(a, b, **options):
    """Compare samples (person, sample[, dimension]) of disjoint people."""
    whose = [np.repeat(np.arange(len(x)), x.shape[1]) for x in (a, b)]
    flat = [x.reshape(-1, *x.shape[2:]) for x in (a, b)]
    return energy(*flat, whose[0], len(a) + whose[1], **options)


def test_two_constants_differ_by_twice_their_distance_and_share_nothing():
    found = compared(np.full((3, 2), 1.0), np.full((4, 5), 4.5))
    assert np.isclose(found.distance, 2 * 3.5)
    assert np.isclose(found.share, 1)


@pytest.mark.parametrize("same_people", [False, True])
def test_equal_constants_do_not_differ(same_people):
    found = energy(np.ones(6), np.ones(6), [0, 0, 1, 1, 2, 2], np.arange(6) // 2 + 3 * (not same_people), draws=99)
    assert (found.distance, found.share, found.p_value) == (0, 0, 1)


def test_angles_on_both_sides_of_pi_are_near_each_other():
    near = compared(on_circle(np.full((3, 2), np.pi - 0.05)), on_circle(np.full((3, 2), -np.pi + 0.05)))
    assert np.isclose(near.distance, 2 * 2 * np.sin(0.05))
    opposite = compared(on_circle(np.zeros((3, 2))), on_circle(np.full((3, 2), np.pi)))
    assert np.isclose(opposite.distance, 4)


def test_shifted_normals_are_apart_as_integrals_say():
    rng, shift = np.random.default_rng(0), 0.8
    found = [compared(clusters(rng, 100, 1, 1, 0, 0), clusters(rng, 100, 1, 1, shift, 0)) for _ in range(100)]
    cross = 2 / np.sqrt(np.pi) * np.exp(-(shift**2) / 4) + shift * erf(shift / 2)
    expected = 2 * cross - 4 / np.sqrt(np.pi)
    distances = [f.distance for f in found]
    assert abs(np.mean(distances) - expected) < 4 * np.std(distances) / 10
    assert np.isclose(np.mean([f.share for f in found]), expected / (2 * cross), rtol=0.1)


def test_the_distance_is_between_halves_of_different_sets_minus_between_halves_of_one():
    rng = np.random.default_rng(1)
    a, b = clusters(rng, 4, 3), clusters(rng, 4, 3, shift=1)

    def apart(x, y):
        return energy_distance(x.ravel(), y.ravel()) ** 2

    halves = [(list(h), [p for p in range(4) if p not in h]) for h in combinations(range(4), 2)]
    between = np.mean([apart(a[g], b[h]) for g, _ in halves for h, _ in halves])
    within = [np.mean([apart(x[h], x[rest]) for h, rest in halves]) for x in (a, b)]
    assert np.isclose(compared(a, b).distance, between - np.mean(within))


@pytest.mark.parametrize("same_people", [False, True])
def test_sets_that_are_alike_are_zero_apart_however_they_cluster(same_people):
    rng, distances = np.random.default_rng(2), []
    for _ in range(400):
        a, b = clusters(rng, 6, 4), clusters(rng, 6, 4)
        if same_people:  # two sets of samples of everybody's
            a, b = np.split(clusters(rng, 6, 8), 2, axis=1)
        whose = np.repeat(np.arange(6), 4)
        distances.append(energy(a.ravel(), b.ravel(), whose, whose + 6 * (not same_people)).distance)
    assert abs(np.mean(distances)) < 4 * np.std(distances) / 20


@pytest.mark.parametrize("same_people", [False, True])
def test_permuting_people_rejects_as_often_as_it_says_however_they_cluster(same_people):
    rng, rejected, tests = np.random.default_rng(3), 0, 300
    whose = np.repeat(np.arange(8), 5)
    for k in range(tests):
        a, b = np.split(clusters(rng, 8 if same_people else 16, 10 if same_people else 5), 2, axis=int(same_people))
        rejected += energy(a.ravel(), b.ravel(), whose, whose + 8 * (not same_people), 99, k).p_value <= 0.1
    assert binom.ppf(0.001, tests, 0.1) <= rejected <= binom.ppf(0.999, tests, 0.1)


def test_what_shifts_everybody_is_found_though_people_differ_more():
    rng = np.random.default_rng(4)
    a = clusters(rng, 8, 5, within=0.1)
    whose = np.repeat(np.arange(8), 5)
    moved = a + 0.4 + 0.1 * rng.standard_normal(a.shape)
    assert energy(a.ravel(), moved.ravel(), whose, whose, 499).p_value < 0.02
    assert energy(a.ravel(), moved.ravel(), whose, whose + 8, 499).p_value > 0.05


def test_the_null_is_drawn_from_the_seed():
    a, b = (clusters(np.random.default_rng(k), 5, 3) for k in (5, 6))
    first, again, other = (compared(a, b, draws=20, seed=seed).null for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.isnan(compared(a, b).p_value)


def test_people_who_are_in_both_sets_in_part_and_sets_of_one_person_are_refused():
    with pytest.raises(ValueError, match="all their people in common or none, not 1 of 2"):
        energy(np.zeros(4), np.zeros(4), [0, 0, 1, 1], [1, 1, 2, 2])
    with pytest.raises(ValueError, match="at least two people, not 1 and 2"):
        energy(np.zeros(2), np.zeros(4), [0, 0], [1, 1, 2, 2])
    for values in ([0, np.nan, 1, 2], np.ma.array([0, 9, 1, 2], mask=[0, 1, 0, 0])):
        with pytest.raises(ValueError, match="1 of 4 are not finite"):
            energy(np.zeros(4), values, [0, 0, 1, 1], [2, 2, 3, 3], draws=99)
    with pytest.raises(ValueError, match="first has 3, people has 4"):
        energy(np.zeros(3), np.zeros(5), [0, 0, 1, 1], [2, 2, 3, 3])
    with pytest.raises(ValueError, match="second has 5, others has 4"):
        energy(np.zeros(4), np.zeros(5), [0, 0, 1, 1], [2, 2, 3, 3])
    with pytest.raises(ValueError, match="draws must be a whole number"):
        energy(np.zeros(2), np.zeros(2), [0, 1], [2, 3], draws=-1)
