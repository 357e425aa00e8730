"""Recordings as people have them: trials, lists, labels, masks, degrees, periods, and what cannot be taken as it is."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from fisherbook.angles import grid
from fisherbook.checks import FewFaces
from fisherbook.fisher import intervals
from fisherbook.fisher.circular import central_difference
from fisherbook.fisher.estimate import ESTIMATORS, estimate

ANGLES, FACES, UNITS = 8, 40, 3
PREFERRED = 2 * np.pi * np.arange(UNITS) / UNITS


def recording(seed=0, repeats=FACES, angles=None, period=2 * np.pi):
    """Shuffled trials (trial, unit) of unit noise, and their angles: the information is 9 sum sin^2 = 13.5."""
    random = np.random.default_rng(seed)
    shown = np.repeat(grid(ANGLES) * period / (2 * np.pi), repeats) if angles is None else angles
    shown = random.permutation(shown)
    turn = 2 * np.pi / period
    return 3 / turn * np.cos(turn * shown[:, None] - PREFERRED) + random.normal(size=(len(shown), UNITS)), shown


def faces(seed=0):
    """Responses and tangents (angle, face, unit)."""
    random = np.random.default_rng(seed)
    shape = (ANGLES, FACES, UNITS)
    return random.normal(size=shape), 2 + random.normal(size=shape)


def information(*args, **given):
    return estimate(*args, **given).fisher_information.values


# ---- trials ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", ["repeated", "all different"])
def test_trials_with_an_angle_each_give_the_curve(shown):
    angles = None if shown == "repeated" else np.random.default_rng(1).uniform(-np.pi, np.pi, 1500)
    responses, angles = recording(angles=angles)
    found = estimate(responses, angles=angles, estimator="smoothed", influence=True)
    assert found.sizes["angle"] == (ANGLES if shown == "repeated" else 36)
    assert found.fisher_information.mean() == pytest.approx(13.5, rel=0.15)
    assert found.standard_error.mean() < 6
    assert found.sizes["person"] == len(angles)
    alone = estimate(responses, angles=angles, estimator="smoothed", at=[0.5, 1.0])
    assert alone.angle.values.tolist() == [0.5, 1.0]
    assert alone.fisher_information.values == pytest.approx(np.full(2, 13.5), rel=0.5)


@pytest.mark.parametrize("name", ["smoothed", "direct", "tangent"])
def test_the_order_of_trials_changes_nothing(name):
    responses, angles = recording()
    order = np.random.default_rng(1).permutation(len(angles))
    extra = {"delta": np.pi / 4} if name == "direct" else {}
    slopes = {"tangents": responses**2} if name == "tangent" else {}
    once = estimate(responses, angles=angles, estimator=name, **extra, **slopes)
    slopes = {key: value[order] for key, value in slopes.items()}
    again = estimate(responses[order], angles=angles[order], estimator=name, **extra, **slopes)
    xr.testing.assert_allclose(once, again)


def test_a_list_of_trials_of_unequal_lengths_is_these_trials():
    responses, angles = recording()
    sizes = 20 + 2 * np.arange(ANGLES)
    lists = [responses[np.isclose(angles, a)][:n] for a, n in zip(grid(ANGLES), sizes, strict=True)]
    flat, at = np.concatenate(lists), np.repeat(grid(ANGLES), sizes)
    for name, extra in {"smoothed": {}, "direct": {"delta": np.pi / 4}}.items():
        found = estimate(lists, angles=ANGLES, estimator=name, **extra)
        xr.testing.assert_allclose(found, estimate(flat, angles=at, estimator=name, **extra))
    own = estimate(lists, tangents=lists, angles=ANGLES)
    alone = estimate(lists[2][None], tangents=lists[2][None], angles=[0.0])
    assert own.fisher_information.values[2] == pytest.approx(alone.fisher_information.values[0])


def test_trials_are_compared_with_those_of_the_next_angle():
    responses, angles = recording(repeats=60)
    found = estimate(responses, angles=angles, estimator="direct", delta=np.pi / 4)
    assert found.angle.values == pytest.approx(grid(ANGLES) + np.pi / 8)
    shrinks = (np.sin(np.pi / 8) / (np.pi / 8)) ** 2
    assert found.fisher_information.mean() == pytest.approx(13.5 * shrinks, rel=0.15)
    sides = [responses[np.isclose(angles, a)] for a in (0.0, np.pi / 4)]
    pair = estimate(np.stack(sides)[None], angles=[0.4], delta=np.pi / 4, design="independent", estimator="direct")
    assert found.fisher_information.sel(angle=np.pi / 8, method="nearest").item() == pytest.approx(
        pair.fisher_information.item()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewFaces)
        robust = estimate(responses, angles=angles, estimator="robust", delta=np.pi / 4)
    assert robust.fisher_information.mean() == pytest.approx(13.5, rel=0.3)


def test_clusters_of_trials_widen_the_error():
    random = np.random.default_rng(0)
    responses, angles = recording()
    group = random.integers(30, size=len(angles))
    shared = random.normal(size=(30, UNITS))[group]
    alone = estimate(responses + shared, angles=angles, estimator="smoothed")
    known = estimate(responses + shared, angles=angles, estimator="smoothed", identity=group)
    assert (known.degrees_of_freedom < alone.degrees_of_freedom).all()


def test_reports_of_single_trials_are_decoded():
    random = np.random.default_rng(0)
    angles = random.uniform(-np.pi, np.pi, 4000)
    reported = angles + 0.2 * np.sin(angles) + 0.3 * random.normal(size=4000)
    found = estimate(estimates=reported % (2 * np.pi), angles=angles, estimator="decoded", at=24)
    truth = (1 + 0.2 * np.cos(found.angle)) ** 2 / 0.09
    assert float((found.fisher_information / truth).mean()) == pytest.approx(1, abs=0.05)
    assert (found.large_error_share == 0).all()


# ---- the circle, degrees and lines -----------------------------------------------------------------------


@given(turn=st.floats(-6, 6), first=st.integers(0, 5), count=st.integers(3, 24))
@settings(max_examples=30)
def test_any_rotation_of_the_circle_gives_the_same_slopes(turn, first, count):
    angles = grid(24)[first : first + count]
    own = torch.as_tensor(0.3 * np.random.default_rng(0).normal(size=50))
    bias = 0.3 * np.sin(angles)
    plain, turned = (
        torch.remainder(torch.as_tensor(at + bias)[:, None] + own + np.pi, 2 * np.pi)[None] - np.pi
        for at in (angles, angles + turn)
    )
    before, after = central_difference(plain, angles), central_difference(turned, angles + turn)
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [3, 4, 5, 12])
@pytest.mark.parametrize("period", [2 * np.pi, np.pi])
def test_coarse_grids_give_the_slope_of_fine_ones(count, period):
    angles = grid(count) * period / (2 * np.pi)
    noise = 0.1 * period / (2 * np.pi) * np.random.default_rng(0).normal(size=300)
    estimates = (angles[:, None] + noise + period / 2) % period - period / 2
    found = information(estimates=estimates, angles=angles, estimator="decoded", period=period)
    assert found == pytest.approx(np.full(count, 1 / noise.var(ddof=1)), rel=0.03)


def test_steps_of_half_a_turn_are_refused():
    with pytest.raises(ValueError, match=r"3\.14 rad apart, half a period or more"):
        central_difference(torch.zeros(1, 3, 40), np.array([0, np.pi, 2 * np.pi]))
    with pytest.raises(ValueError, match=r"not 2 with a gap of 3\.1 rad"):
        estimate(estimates=np.zeros((3, 40)), angles=[-np.pi, 0, np.pi], estimator="decoded")


@pytest.mark.parametrize("name", ["smoothed", "direct", "decoded"])
def test_a_stimulus_of_half_a_turn_is_that_of_a_whole_one_at_half_the_angle(name):
    whole, angles = recording()
    extra = {"delta": np.pi / 4} if name == "direct" else {}
    half = {key: value / 2 for key, value in extra.items()}
    if name == "decoded":
        reported = (angles + 0.2 * whole[:, 0] + np.pi) % (2 * np.pi) - np.pi
        found = estimate(estimates=reported, angles=angles, estimator=name)
        other = estimate(estimates=reported / 2, angles=angles / 2, estimator=name, period=np.pi)
    else:
        found = estimate(whole, angles=angles, estimator=name, **extra)
        other = estimate(whole, angles=angles / 2, estimator=name, period=np.pi, **half)
    assert other.fisher_information.values == pytest.approx(4 * found.fisher_information.values)
    assert other.standard_error.values == pytest.approx(4 * found.standard_error.values)


def test_degrees_are_converted_if_said_and_refused_if_not():
    responses, angles = recording()
    degrees = np.rad2deg(angles) % 360
    found = estimate(responses, angles=angles, estimator="smoothed")
    said = estimate(responses, angles=degrees, estimator="smoothed", unit="deg").sortby("angle")
    assert np.sort(said.fisher_information) == pytest.approx(np.sort(found.fisher_information))
    pair = {"estimator": "direct", "angles": degrees, "unit": "deg", "delta": 45.0}
    assert estimate(responses, **pair).attrs["delta"] == pytest.approx(np.pi / 4)
    half = estimate(responses, angles=degrees / 2, estimator="smoothed", unit="deg", period=180)
    assert np.sort(half.fisher_information) == pytest.approx(4 * np.sort(found.fisher_information))
    with pytest.raises(ValueError, match=r"angles from 0 to 315 rad lie beyond two periods .*unit='deg'"):
        estimate(responses, angles=degrees, estimator="smoothed")
    labelled = xr.DataArray(responses, {"angle": ("trial", degrees / 60, {"units": "degrees"})}, ("trial", "unit"))
    with pytest.raises(ValueError, match="angles are labelled degrees: say unit='deg'"):
        estimate(labelled, estimator="smoothed")


def test_a_stimulus_on_a_line_has_its_own_unit():
    random = np.random.default_rng(0)
    places = random.uniform(0, 50, 2000)
    responses = np.stack([0.2 * places, 0.004 * places**2], 1) + random.normal(size=(2000, 2))
    found = estimate(responses, angles=places, estimator="smoothed", period=None, unit="cm", at=[10.0, 25.0, 40.0])
    truth = 0.04 + (0.008 * found.angle.values) ** 2
    assert found.fisher_information.values == pytest.approx(truth, rel=0.35)
    assert found.fisher_information.attrs["units"] == "cm-2"
    assert found.angle.attrs == {"units": "cm", "long_name": "stimulus"}


def test_one_angle_as_a_number_is_that_angle():
    responses, slopes = faces()
    for number in (1, 1.0, 0, 2):
        assert estimate(responses[:1], tangents=slopes[:1], angles=number).angle.values.tolist() == [number]


# ---- repeated angles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tangent", "smoothed", "direct", "decoded"])
def test_sessions_stacked_are_more_faces_of_the_same_angles(name):
    (first, slopes), (second, others) = faces(1), faces(2)
    mean = 3 * np.cos(grid(ANGLES)[:, None, None] - PREFERRED)
    both, along = [mean + first, mean + second], [slopes, others]
    if name == "decoded":
        each = [grid(ANGLES)[:, None] + 0.1 * one[..., 0] for one in (first, second)]
        stacked = estimate(estimates=np.concatenate(each), angles=np.tile(grid(ANGLES), 2), estimator=name)
        merged = estimate(estimates=np.concatenate(each, 1), angles=ANGLES, estimator=name)
    elif name == "direct":
        pairs = [np.stack([one, one + 0.1 * d], 1) for one, d in zip(both, along, strict=True)]
        stacked = estimate(np.concatenate(pairs), angles=np.tile(grid(ANGLES), 2), delta=0.1, estimator=name)
        merged = estimate(np.concatenate(pairs, 2), angles=ANGLES, delta=0.1, estimator=name)
    else:
        given = {"tangents": np.concatenate(along)} if name == "tangent" else {}
        stacked = estimate(np.concatenate(both), angles=np.tile(grid(ANGLES), 2), estimator=name, **given)
        given = {"tangents": np.concatenate(along, 1)} if name == "tangent" else {}
        merged = estimate(np.concatenate(both, 1), angles=ANGLES, estimator=name, **given)
    xr.testing.assert_allclose(stacked, merged)


@pytest.mark.parametrize("name", ["smoothed", "pooled", "direct"])
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8], ids=str)
def test_angles_that_differ_by_rounding_alone_are_one(name, scale):
    responses, angles = recording(repeats=60)
    given, turn = {}, 2 * np.pi
    if name == "smoothed":  # on a line in a unit of any size
        given, turn = {"period": None}, 2 * np.pi * scale
    if name == "direct":
        given = {"delta": 2 * np.pi / ANGLES}
    rng = np.random.default_rng(0)
    rounded = angles * turn / (2 * np.pi)
    exact = estimate(responses, angles=rounded, estimator=name, **given)
    rounded = rounded + rng.uniform(-1e-7, 1e-7, len(angles)) * turn / (2 * np.pi)
    if turn == 2 * np.pi:
        rounded = rounded.astype(np.float32)
    found = estimate(responses, angles=rounded, estimator=name, **given)
    assert np.allclose(found.fisher_information, exact.fisher_information, rtol=1e-4)
    if turn == 2 * np.pi and not given:
        around = estimate(responses, angles=angles - turn * rng.integers(2, size=len(angles)), estimator=name)
        assert np.allclose(np.sort(around.fisher_information), np.sort(exact.fisher_information))


def test_copies_of_trials_are_noticed_but_not_counts_that_agree_by_chance():
    responses, angles = recording(repeats=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate(responses, angles=angles, estimator="smoothed")
        few = np.random.default_rng(0).integers(3, size=(len(angles), 2))
        assert pd.DataFrame(few).duplicated(keep=False).all()
        estimate(few, angles=angles, estimator="smoothed")
    twice, at = np.concatenate([responses, responses]), np.concatenate([angles, angles])
    with pytest.warns(UserWarning, match=f"{len(twice)} trials are exact copies of others"):
        estimate(twice, angles=at, estimator="smoothed")
    table = np.random.default_rng(1).normal(size=(ANGLES, 20, 3))
    with pytest.warns(UserWarning, match="exact copies"):
        estimate(np.concatenate([table, table], 1), angles=ANGLES, estimator="smoothed")


def test_an_angle_that_closes_the_circle_is_the_first_one_again():
    responses, _ = faces()
    closed = np.linspace(-np.pi, np.pi, ANGLES + 1)
    mean = 3 * np.cos(closed[:, None, None] - PREFERRED)
    found = estimate(mean + np.concatenate([responses, responses[:1]]), angles=closed, estimator="smoothed")
    assert found.angle.values == pytest.approx(grid(ANGLES))


# ---- labels and masks ------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_any_permutation_of_labels_gives_the_same_numbers(seed):
    random = np.random.default_rng(seed)
    responses, slopes = faces()
    coords = {"angle": grid(ANGLES), "face": [f"f{j}" for j in range(FACES)], "unit": list("abc")}
    people = xr.DataArray(np.arange(FACES) // 2, {"face": coords["face"]}, ("face",))
    arrays = [xr.DataArray(values, coords, ("angle", "face", "unit")) for values in (responses, slopes)]

    def mixed(array):
        chosen = {dim: random.permutation(array.sizes[dim]) for dim in array.dims}
        return array.isel(chosen).transpose(*random.permutation(array.dims))

    plain = estimate(arrays[0], tangents=arrays[1], identity=people)
    turned = estimate(mixed(arrays[0]), tangents=mixed(arrays[1]), identity=mixed(people)).sortby("angle")
    xr.testing.assert_allclose(plain, turned)


def test_labels_that_do_not_match_are_named():
    responses, slopes = (xr.DataArray(v, {"face": np.arange(FACES)}, ("angle", "face", "unit")) for v in faces())
    with pytest.raises(
        ValueError, match=r"tangents and responses have different labels along face: .*\b0\b.* is in one only"
    ):
        estimate(responses, tangents=slopes.assign_coords(face=1 + np.arange(FACES)), angles=ANGLES)
    people = xr.DataArray(np.arange(FACES), {"face": np.arange(FACES) * 2}, ("face",))
    with pytest.raises(ValueError, match="identity and responses have different labels along face"):
        estimate(responses, tangents=slopes, angles=ANGLES, identity=people)
    with pytest.raises(ValueError, match="angles differ from the coordinate angle of responses"):
        estimate(responses.assign_coords(angle=grid(ANGLES)), tangents=slopes, angles=grid(ANGLES) + 0.1)


def test_dimensions_may_have_the_user_s_names_and_tables_have_labels():
    responses, angles = recording()
    plain = estimate(responses, angles=angles, estimator="smoothed")
    coords = {"orientation": ("rep", angles)}
    theirs = xr.DataArray(responses, coords, ("rep", "neuron")).T
    dims = {"trial": "rep", "unit": "neuron", "angle": "orientation"}
    xr.testing.assert_allclose(estimate(theirs, dims=dims, estimator="smoothed"), plain)
    table = pd.DataFrame(responses, columns=list("abc"))
    mixed = pd.Series(angles, name="shown").sample(frac=1, random_state=0)
    xr.testing.assert_allclose(estimate(table, angles=mixed, estimator="smoothed"), plain)


def test_masked_trials_are_left_out():
    responses, slopes = faces()
    wild = np.where(np.arange(FACES)[:, None] < 10, 1e3, responses)
    clean = estimate(responses[:, 10:], tangents=slopes[:, 10:], angles=ANGLES)
    masked = np.ma.masked_array(wild, wild == 1e3)
    xr.testing.assert_allclose(estimate(masked, tangents=slopes, angles=ANGLES), clean)
    some = np.ma.masked_array(responses, np.zeros(responses.shape, bool))
    some[2, 5] = np.ma.masked
    found = information(some, tangents=slopes, angles=ANGLES)
    keep = np.arange(FACES) != 5
    assert found[2] == pytest.approx(information(responses[2:3, keep], tangents=slopes[2:3, keep], angles=0.0)[0])
    assert found[3] == pytest.approx(information(responses, tangents=slopes, angles=ANGLES)[3])
    some[3, 6, 1] = np.ma.masked
    with pytest.raises(ValueError, match="masked in part"):
        estimate(some, tangents=slopes, angles=ANGLES)


@pytest.mark.parametrize("kind", [">f8", object, np.longdouble, "reversed", "bool", "f2"])
def test_numbers_of_any_kind_are_taken(kind):
    responses, slopes = faces()
    if kind == "bool":
        assert np.isfinite(information(responses > 0, tangents=slopes, angles=ANGLES)).all()
        trials, angles = recording()
        many = trials + np.random.default_rng(1).normal(0, 3, trials.shape) > 0
        found = [information(one, angles=angles, estimator="smoothed") for one in (many, torch.as_tensor(many))]
        assert np.array_equal(*found)
        return
    given = responses[::-1][::-1] if kind == "reversed" else responses.astype(kind)
    found = information(given, tangents=slopes, angles=ANGLES)
    assert found == pytest.approx(
        information(responses, tangents=slopes, angles=ANGLES), rel=1e-2 if kind == "f2" else 1e-9
    )


# ---- silent units and what is no tangent -----------------------------------------------------------------


def test_units_that_hardly_ever_speak_are_dropped_if_asked_and_named_if_not():
    responses, angles = recording()
    silent, single = np.zeros((len(angles), 1)), (np.arange(len(angles)) == 7)[:, None] * 1.0
    more = np.concatenate([responses, silent, single], 1)
    found = estimate(more, angles=angles, estimator="smoothed", units="drop")
    assert found.n_units == UNITS
    assert found.fisher_information.values == pytest.approx(information(responses, angles=angles, estimator="smoothed"))
    with pytest.raises(ValueError, match=r"1 of 4 units are constant .* units='drop'"):
        estimate(more[:, :4], angles=angles, estimator="smoothed")
    whole, slopes = faces()
    whole[:, :, 0] = 0
    whole[:, 3, 0] = 1.0
    with pytest.raises(ValueError, match="in one face or person alone"):
        estimate(whole, tangents=slopes, angles=ANGLES)
    assert estimate(whole, tangents=slopes, angles=ANGLES, units="drop").n_units == UNITS - 1
    with pytest.raises(ValueError, match="units='drop' leaves none"):
        estimate(whole[..., :1], tangents=slopes[..., :1], angles=ANGLES, units="drop")


def test_slopes_of_tuning_curves_are_no_tangents():
    responses, slopes = faces()
    with pytest.warns(UserWarning, match="tangents are the same for all trials.*estimator='smoothed'"):
        estimate(responses, tangents=np.ones_like(slopes), angles=ANGLES)


# ---- too few, too perfect --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, entry in ESTIMATORS.items() if entry.needs == "pair"])
def test_fewer_faces_than_the_table_says_are_warned_of_or_refused(name):
    faces = ESTIMATORS[name].least_faces(6) - 1
    pair = np.random.default_rng(0).normal(size=(2, 2, faces, 6))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            estimate(pair, angles=[0.0, 1.0], delta=0.2, design="independent", estimator=name)
        except ValueError as refusal:
            told = [refusal]
    assert any(re.search("too few for|units need", str(getattr(one, "message", one))) for one in told)


@pytest.mark.parametrize("name", ["discrimination", "nonlinear", "divergence"])
def test_what_is_never_confused_has_an_infinite_error(name):
    random = np.random.default_rng(0)
    pair = random.normal(size=(1, 2, 60, 2)) + np.array([-20, 20])[:, None, None]
    with pytest.warns(FewFaces, match=f"{name} never confused the two stimuli at 1 angles"):
        found = estimate(pair, angles=[0.0], delta=0.2, estimator=name)
    assert np.isinf(found.standard_error).all() and (found.fisher_information > 0).all()


def test_sparse_counts_have_no_core():
    counts = np.random.default_rng(0).poisson(0.1, size=(1, 2, 400, 3))
    with pytest.raises(ValueError, match="robust finds no core of these 400 faces: half of them or more agree"):
        estimate(counts, angles=[0.0], delta=0.3, design="independent", estimator="robust")


# ---- bad input -------------------------------------------------------------------------------------------

RESPONSES, SLOPES = faces()
TRIALS, SHOWN = recording()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"angles": [], "activity": RESPONSES[:0]}, r"responses are empty: \(angle, face, unit\) is \(0, 40, 3\)"),
        ({"angles": ANGLES, "activity": RESPONSES[..., :0]}, "responses are empty"),
        ({"angles": ANGLES, "estimator": []}, "estimator must be one or more of tangent"),
        ({"angles": ANGLES, "activity": RESPONSES.astype(str)[..., :1] + "x"}, "responses must be an array of numbers"),
        ({"angles": ANGLES, "identity": [None, *range(FACES - 1)]}, "label for every face, but 1 of 40 are missing"),
        ({"angles": ANGLES, "identity": ["", *"abc" * 13]}, "label for every face, but 1 of 40 are missing"),
        ({"angles": ANGLES, "identity": np.arange(FACES) > 3}, "labels of people, not a boolean choice"),
        ({"angles": ANGLES, "period": 3.0}, "period must be a turn"),
        ({"angles": ANGLES, "unit": "degree"}, "unit must be one of rad, deg, not 'degree'"),
        ({"angles": ["a"] * ANGLES}, "angles must be numbers"),
        ({"angles": ANGLES, "shuffled": True, "diagonal": True}, "two kinds of information"),
        ({"angles": ANGLES, "shuffled": True, "estimator": "gaussian"}, "must be one of tangent, direct, smoothed"),
        ({"angles": ANGLES, "units": "keep"}, "units must be one of drop"),
        (
            {"angles": np.linspace(0, 3, len(SHOWN)), "activity": TRIALS, "tangents": TRIALS},
            "two or more trials of the same angle, but 1 came at 0; smoothed takes trials of different angles",
        ),
        (
            {"angles": SHOWN, "activity": TRIALS, "tangents": None, "estimator": "direct", "delta": 0.1},
            r"no two of the 8 angles given are delta = 0\.1 apart",
        ),
        ({"activity": [RESPONSES[0], RESPONSES[1][:, :2]], "angles": 2}, "one .face, unit. array for each angle"),
        ({"activity": xr.Dataset({"rate": 1}), "angles": 2}, "must be an array, not a dataset: choose one of rate"),
        ({"angles": np.linspace(0, 2, 8), "estimator": "smoothed", "tangents": None}, "`period` says that a stimulus"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_a_sentence(given, message):
    given = {"activity": RESPONSES, "tangents": SLOPES, **given}
    with pytest.raises(ValueError, match=message):
        estimate(given.pop("activity"), **given)


def test_nan_is_counted_by_trials():
    responses = TRIALS.copy()
    responses[[3, 9], 1] = np.nan
    with pytest.raises(ValueError, match="responses have NaN or infinity in 2 of 320 trials: leave these out, or mask"):
        estimate(responses, angles=SHOWN, estimator="smoothed")


# ---- what was a number, and a wrong one ------------------------------------------------------------------


def test_a_unit_that_is_silent_at_one_angle_is_refused_or_told_or_left_out():
    responses, angles = recording()
    responses[np.isclose(angles, angles[0]), 1] = 0
    with pytest.raises(ValueError, match=r"1 of 3 units are constant over faces at some angle .*unit 1.*units='drop'"):
        estimate(responses, angles=angles, estimator="smoothed")
    with pytest.warns(UserWarning, match=r"1 of 3 units are constant at some angle .the first is unit 1.: 'pooled'"):
        estimate(responses, angles=angles, estimator="pooled")
    for name in ("smoothed", "pooled"):
        found = estimate(responses, angles=angles, estimator=name, units="drop")
        alone = estimate(responses[:, [0, 2]], angles=angles, estimator=name)
        np.testing.assert_allclose(found.fisher_information, alone.fisher_information)


@given(offset=st.sampled_from([-1e8, -1e3, 1e3, 1e8]), name=st.sampled_from(["smoothed", "direct"]))
@settings(max_examples=8)
def test_a_baseline_changes_nothing(offset, name):
    responses, angles = recording()
    extra = {"delta": np.pi / 4} if name == "direct" else {}
    plain, lifted = (information(r, angles=angles, estimator=name, **extra) for r in (responses, responses + offset))
    np.testing.assert_allclose(lifted, plain, rtol=1e-4)


def test_one_unit_is_pooled_as_it_is_smoothed():
    responses, angles = recording(repeats=90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = information(responses[:, :1], angles=angles, estimator="pooled")
    assert found.mean() == pytest.approx(4.5, rel=0.15)


@pytest.mark.parametrize("twice", [lambda r: r[:, 0], lambda r: 2 * r[:, 0] - r[:, 2]])
@pytest.mark.parametrize("name", ["smoothed", "pooled", "direct"])
def test_units_that_are_others_again_have_no_covariance(name, twice):
    responses, angles = recording()
    extra = {"delta": np.pi / 4} if name == "direct" else {}
    with pytest.raises(ValueError, match=r"covariance of 4 units over .* is singular"):
        estimate(np.column_stack([responses, twice(responses)]), angles=angles, estimator=name, **extra)


@pytest.mark.parametrize("name", [n for n, entry in ESTIMATORS.items() if entry.needs == "pair"])
def test_two_sides_that_are_the_same_have_no_interval_of_width_zero(name):
    side = np.random.default_rng(0).normal(size=(1, 1, 80, 2))
    with pytest.raises(ValueError, match="both sides are the very same responses at 1 of 1 angles"):
        estimate(side.repeat(2, 1), angles=[0.0], delta=0.1, estimator=name)


@given(st.floats(0.5, 3))
@settings(max_examples=5)
def test_two_stimuli_half_a_period_apart_or_more_are_refused(periods):
    responses, angles = recording(period=np.pi)
    with pytest.raises(ValueError, match=r"delta must be less than half a period, 1\.571 rad"):
        estimate(responses, angles=angles, estimator="direct", delta=periods * np.pi, period=np.pi)


def test_masked_angles_and_reports_in_degrees_are_refused():
    responses, angles = recording()
    some = np.ma.masked_array(angles, np.arange(len(angles)) < 9)
    with pytest.raises(ValueError, match="angles are masked in 9 of 320 places: leave these out, and their trials"):
        estimate(responses, angles=some, estimator="smoothed")
    reported = (angles + 0.2 * responses[:, 0] + np.pi) % (2 * np.pi) - np.pi
    with pytest.raises(ValueError, match=r"estimates of up to .* lie beyond two periods .* unit='deg' where both are"):
        estimate(estimates=np.rad2deg(reported), angles=angles, estimator="decoded")
    degrees = {"estimates": np.rad2deg(reported), "angles": np.rad2deg(angles), "unit": "deg"}
    np.testing.assert_allclose(
        information(**degrees, estimator="decoded"), information(estimates=reported, angles=angles, estimator="decoded")
    )


def test_far_stimuli_are_refused_by_nonlinear_in_our_words():
    far = np.stack([np.zeros((40, 2)), np.ones((40, 2))]) + 1e-3 * np.random.default_rng(0).normal(size=(2, 40, 2))
    with pytest.raises(ValueError, match=r"nonlinear finds next to no variance .*smaller delta"):
        estimate(far[None], angles=[0.0], delta=0.1, design="independent", estimator="nonlinear")


@pytest.mark.parametrize("entry", ["table", "array", "array of equal faces"])
def test_labels_hold_in_lists_too(entry):
    lists = [rows[: FACES if entry == "array of equal faces" else 20 + 2 * k] for k, rows in enumerate(faces()[0])]
    orders = [[0, 1, 2] if k % 2 else [2, 0, 1] for k in range(ANGLES)]
    if entry == "table":
        other = [pd.DataFrame(rows, columns=list("abc")).iloc[:, o] for rows, o in zip(lists, orders, strict=True)]
    else:
        named = (xr.DataArray(rows, {"unit": list("abc")}, ("face", "unit")) for rows in lists)
        other = [rows.T[o] for rows, o in zip(named, orders, strict=True)]
    assert information(other, angles=ANGLES, estimator="smoothed") == pytest.approx(
        information(lists, angles=ANGLES, estimator="smoothed")
    )
    wrong = other[1].set_axis(list("xyz"), axis=1) if entry == "table" else other[1].assign_coords(unit=list("xyz"))
    with pytest.raises(ValueError, match="one of responses and the first have different labels along unit"):
        estimate([other[0], wrong], angles=[0.0, 1.0], estimator="smoothed")


@pytest.mark.parametrize("what", ["angles", "identity", "tangents"])
def test_lists_of_other_lengths_are_no_company_to_trials(what):
    responses = faces()[0]
    lists, others = ([rows[: 30 + sign * k] for k, rows in enumerate(responses[1:], -3)] for sign in (1, -1))
    labels = {"angles": grid(7), "identity": [np.arange(len(rows)) for rows in lists]}
    wrong = others if what == "tangents" else [np.zeros(len(rows)) for rows in others]
    with pytest.raises(ValueError, match=r"\[(33|27), .*\[(33|27), "):
        estimate(lists, **{**labels, what: wrong}, estimator="tangent" if what == "tangents" else "smoothed")


def test_where_all_is_masked_nothing_is_estimated():
    responses, angles = recording()
    with pytest.raises(ValueError, match="all 320 trials are masked: none is left"):
        estimate(np.ma.masked_all_like(responses), angles=angles, estimator="smoothed")
    with pytest.raises(ValueError, match="all 40 trials are masked: none is left"):
        estimate(np.ma.masked_all_like(faces()[0]), angles=ANGLES, estimator="smoothed")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"angles": 1j * np.ones(320)}, "angles must be numbers, not complex128"),
        ({"angles": np.ones(320, "m8[s]")}, r"angles must be numbers, not timedelta64\[s\]"),
        ({"activity": np.ones((320, 3), "m8[s]")}, r"responses must be real numbers, not timedelta64\[s\]"),
        ({"activity": torch.ones(320, 3).to_sparse()}, "responses must be real numbers, not .*sparse_coo on cpu"),
        ({"activity": torch.ones(320, 3, device="meta")}, "responses must be real numbers, not .* on meta"),
        ({"angles": torch.ones(320, device="meta")}, "a tensor must be dense and hold numbers, not .* on meta"),
        ({"activity": torch.full((320, 3), torch.nan)}, "responses have NaN or infinity in 320 of 320 trials"),
        ({"at": []}, "at must be finite numbers in radians, one or more"),
        ({"at": "x", "period": None}, "at must be numbers, not <U1"),
        ({"dims": "trial"}, "dims must map angle, trial, unit, side or replicate"),
        ({"estimator": 3}, "estimator must be one of .*, not 3"),
        ({"period": "pi"}, "period must be a number above 0, not 'pi'"),
        ({"symmetry": np.nan}, "symmetry must be a whole number of at least 1, not nan"),
        ({"estimator": "direct", "delta": [0.1]}, r"delta must be a number above 0, not \[0\.1\]"),
        ({"activity": xr.DataArray(np.ones((320, 3)), {"angle": ("face", np.ones(320), {"units": " Degrees"})},
          ("face", "unit")), "angles": None}, "angles are labelled  Degrees: say unit='deg'"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_told_in_our_words(given, message):
    responses, angles = recording()
    given = {"activity": responses, "angles": angles, "estimator": "smoothed"} | given
    with pytest.raises(ValueError, match=message):
        estimate(given.pop("activity"), **given)


def test_short_floats_of_torch_are_numbers():
    responses, angles = recording()
    short = torch.as_tensor(responses).bfloat16()
    found = information(short, angles=torch.as_tensor(angles).double(), estimator="smoothed")
    assert (found == information(short.double().numpy(), angles=angles, estimator="smoothed")).all()


@pytest.mark.parametrize("at", [[10.0], [-3.3, 0.0]])
def test_nothing_is_said_of_places_beyond_those_shown_on_a_line(at):
    responses, angles = recording()
    with pytest.raises(ValueError, match=r"at must lie among the places shown, -3\.142 to 2\.356"):
        estimate(responses, angles=angles, period=None, estimator="smoothed", at=at)
    ends = [angles.min(), angles.max()]
    assert estimate(responses, angles=angles, period=None, estimator="smoothed", at=ends).sizes["angle"] == 2


def test_influences_are_known_by_the_labels_of_faces():
    responses, slopes = (
        xr.DataArray(v, {"face": [f"f{j}" for j in range(FACES)]}, ("angle", "face", "unit")) for v in faces()
    )
    one, two = (
        estimate(shown, tangents=slopes, angles=ANGLES, influence=True) for shown in (responses, responses[:, ::-1])
    )
    assert one.person.values.tolist() == responses.face.values.tolist() == two.person.values.tolist()[::-1]
    assert np.abs(intervals.difference(one, two).standard_error).max() < 1e-9
    both = (v.assign_coords(face=[f"g{j}" for j in range(FACES)]) for v in (responses, slopes))
    other = estimate(next(both), tangents=next(both), angles=ANGLES, influence=True)
    with pytest.raises(ValueError, match="first and second have different labels along person"):
        intervals.difference(one, other)


def test_people_of_replicates_align_by_label():
    values, slopes = (
        xr.DataArray(np.stack([v, v[:, ::-1]]), {"replicate": [10, 20]}, ("replicate", "angle", "face", "unit"))
        for v in faces()
    )
    people = xr.DataArray([np.arange(FACES), np.arange(FACES) // 2], {"replicate": [10, 20]}, ("replicate", "face"))
    found, again = (
        estimate(values, tangents=slopes, angles=ANGLES, identity=who)
        for who in (people, people.isel(replicate=[1, 0]))
    )
    xr.testing.assert_identical(found, again)
    with pytest.raises(ValueError, match="identity and responses have different labels along replicate"):
        estimate(values, tangents=slopes, angles=ANGLES, identity=people.assign_coords(replicate=[10, 30]))


@pytest.mark.parametrize("unit", ["deg", "cm"])
def test_a_line_has_one_unit_whatever_it_is_called(unit):
    pair = np.random.default_rng(0).normal(size=(3, 2, 100, 3)) + np.array([0, 1.0])[:, None, None]
    how = {"angles": [10.0, 20, 30], "delta": 10.0, "period": None, "estimator": "direct"}
    found = estimate(pair, unit=unit, **how)
    assert found.fisher_information.values == pytest.approx(estimate(pair, **how).fisher_information.values)
    assert found.attrs["delta"] == 10 and found.fisher_information.units == f"{unit}-2"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"angles": np.array([True, False, True])}, "must be numbers, not a boolean choice"),
        ({"period": None, "symmetry": 1}, "symmetry is a circle's"),
        *(
            ({"angles": xr.DataArray([0.1, 0.2, 0.3], dims="angle", attrs={"units": units})}, said)
            for units, said in (
                ("degrees_true", "say unit='deg'"),
                ("arc_degree", "say unit='deg'"),
                ("turns", "convert"),
            )
        ),
    ],
)
def test_angles_of_another_kind_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        estimate(np.random.default_rng(0).normal(size=(3, 40, 2)), **{"angles": 3, "estimator": "smoothed"} | given)


@pytest.mark.parametrize("turned", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_arcs_with_equal_gaps_between_them_are_told_apart_however_the_circle_is_turned(turned, sign):
    angles = np.deg2rad([-20.0, -10, 0, 10, 20, 160, 170, 180, 190, 200])
    reports = angles[:, None] + 0.5 * np.sin(angles)[:, None] + 0.15 * np.random.default_rng(0).normal(size=(10, 400))
    found = estimate(estimates=sign * reports + turned, angles=sign * angles + turned, estimator="decoded")
    plain = estimate(estimates=reports, angles=angles, estimator="decoded")
    assert found.fisher_information.values == pytest.approx(plain.fisher_information.values, rel=1e-6)
    truth = (1 + 0.5 * np.cos(angles)) ** 2 / 0.15**2
    assert plain.fisher_information.values == pytest.approx(truth, rel=0.35)
