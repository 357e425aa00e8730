"""Fisher information as a labelled dataset from anybody's activity."""

import re
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import xarray as xr

from fisherbook import results
from fisherbook.angles import grid
from fisherbook.fisher import kernels
from fisherbook.fisher.calibration import curved_code, gaussian_code, poisson_code, simulate
from fisherbook.fisher.estimate import ESTIMATORS, FewFaces, estimate

ANGLES, FACES, UNITS = 6, 60, 3
PAIRED = [name for name, entry in ESTIMATORS.items() if entry.needs == "pair"]


def activity(seed=0, replicates=None):
    """Responses and tangents ((replicate,) angle, face, unit) of a code with some information."""
    random = np.random.default_rng(seed)
    shape = (*([replicates] if replicates else []), ANGLES, FACES, UNITS)
    return random.normal(size=shape), 2 + random.normal(size=shape)


def test_the_table_of_estimators_says_what_each_needs_and_promises():
    assert list(ESTIMATORS) == [
        "tangent", "gaussian", "direct", "robust", "smoothed", "pooled", "discrimination", "nonlinear", "decoded",
        "divergence",
    ]  # fmt: skip
    for name, entry in ESTIMATORS.items():
        assert "\n" not in entry.description, name
        assert entry.needs in ("tangents", "curve", "trials", "pair", "estimates")
        assert entry.target in ("linear", "full", "decoded")
        assert entry.bound in ("below", "unbiased", "may exceed")
        assert entry.least_faces(20) > entry.least_faces(1) or name == "decoded"
        assert "Notes" in entry.function.__doc__ or "Returns" in entry.function.__doc__


def test_the_result_is_labelled_and_obeys_the_schema():
    responses, slopes = activity(replicates=2)
    found = estimate(responses, tangents=slopes, angles=ANGLES, identity=np.arange(FACES) // 2)
    assert found.fisher_information.dims == ("replicate", "angle")
    assert found.fisher_information.attrs["units"] == "rad-2"
    assert found.angle.values == pytest.approx(grid(ANGLES))
    assert int(found.n_faces) == FACES
    assert int(found.n_units) == UNITS
    assert (found.degrees_of_freedom == 29).all()
    assert found.estimator.item() == "tangent"
    results.validate(found.drop_vars("estimator"))


def test_it_is_the_kernel_that_estimates():
    responses, slopes = activity()
    found = estimate(responses, tangents=slopes, angles=ANGLES)
    expected = kernels.tangent(torch.as_tensor(responses), torch.as_tensor(slopes))
    assert found.fisher_information.dims == ("angle",)
    assert found.fisher_information.values == pytest.approx(expected.information.numpy())
    assert found.plugin_information.values == pytest.approx(expected.plugin.numpy())
    assert found.standard_error.values == pytest.approx(expected.standard_error.numpy())


@pytest.mark.parametrize("kind", ["torch", "float32", "xarray", "list"])
def test_arrays_of_every_kind_give_the_same_result(kind):
    responses, slopes = activity()
    plain = estimate(responses, tangents=slopes, angles=ANGLES)

    def of_kind(values):
        if kind == "torch":
            return torch.tensor(values, requires_grad=True)
        if kind == "float32":
            return values.astype(np.float32)
        if kind == "list":
            return values.tolist()
        coords = {"angle": grid(ANGLES)}
        return xr.DataArray(values, coords, ("angle", "face", "unit")).transpose("unit", "angle", "face")

    angles = {} if kind == "xarray" else {"angles": grid(ANGLES)}
    found = estimate(of_kind(responses), tangents=of_kind(slopes), **angles)
    rtol = 1e-5 if kind == "float32" else 1e-9
    xr.testing.assert_allclose(found, plain, rtol=rtol)


def test_a_list_of_estimators_becomes_a_dimension():
    responses, slopes = activity()
    found = estimate(responses, tangents=slopes, angles=ANGLES, estimator=["tangent", "gaussian"])
    assert found.fisher_information.dims == ("estimator", "angle")
    assert list(found.estimator.values) == ["tangent", "gaussian"]
    alone = estimate(responses, tangents=slopes, angles=ANGLES)
    assert found.fisher_information.sel(estimator="tangent").values == pytest.approx(alone.fisher_information.values)
    results.validate(found)


def test_tangent_and_smoothed_share_their_responses():
    found = estimate(*activity()[:1], tangents=activity()[1], angles=ANGLES, estimator=["tangent", "smoothed"])
    assert found.sizes["estimator"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("design", [None, "paired", "independent"])
def test_pairs_come_as_sides(name, design):
    responses, slopes = activity()
    pair = np.stack([responses - 0.2 * slopes, responses + 0.2 * slopes], 1)[:2]
    few = pytest.warns(FewFaces, match="60 faces are too few for robust, .* below 80 for 3 units")
    with few if name == "robust" else nullcontext():
        found = estimate(pair, angles=[0.0, 1.0], delta=0.4, design=design, estimator=name)
    entry = ESTIMATORS[name].function(torch.as_tensor(pair), 0.4, design=design or "paired")
    assert found.fisher_information.values == pytest.approx(entry.information.numpy())
    assert found.attrs["delta"] == 0.4


def test_decoded_takes_estimates_and_finds_their_slope_from_the_neighbours():
    random = np.random.default_rng(1)
    angles, own = grid(48), random.normal(size=200)
    true_slope = 1 + 0.3 * np.cos(angles)
    estimates = angles[:, None] + 0.3 * np.sin(angles)[:, None] + 0.1 * own
    estimates = (estimates + np.pi) % (2 * np.pi) - np.pi
    found = estimate(estimates=estimates, angles=angles, estimator="decoded")
    assert found.fisher_information.values == pytest.approx(true_slope**2 / 0.01, rel=0.3)
    order = random.permutation(48)
    shuffled = estimate(estimates=estimates[order], angles=angles[order], estimator="decoded")
    assert shuffled.fisher_information.values == pytest.approx(found.fisher_information.values[order])
    given = estimate(
        estimates=estimates, tangents=np.repeat(true_slope[:, None], 200, 1), angles=angles, estimator="decoded"
    )
    assert given.fisher_information.values == pytest.approx(found.fisher_information.values, rel=0.02)
    assert {"large_error_share", "fisher_information_without_large_errors"} <= set(found)
    arc = estimate(estimates=estimates[10:20], angles=angles[10:20], estimator="decoded")
    assert arc.fisher_information.values[1:-1] == pytest.approx(found.fisher_information.values[11:19])


@pytest.mark.slow
def test_an_activity_gives_every_estimator_what_it_needs():
    drawn = simulate(curved_code(), 8, 120, replicates=2, faces_per_person=4, correlation=0.3)
    names = [name for name in ESTIMATORS if name != "pooled"]  # it needs other trials at every angle
    found = estimate(drawn, estimator=names, delta=0.3)
    assert found.fisher_information.dims == ("estimator", "replicate", "angle")
    assert found.attrs["code"] == "curved"
    assert (found.n_faces == 120).all()
    assert found.n_units.values.tolist() == [1 if name == "decoded" else 2 for name in names]
    mean = found.fisher_information.mean(["replicate", "angle"])
    assert mean.values == pytest.approx(np.full(len(names), 11.0), rel=0.35)
    results.validate(found)


def test_an_activity_is_estimated_in_chunks_as_in_one_piece():
    drawn = simulate(gaussian_code(4), 5, 50, replicates=3)  # comes angle by angle
    pieces = [piece[1:] for piece in drawn.chunks()]
    whole = [torch.cat(side, 1) for side in zip(*pieces, strict=True)]
    in_pieces = estimate(drawn)
    at_once = estimate(whole[0], tangents=whole[1], angles=5)
    assert in_pieces.fisher_information.values == pytest.approx(at_once.fisher_information.values)


def test_large_arrays_are_worked_on_in_chunks(monkeypatch):
    monkeypatch.setattr("fisherbook.fisher.arrays._CHUNK", FACES * UNITS)
    calls = []
    entry = ESTIMATORS["tangent"]

    def counted(*args, **options):
        calls.append(args[0].shape)
        return entry.function(*args, **options)

    monkeypatch.setitem(ESTIMATORS, "tangent", type(entry)(counted, *list(vars(entry).values())[1:]))
    responses, slopes = activity()
    found = estimate(responses, tangents=slopes, angles=ANGLES)
    assert calls == [(1, 1, FACES, UNITS)] * ANGLES
    assert found.sizes["angle"] == ANGLES


def test_replicates_may_have_people_of_their_own():
    responses, slopes = activity(replicates=2)
    same = np.stack([np.arange(FACES) // 3, 100 + np.arange(FACES) // 3])
    other = np.stack([np.arange(FACES) // 3, np.arange(FACES) % 20])
    for identity in (same, other):
        found = estimate(responses, tangents=slopes, angles=ANGLES, identity=identity, influence=True)
        for r in range(2):
            alone = estimate(responses[r], tangents=slopes[r], angles=ANGLES, identity=identity[r])
            expected = alone.standard_error.values
            assert found.standard_error.values[r] == pytest.approx(expected)


def test_the_influence_of_people_is_kept_on_request():
    responses, slopes = activity()
    found = estimate(responses, tangents=slopes, angles=ANGLES, identity=np.arange(FACES) // 2, influence=True)
    assert found.influence.dims == ("angle", "person")
    assert ((found.influence**2).sum("person") <= found.standard_error**2 * 1.5).all()
    assert "influence" not in estimate(responses, tangents=slopes, angles=ANGLES)


# ---- bad input -------------------------------------------------------------------------------------------

RESPONSES, SLOPES = activity()
FLAT = np.zeros((ANGLES, FACES))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"estimator": "tangnet"}, "estimator must be one of tangent, .* not 'tangnet'; did you mean 'tangent'?"),
        (
            {"angles": 6},
            "'tangent' needs responses (angle, face, unit), tangents .*; tangents is missing here; smoothed and",
        ),
        ({"tangents": SLOPES}, "angles is missing here"),
        ({"tangents": SLOPES, "angles": 6, "delta": 0.1}, "delta is surplus here"),
        ({"tangents": SLOPES, "angles": 6, "delta": 0.1, "design": "paired"}, "delta and design are surplus here"),
        ({"tangents": SLOPES, "angles": 6, "estimates": FLAT}, "estimates is surplus here"),
        (
            {"estimator": "direct", "angles": 6},
            "'direct' needs responses (angle, side, face, unit) .*; delta is missing",
        ),
        ({"estimator": "direct", "angles": 6, "delta": 0.1}, r"dimensions \(replicate, angle, side, face, unit\)"),
        (
            {"estimator": "decoded", "angles": 6},
            "'decoded' needs estimates (angle, face) .*; estimates is missing here",
        ),
        (
            {"tangents": SLOPES, "angles": 6, "estimator": ["tangent", "direct"]},
            "need different arrays: .*once for each",
        ),
        ({"tangents": SLOPES, "angles": 7}, "angles has 7, the angle dimension of responses has 6"),
        ({"tangents": SLOPES[:5], "angles": 6}, r"tangents must have the shape of the responses, \(1, 6, 60, 3\)"),
        ({"tangents": SLOPES, "angles": 6, "identity": np.arange(5)}, r"one label per face, \(60,\), not shape \(5,\)"),
        ({"tangents": SLOPES * np.nan, "angles": 6}, "activity must be finite"),
    ],
)
def test_bad_input_is_told_in_a_sentence(given, message):
    pattern = message if "\\" in message else re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(ValueError, match=pattern):
        estimate(RESPONSES, **given)


def test_more_bad_input_is_told_in_a_sentence():
    pair = np.stack([RESPONSES, RESPONSES + 1], 1)
    with pytest.raises(ValueError, match="delta must be a number above 0"):
        estimate(pair, angles=6, delta=-0.1, estimator="direct")
    with pytest.raises(
        ValueError, match="design must be one of paired, independent, not 'pared'; did you mean 'paired'"
    ):
        estimate(pair, angles=6, delta=0.1, design="pared", estimator="direct")
    with pytest.raises(ValueError, match=r"two sides, theta -/\+ delta / 2, not 3"):
        estimate(np.repeat(RESPONSES[:, None], 3, 1), angles=6, delta=0.1, estimator="direct")
    with pytest.raises(ValueError, match="2 angles give no derivative of estimates: 3, or tangents, are needed"):
        estimate(estimates=FLAT[:2], angles=2, estimator="decoded")
    with pytest.raises(ValueError, match=r"responses must be real numbers, not complex128"):
        estimate(RESPONSES * 1j, tangents=SLOPES, angles=6)
    with pytest.raises(
        ValueError, match=r"must have the dimensions \('angle', 'face', 'unit'\), not \('a', 'b', 'c'\)"
    ):
        estimate(xr.DataArray(RESPONSES, dims=("a", "b", "c")), tangents=SLOPES, angles=6)


def test_an_activity_brings_its_own_angles_and_derivatives():
    drawn = simulate(gaussian_code(3), 4, 60)
    with pytest.raises(ValueError, match=r"angles is surplus here \(a recorded activity brings the rest itself\)"):
        estimate(drawn, angles=4)
    with pytest.raises(ValueError, match="delta is missing"):
        estimate(drawn, estimator="direct")
    with pytest.raises(ValueError, match="a gaussian code has no decoder"):
        estimate(drawn, estimator="decoded")
    with pytest.raises(ValueError, match="single responses of a poisson code have no derivative"):
        estimate(simulate(poisson_code(3), 4, 60))


@pytest.mark.parametrize(
    ("faces", "each", "message"), [(60, 6, "10 people are few"), (24, 1, "2.3 effective faces per unit are few")]
)
def test_few_faces_are_warned_of_once_per_call(faces, each, message):
    drawn = simulate(gaussian_code(10), 5, faces, replicates=2, faces_per_person=each)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        estimate(drawn, estimator=["tangent", "gaussian"])
    assert [w.category for w in told] == [FewFaces]
    assert message in str(told[0].message)
    assert told[0].filename == __file__


def test_replicates_with_unequal_numbers_of_people_are_each_as_if_alone():
    responses, slopes = activity(replicates=2)
    people = np.stack([np.arange(FACES) // 2, np.arange(FACES) // 3])
    both = estimate(responses, tangents=slopes, angles=ANGLES, identity=people, influence=True)
    for r in range(2):
        alone = estimate(responses[r], tangents=slopes[r], angles=ANGLES, identity=people[r], influence=True)
        count = alone.sizes["person"]
        assert np.allclose(both.influence.isel(replicate=r, person=slice(count)), alone.influence)
        assert (both.influence.isel(replicate=r, person=slice(count, None)) == 0).all()
        assert np.allclose(both.standard_error.isel(replicate=r), alone.standard_error)
