import json
from dataclasses import replace

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
    assert fisher.n_faces.sel(split="test") == 120 and fisher.n_faces.sel(split="train") == 280
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


def test_a_sweep_adds_a_dimension_per_key(stimulus, store):
    def condition(nonlinearity, kappa):
        stages = [fb.Stage("focused", fb.von_mises(0, kappa), steps=10)]
        return measure(stimulus, store, replace(NETWORK, nonlinearity=nonlinearity), stages)

    grid = {"nonlinearity": ["relu", "celu"], "kappa": [3.0, 1.0]}
    both = fb.sweep(condition, grid)
    assert both.nonlinearity.values.tolist() == ["relu", "celu"] and both.kappa.values.tolist() == [3.0, 1.0]
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
