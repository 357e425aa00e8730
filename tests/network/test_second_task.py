"""A second task beside the angle, and faces that are too many to be held in memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import fisherbook as fb
from fisherbook.network import training
from fisherbook.stimulus import sources
from fisherbook.stimulus import stimulus as stimuli
from fisherbook.store import Store

NETWORK = fb.Network(hidden=(30, 20), auxiliary=4)
JOINT = fb.Stage("joint", fb.uniform(), steps=300, auxiliary="identity", weight=0.5, learning_rate=3e-3)


@pytest.fixture(scope="module")
def stimulus():
    return fb.Stimulus(fb.load_faces("orl", 16, limit=40, split_by="image"))


def trained(stimulus, tmp_path, *stages, network=NETWORK, replicates=2):
    return fb.train(stimulus, network, stages, replicates, store=Store(tmp_path), progress=False)


def recognised(ensemble, stimulus):
    activity = fb.record(ensemble, stimulus, 8, "train", layer="auxiliary")
    who = np.searchsorted(np.unique(stimulus.faces.identity), activity.identity)
    return float((activity.responses().argmax(-1).numpy() == who[:, None]).mean())


def test_both_tasks_are_learnt_together_and_either_alone(stimulus, tmp_path):
    both = trained(stimulus, tmp_path, JOINT)
    assert recognised(both, stimulus) > 0.7
    assert both.training_loss["joint"][:, -20:].mean() < 0.5
    alone = trained(stimulus, tmp_path, replace(JOINT, weight=1.0))
    assert recognised(alone, stimulus) > 0.7
    for name in ("output.weight", "output.bias"):  # what the second task has no part in
        assert torch.equal(alone["joint"][name], alone["initial"][name])


def test_a_second_task_of_weight_0_changes_nothing_for_the_first(stimulus, tmp_path):
    stage = fb.Stage("joint", fb.uniform(), steps=5)
    without = trained(stimulus, tmp_path, stage, network=replace(NETWORK, auxiliary=0))
    beside = trained(stimulus, tmp_path, stage)
    zero = trained(stimulus, tmp_path, replace(stage, auxiliary="identity"))
    for name, tensor in without["joint"].items():
        assert torch.equal(beside["joint"][name], tensor)
        assert torch.allclose(zero["joint"][name], tensor, atol=1e-6)


def test_attributes_are_learnt_where_they_are_known(stimulus, tmp_path):
    table = np.full((40, 2), np.nan, np.float32)
    table[:, 0] = stimulus.faces.identity < 2
    labelled = fb.Stimulus(replace(stimulus.faces, attributes=table, attribute_names=("early", "unknown")))
    stage = replace(JOINT, auxiliary="attributes", weight=1.0)
    ensemble = trained(labelled, tmp_path, stage, network=replace(NETWORK, auxiliary=2))
    assert ensemble.training_loss["joint"][:, 0].mean() == pytest.approx(1, abs=0.2)  # that of a guess
    assert ensemble.training_loss["joint"][:, -20:].mean() < 0.3
    assert torch.equal(ensemble["joint"]["auxiliary.weight"][:, 1], ensemble["initial"]["auxiliary.weight"][:, 1])


def test_the_second_loss_of_a_uniform_guess_is_one(stimulus):
    run = training._Run(stimulus, NETWORK, 0, "cpu", torch.float32, False)
    loss = training._second_loss(run, JOINT, torch.zeros(1, 5, 4), torch.zeros(1, 5, dtype=torch.long))
    assert float(loss) == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: replace(JOINT, auxiliary="age"), "auxiliary must be one of identity, attributes"),
        (lambda: replace(JOINT, auxiliary=None), "weight must be from 0 to 1"),
        (lambda: replace(JOINT, weight=1.5), "weight must be from 0 to 1"),
    ],
)
def test_a_wrong_second_task_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_second_task_needs_labels_and_as_many_outputs(stimulus, tmp_path):
    with pytest.raises(ValueError, match=r"Network\(auxiliary=4\)"):
        trained(stimulus, tmp_path, JOINT, network=replace(NETWORK, auxiliary=3))
    with pytest.raises(ValueError, match="does not tell the attributes"):
        trained(stimulus, tmp_path, replace(JOINT, auxiliary="attributes"))


@pytest.mark.parametrize("rotation", ["harmonic", "bilinear"])
def test_faces_in_a_file_give_the_same_training_and_activity(tmp_path, monkeypatch, rng, rotation):
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / f"{number:02}.png")
    held = fb.load_faces(tmp_path, 16)
    monkeypatch.setattr(sources, "_IN_MEMORY", 100)
    mapped = fb.load_faces(tmp_path, 16)
    assert isinstance(mapped.images, np.memmap)
    assert mapped.images.dtype == np.uint8
    assert np.array_equal(mapped.some(np.array([3, 1])).images, held.images[[3, 1]])
    few, many = (fb.Stimulus(faces, rotation, 6 if rotation == "harmonic" else None) for faces in (held, mapped))
    assert many.embed(many.product(torch.tensor([4, 2]), torch.tensor([0.3]))).shape == (1, 2, 1, 16, 16)
    assert torch.allclose(few.images([0.1, 2.0]), many.images([0.1, 2.0]), atol=1e-12)
    shown = torch.tensor([5, 5, 0]), torch.tensor([0.1, 0.2, -3.0])
    assert torch.allclose(few.pixels(*shown, tangents=True), many.pixels(*shown, tangents=True), atol=1e-10)
    stage, network = fb.Stage("uniform", fb.uniform(), steps=3), fb.Network(hidden=(5,))
    ensembles = [trained(s, tmp_path / "store", stage, network=network) for s in (few, many)]
    one, other = (fb.record(e, s, 3).whole() for e, s in zip(ensembles, (few, many), strict=True))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one, other, strict=True))


def test_orders_of_very_many_faces_are_chosen_for_some_of_them(tmp_path, monkeypatch, rng):
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 20), np.uint8)).save(tmp_path / f"{number:02}.png")
    expected = fb.Stimulus(fb.load_faces(tmp_path, 16)).orders
    monkeypatch.setattr(sources, "_IN_MEMORY", 100)
    monkeypatch.setattr(stimuli, "_FEWER", 12)
    assert fb.Stimulus(fb.load_faces(tmp_path, 16)).orders == expected
