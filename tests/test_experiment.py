import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import fisherbook as fb
from fisherbook import experiment, results
from fisherbook.store import Store

NETWORK = fb.Network(hidden=(12, 6))
STAGES = [
    fb.Stage("uniform", fb.uniform(), steps=30, batch=8),
    fb.Stage("focused", fb.von_mises(1.0, 3.0), steps=10, batch=8),
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*people are few", "ignore:.*effective faces per unit"),
]


@pytest.fixture(scope="module")
def stimulus():
    return fb.Stimulus(fb.load_faces("orl", size=16, folds=4))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def measure(stimulus, store, network=NETWORK, stages=STAGES, replicates=2, **options):
    options = {"angles": 12, "store": store, "progress": False} | options
    return fb.measure(stimulus, network, stages, replicates, **options)


def test_a_measurement_is_a_valid_labelled_dataset_with_the_untrained_network_first(stimulus, store):
    fisher = measure(stimulus, store, estimators=["tangent", "direct", "gaussian", "decoded"])
    results.validate(fisher)
    information = fisher.fisher_information
    assert information.dims == ("stage", "replicate", "split", "layer", "estimator", "angle")
    assert information.shape == (3, 2, 2, 1, 4, 12)
    assert fisher.stage.values.tolist() == ["initial", "uniform", "focused"]
    assert information.notnull().all() and fisher.standard_error.min() > 0
    assert fisher.n_faces == 120  # as many of the 280 training faces as are held out
    assert np.allclose(fisher.log_fisher, 0.5 * np.log(fisher.plugin_information.sel(estimator="tangent")))
    assert fisher.training_loss.dims == ("replicate", "step") and len(fisher.step) == 40
    assert fisher.stage_of_step.values.tolist() == ["uniform"] * 30 + ["focused"] * 10
    assert fisher.stimulus_density.sel(stage="initial").isnull().all()
    assert np.allclose(fisher.stimulus_density.sel(stage="focused"), fb.von_mises(1.0, 3.0).pdf(fisher.angle))
    assert json.loads(fisher.parameters)["delta"] == 0.05 and fisher.data_source == "orl"


def test_what_was_measured_is_what_the_pieces_give_by_hand(stimulus, store):
    fisher = measure(stimulus, store)
    ensemble = fb.train(stimulus, NETWORK, STAGES, 2, store=store, progress=False)
    activity = fb.record(ensemble, stimulus, 12, split="test", stage="uniform")
    by_hand = fb.estimate(activity.responses(), angles=12, tangents=activity.whole()[1], identity=activity.identity)
    measured = fisher.sel(stage="uniform", split="test", layer="output", estimator="tangent")
    assert np.allclose(measured.fisher_information, by_hand.fisher_information, rtol=1e-10)
    assert np.allclose(measured.standard_error, by_hand.standard_error, rtol=1e-10)


def test_the_reported_angle_has_a_bias_an_error_and_a_density(stimulus, store):
    fisher = measure(stimulus, store, angles=36)
    assert (fisher.rmse >= abs(fisher.bias) * 0.5).all()
    assert (fisher.rmse >= fisher.mean_absolute_error).all() and (fisher.mean_absolute_error > 0).all()
    mass = fisher.encoded_density.sum("angle") * 2 * np.pi / 36
    assert np.allclose(mass, 1, atol=0.02)


def test_asked_twice_nothing_is_computed_again_and_more_replicates_compute_only_theirs(stimulus, store, monkeypatch):
    first = measure(stimulus, store)
    asked = []
    original = experiment._measure_stage

    def watched(what, ensemble, stimulus, stage, replicate_of, memory, missing):
        asked.append([replicate_of[key] for key in missing])
        return original(what, ensemble, stimulus, stage, replicate_of, memory, missing)

    monkeypatch.setattr(experiment, "_measure_stage", watched)
    again = measure(stimulus, store)
    assert not asked
    xr.testing.assert_equal(first, again)
    more = measure(stimulus, store, replicates=3)
    assert asked == [[2]] * 3
    xr.testing.assert_allclose(more.fisher_information.sel(replicate=[0, 1]), first.fisher_information)


def test_hidden_layers_are_measured_beside_the_output_and_have_nothing_to_decode(stimulus, store):
    fisher = measure(stimulus, store, layers=["hidden2", "output"], estimators=["tangent", "decoded"])
    found = fisher.fisher_information.sel(stage="uniform")
    assert found.sel(layer="hidden2", estimator="tangent").notnull().all()
    assert found.sel(layer="hidden2", estimator="decoded").isnull().all()


def test_a_replicate_that_failed_is_missing_and_the_others_are_there(stimulus, tmp_path, monkeypatch):
    from fisherbook.network import training

    original = training._Run.initialise
    poison = lambda self, r: {n: t * torch.nan if r == 1 else t for n, t in original(self, r).items()}  # noqa: E731
    monkeypatch.setattr(training._Run, "initialise", poison)
    with pytest.warns(RuntimeWarning, match="replicate 1 is not finite"):
        fisher = measure(stimulus, Store(tmp_path), replicates=3)
    assert fisher.fisher_information.sel(replicate=1).isnull().all()
    assert fisher.fisher_information.sel(replicate=[0, 2]).notnull().all()


def test_the_linear_readout_is_measured_on_its_support_only(stimulus, store):
    stages = [fb.Stage("half", fb.uniform(-1.5, 1.5), loss="square", steps=20)]
    fisher = measure(stimulus, store, replace(NETWORK, readout="linear"), stages)
    missing = fisher.fisher_information.isnull().all(("replicate", "split", "layer", "estimator"))
    outside = abs(fisher.angle) > 1.5
    assert (missing == outside).all()
    found = measure(stimulus, store, replace(NETWORK, readout="linear"), stages, lags=[0.5]).structure_function
    assert "angle" not in found.dims and found.isnull().all()


def test_a_sweep_adds_a_dimension_per_key(stimulus, store):
    def condition(nonlinearity, kappa):
        stages = [fb.Stage("focused", fb.von_mises(0, kappa), steps=10)]
        return measure(stimulus, store, replace(NETWORK, nonlinearity=nonlinearity), stages)

    grid = {"nonlinearity": ["relu", "celu"], "kappa": [3.0, 1.0]}
    both = fb.sweep(condition, grid)
    assert both.nonlinearity.values.tolist() == ["relu", "celu"] and both.kappa.values.tolist() == [3.0, 1.0]
    assert both.kappa.attrs == dict(zip(("units", "long_name"), results.DIMENSIONS["kappa"], strict=True))
    alone = condition("celu", 3.0)
    swept = both.sel(nonlinearity="celu", kappa=3.0)
    xr.testing.assert_allclose(swept.fisher_information.drop_vars(["nonlinearity", "kappa"]), alone.fisher_information)


def test_gratings_are_measured_on_twice_their_orientation(store):
    gratings = fb.Stimulus(fb.load_faces("gratings", size=16, limit=300))
    fisher = measure(gratings, store, stages=[fb.Stage("uniform", fb.uniform(), steps=300)], splits=["test"])
    trained = fisher.sel(stage="uniform", split="test")
    assert trained.rmse.mean() < fisher.sel(stage="initial", split="test").rmse.mean()
    assert trained.rmse.max() < np.pi / 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"estimators": ["tangents"]}, "estimators must be one of .* did you mean 'tangent'"),
        ({"splits": ["tests"]}, "splits must be one of train, test, not 'tests'; did you mean 'test'"),
        ({"layers": ["hidden3"]}, "layers must be one of hidden1, hidden2, output, not 'hidden3'"),
        ({"angles": [0.1, 0.1]}, "angles must rise on"),
        ({"angles": [0.1, np.pi]}, "angles must rise on"),
        ({"delta": 0}, "delta must be a number above 0"),
        ({"memory": "1 gigabyte"}, "memory must be like '1 GiB'"),
    ],
)
def test_a_bad_measurement_meets_one_sentence(stimulus, store, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        measure(stimulus, store, **options)


def test_an_empty_grid_meets_one_sentence():
    with pytest.raises(ValueError, match="grid must name at least one parameter"):
        fb.sweep(lambda: None, {})


def test_the_logarithm_alone_is_measured_without_estimators(stimulus, store):
    alone = measure(stimulus, store, estimators=[])
    assert "fisher_information" not in alone and alone.log_fisher.notnull().all()
    assert np.allclose(alone.log_fisher, measure(stimulus, store).log_fisher)


def test_halves_of_the_people_are_disjoint_sets_beside_all(stimulus, store):
    found = measure(stimulus, store, estimators=[], parts="halves")
    assert found.part.values.tolist() == ["all", "A", "B"]
    assert np.allclose(found.log_fisher.sel(part="all"), measure(stimulus, store).log_fisher)
    several = measure(stimulus, store, estimators=[], parts=2)
    assert several.part.values.tolist() == ["all", "A", "B", "A2", "B2"]
    assert np.allclose(several.log_fisher.sel(part="A"), found.log_fisher.sel(part="A"))


def test_about_turns_each_replicates_circle_and_nothing_else(stimulus, store):
    middles = fb.random_angles(2, 12, seed=3)
    plain, turned = measure(stimulus, store), measure(stimulus, store, about=middles)
    for r, middle in enumerate(middles):
        at = np.argmin(np.abs(plain.angle.values - middle))
        here = turned.log_fisher.sel(replicate=r, angle=0, method="nearest")
        assert np.allclose(here, plain.log_fisher.isel(replicate=r, angle=at))
    assert np.allclose(turned.middle, middles)
    assert np.allclose(turned.rmse.mean("angle"), plain.rmse.mean("angle"))
    assert np.allclose(turned.training_loss, plain.training_loss)
    for r, middle in enumerate(middles):
        shared = STAGES[1].density.pdf(plain.angle.values + middle)
        assert np.allclose(turned.stimulus_density.sel(stage="focused", replicate=r), shared)
    labelled = xr.DataArray(middles[::-1], {"replicate": [1, 0]})
    assert turned.log_fisher.equals(measure(stimulus, store, about=labelled).log_fisher)


def test_named_parts_that_begin_with_an_a_are_no_halves(stimulus, store):
    parts = {"Ada": np.arange(60), "Bob": np.arange(60, 120), "rest": np.arange(120) > 59}
    found = measure(stimulus, store, estimators=[], parts=parts, lags=[0.5])
    assert "cross_structure" not in found
    assert found.log_fisher.sel(part="Bob", drop=True).equals(found.log_fisher.sel(part="rest", drop=True))


def test_densities_of_their_own_are_turned_to_the_same_place(stimulus, store):
    middles = fb.random_angles(2, 12, seed=3)
    stages = [fb.Stage("arc", fb.uniform(middles - 1, middles + 1), steps=10, batch=8)]
    found = measure(stimulus, store, stages=stages, about=middles).stimulus_density.sel(stage="arc")
    assert (found.where(abs(found.angle) > 1.01, 0) == 0).all() and (found.sel(angle=0, method="nearest") > 0).all()


@pytest.mark.parametrize(("options", "said"), [
    ({"about": [0.0]}, "about has 1, replicates has 2"),
    ({"about": [0.0, 0.1]}, "whole steps"),
    ({"about": [0.0, 0.0], "angles": [0.0, 1.0]}, "whole grid"),
    ({"parts": "half"}, "did you mean 'halves'"),
    ({"lags": [0.0]}, "lags must be a number above 0"),
    ({"parts": {"all": [0, 1]}}, "other names than 'all'"),
    ({"parts": {"few": [True, False]}}, r"parts\['few'\] must be indices from 0 to 119, or 120 of True and False"),
    ({"directions": 2.5}, "directions must be a whole number"),
    ({"delta": 2 * np.pi, "estimators": ["direct"]}, "delta must be a number above 0 and below 3.14159"),
    ({"about": xr.DataArray([0.0, 0.0], {"replicate": [1, 2]})}, "whole steps"),
])  # fmt: skip
def test_a_bad_argument_of_the_spine_meets_a_sentence(stimulus, store, options, said):
    with pytest.raises(ValueError, match=said):
        measure(stimulus, store, **options)


def test_the_structure_function_is_the_mean_square_of_the_increments(stimulus, store):
    found = measure(stimulus, store, estimators=[], parts="halves", lags=[0.01, 0.1], splits=["test"])
    ensemble = fb.train(stimulus, NETWORK, STAGES, 2, store=store, progress=False)
    activity = fb.record(ensemble, stimulus, 12, split="test", stage="focused")
    a, b = fb.halves(activity.identity[0], 0)
    d = fb.increments(activity, [0.01, 0.1], {"A": a, "B": b})
    here = found.sel(stage="focused", split="test", layer="output").transpose("lag", "part", "replicate", ...)
    assert np.allclose(here.structure_function.sel(part=["A", "B"]), (d**2).mean("angle"))
    assert np.allclose(here.cross_structure.transpose("lag", ...), d.prod("part").mean("angle"))


def test_as_many_faces_are_shown_as_the_smallest_split_of_any_fold_has(stimulus, store):
    parts = {"train": (np.arange(200), np.arange(200, 400)), "test": (np.arange(200, 400), np.arange(160))}
    uneven = fb.Stimulus(stimulus.faces.with_splits(parts))
    for replicate in (0, 1):
        assert measure(uneven, store, replicates=[replicate], estimators=[]).n_faces == 160


def test_wide_layers_are_measured_on_random_directions(stimulus, store):
    found = measure(stimulus, store, layers=["hidden1", "output"], directions=4, splits=["test"])
    assert (found.n_units.sel(layer="hidden1") == 4).all() and (found.n_units.sel(layer="output") == 2).all()


def test_a_stage_that_one_condition_lacks_is_missing_there(stimulus, store):
    def condition(count):
        return measure(stimulus, store, stages=STAGES[:count], estimators=[])

    found = fb.sweep(condition, {"count": [1, 2]}).log_fisher
    assert found.sel(stage="focused", count=1).isnull().all() and found.sel(stage="focused", count=2).notnull().all()


def test_a_failing_condition_is_named_and_values_are_checked_before_any_is_run():
    def condition(a):
        raise ValueError("too few")

    with pytest.raises(ValueError, match="a = 1: too few"):
        fb.sweep(condition, {"a": [1]})
    for values in ([1, 1], "relu", [1, "relu"], [np.nan], [[60, 20], [30]]):
        with pytest.raises(ValueError, match="different numbers or texts"):
            fb.sweep(condition, {"a": values})
    with pytest.raises(ValueError, match="what a sweep's condition returns along a can't be joined"):
        fb.sweep(lambda a: xr.Dataset(coords={"replicate": range(a)}), {"a": [1, 2]})


def test_a_second_task_has_an_accuracy_which_training_raises(tmp_path):
    stimulus = fb.Stimulus(fb.load_faces("orl", 16, limit=40, split_by="image"))  # 10 images of each of 4 people
    joint = fb.Stage("joint", fb.uniform(), steps=150, auxiliary="identity", weight=0.9, learning_rate=3e-3)
    network = fb.Network(hidden=(20, 10), auxiliary=4)
    found = measure(stimulus, Store(tmp_path), network, [joint], angles=4, estimators=[])
    assert found.accuracy.dims == ("stage", "replicate", "split")
    assert (found.accuracy.sel(stage="initial") < 0.5).all()
    assert (found.accuracy.sel(stage="joint", split="train") > 0.7).all()
    assert "accuracy" not in measure(
        stimulus, Store(tmp_path), replicates=1, angles=4, estimators=[], stages=[STAGES[1]]
    )


def test_accuracy_counts_the_largest_output_of_people_and_the_sign_of_known_attributes():
    answers = torch.tensor([[[[2.0, -1.0], [1.0, 3.0], [4.0, 0.5]]]])  # (replicate, angle, face, unit)
    parts = [(slice(k, k + 1), answers, None) for k in range(2)]
    activity = SimpleNamespace(chunks=lambda tangents: parts, face=np.array([[2, 0, 1]]), angles=np.arange(2.0))
    people = SimpleNamespace(identity=np.array([7, 7, 4]))
    assert experiment._accuracy(activity, people, "identity") == pytest.approx(2 / 3)  # 4, 7 and not 7
    table = np.array([[1.0, 0.0], [np.nan, 0.0], [1.0, 0.0]])
    assert experiment._accuracy(activity, SimpleNamespace(attributes=table), "attributes") == pytest.approx(3 / 5)


def test_only_the_stages_asked_for_are_measured_and_as_ever(stimulus, store):
    every = measure(stimulus, store, estimators=[])
    some = measure(stimulus, store, estimators=[], after=["initial", "focused"])
    assert some.stage.values.tolist() == ["initial", "focused"] and len(some.step) == 40
    for name in ("log_fisher", "rmse", "stimulus_density"):
        xr.testing.assert_equal(some[name], every[name].sel(stage=["initial", "focused"]))
    with pytest.raises(ValueError, match="after must be one of initial, uniform, focused, not 'late'"):
        measure(stimulus, store, after=["late"])


@pytest.mark.parametrize("seed", [None, "a", 1.5, -1])
def test_a_seed_that_is_no_whole_number_is_refused_before_anything_is_trained(stimulus, store, seed):
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0"):
        measure(stimulus, store, seed=seed)


def test_a_single_name_is_that_name_and_not_its_letters(stimulus, store):
    one = measure(stimulus, store, estimators="tangent", splits="test", layers="output")
    several = measure(stimulus, store, estimators=["tangent"], splits=["test"], layers=["output"])
    assert one.fisher_information.equals(several.fisher_information)


@pytest.mark.filterwarnings("always:there is no logarithm")
def test_a_plug_in_that_cannot_be_had_is_missing_and_said(stimulus, store):
    network = fb.Network(hidden=(12, 6), readout="bins")  # 16 bins above 6 units: no covariance has an inverse
    with pytest.warns(fb.FewFaces, match="no logarithm of the plug-in in output"):
        found = measure(stimulus, store, network, estimators=["decoded"], splits=["test"])
    assert found.log_fisher.isnull().all() and found.fisher_information.notnull().any()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"stimulus": None}, "stimulus must be a Stimulus or FeatureBank, not of type NoneType"),
        ({"network": "mlp"}, "network must be a Network, not of type str"),
        ({"replicates": []}, "replicates must be a number of them, or a list of at least one"),
        ({"layers": []}, "layers must name one or more of hidden1, hidden2, output"),
        ({"splits": []}, "splits must name one or more of train, test"),
        ({"device": "gpu9"}, "device must be auto, cpu, cuda or another that torch knows, not 'gpu9'"),
    ],
)
def test_what_is_of_another_kind_is_named(stimulus, store, wrong, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        measure(**{"stimulus": stimulus, "store": store} | wrong)


def test_what_is_no_dataset_and_no_faces_is_named(stimulus):
    with pytest.raises(TypeError, match="a sweep's condition returns must be a Dataset, not of type int"):
        fb.sweep(lambda a: a, {"a": [1]})
    with pytest.raises(TypeError, match="what is kept must be a Dataset, not of type int"):
        fb.keep("page/number", lambda: 3)
    with pytest.raises(TypeError, match="faces must be Faces, as load_faces returns them"):
        fb.Stimulus(None)
    with pytest.raises(TypeError, match="parts must be shares by the names of splits"):
        fb.load_faces("orl", 16, parts=[0.5, 0.5])
    with pytest.raises(TypeError, match="network must be an Ensemble or a torch module, not of type function"):
        fb.record(measure, stimulus)
