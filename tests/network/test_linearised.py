"""A linearised network is the first-order expansion in its parameters, and is trained and measured as others are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fisherbook as fb
from fisherbook.network.linearised import Linearised
from fisherbook.store import Store

PRETRAINING = [fb.Stage("uniform", fb.uniform(), steps=30, batch=5)]
FOCUSED = [fb.Stage("focused", fb.von_mises(0.0, 3.0), steps=20, batch=5)]


@pytest.fixture(scope="module")
def stimulus():
    return fb.Stimulus(fb.load_faces("orl", 12, limit=120, parts={"train": 0.5, "test": 0.5}))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def trained(stimulus, store, network, stages=FOCUSED, replicates=2):
    return fb.train(stimulus, network, stages, replicates, device="cpu", store=store, progress=False)


@pytest.mark.parametrize("nonlinearity", ["celu", "tanh", "relu"])
@pytest.mark.parametrize("readout", ["angular", "bins"])
def test_it_is_the_expansion_about_the_trained_weights(stimulus, store, nonlinearity, readout):
    network = fb.Network(hidden=(7, 5), nonlinearity=nonlinearity, readout=readout)
    before = trained(stimulus, store, network, PRETRAINING)
    after = trained(stimulus, store, Linearised.of(network, before.keys["uniform"]))
    halves = {name: tensor.double().chunk(2, 1) for name, tensor in after["focused"].items()}
    for name, (fixed, change) in halves.items():
        assert torch.equal(fixed, before["uniform"][name].double())
        assert change.abs().max() > 1e-3

    def plain(along):
        moved = {name: fixed + along * change for name, (fixed, change) in halves.items()}
        moved = replace(before, weights={"uniform": moved})
        return fb.record(moved, stimulus, angles=5, stage="uniform").whole()

    step, found = 1e-6, fb.record(after, stimulus, angles=5).whole()
    for forward, backward, here, there in zip(plain(step), plain(-step), plain(0.0), found, strict=True):
        assert torch.allclose(there, here + (forward - backward) / (2 * step), atol=1e-7)
        assert (there - here).abs().max() > 1e-2


def test_it_begins_where_the_network_ended(stimulus, store):
    network = fb.Network(hidden=(7, 5))
    before = trained(stimulus, store, network, PRETRAINING)
    linear = Linearised.of(network, before.keys["uniform"])
    options = {"replicates": 2, "angles": 6, "device": "cpu", "store": store, "progress": False, "estimators": []}
    measured = fb.measure(stimulus, linear, FOCUSED, **options)
    whole = fb.measure(stimulus, network, PRETRAINING, **options)
    at_first, at_last = measured.log_fisher.sel(stage="initial"), whole.log_fisher.sel(stage="uniform")
    np.testing.assert_allclose(at_first, at_last, rtol=1e-9)
    assert abs(measured.log_fisher.sel(stage="focused") - at_last).max() > 0.01


def test_one_step_is_that_of_the_network(stimulus, store):
    network, one = fb.Network(hidden=(7, 5)), [replace(FOCUSED[0], steps=1)]
    plain, linear = (trained(stimulus, store, kind, one) for kind in (network, Linearised.of(network)))
    for name, tensor in plain["focused"].items():
        fixed, change = linear["focused"][name].chunk(2, 1)
        assert torch.allclose(fixed + change, tensor, atol=1e-6)
    assert torch.allclose(linear.training_loss["focused"], plain.training_loss["focused"], rtol=1e-5)


def test_a_replicate_is_the_same_in_any_company(stimulus, tmp_path):
    linear = Linearised.of(fb.Network(hidden=(7, 5)))
    alone = trained(stimulus, Store(tmp_path / "alone"), linear, replicates=[2])["focused"]
    among = trained(stimulus, Store(tmp_path / "among"), linear, replicates=range(5))["focused"]
    assert all(torch.equal(tensor[0], among[name][2]) for name, tensor in alone.items())


def test_it_is_saved_and_loaded_as_what_it_is(stimulus, store, tmp_path):
    linear = trained(stimulus, store, Linearised.of(fb.Network(hidden=(7, 5))))
    linear.save(tmp_path / "linear.pt")
    found = fb.Ensemble.load(tmp_path / "linear.pt")
    assert found.network == linear.network and isinstance(found.network, Linearised)
    before, after = (fb.record(ensemble, stimulus, angles=3).responses() for ensemble in (linear, found))
    assert torch.equal(before, after)


def test_what_cannot_be_linearised_is_said(stimulus, store):
    with pytest.raises(ValueError, match="an mlp without dropout"):
        Linearised.of(fb.Network(dropout=0.1))
    with pytest.raises(ValueError, match=r"begin must name trained weights .* replicate 0"):
        trained(stimulus, store, Linearised.of(fb.Network(hidden=(7,)), ["nothing"]))
    before = trained(stimulus, store, fb.Network(hidden=(7,)), PRETRAINING)
    with pytest.raises(ValueError, match="for replicate 2"):
        trained(stimulus, store, Linearised.of(fb.Network(hidden=(7,)), before.keys["uniform"]), replicates=3)
    with pytest.raises(ValueError, match="for replicate 0"):
        trained(stimulus, store, Linearised.of(fb.Network(hidden=(6,)), before.keys["uniform"]))
