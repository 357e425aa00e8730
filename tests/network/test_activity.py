import dataclasses
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import fisherbook as fb
from fisherbook import angles as circle
from fisherbook.store import Store


@pytest.fixture(scope="module")
def faces():
    return fb.load_faces("orl", size=16, folds=4)


@pytest.fixture(scope="module")
def stimulus(faces):
    return fb.Stimulus(faces)


@pytest.fixture(scope="module")
def ensemble(stimulus, tmp_path_factory):
    network = fb.Network(hidden=(12, 6), nonlinearity="gelu", dropout=0.1)
    stages = [fb.Stage("uniform", fb.uniform(), steps=30, batch=8)]
    return fb.train(stimulus, network, stages, 3, store=Store(tmp_path_factory.mktemp("s")), progress=False)


def as_module(ensemble, replicate):
    """The same network as an ordinary torch module of images."""
    layers = [torch.nn.Flatten()]
    stimulus_size, parameters = 16, ensemble["uniform"]
    aperture = fb.Stimulus(fb.load_faces("orl", size=stimulus_size)).aperture
    for name in ensemble.network.layers:
        weight, bias = parameters[f"{name}.weight"][replicate], parameters[f"{name}.bias"][replicate]
        if name == "hidden1":
            placed = torch.zeros(len(weight), stimulus_size**2)
            placed[:, aperture] = weight / 0.25
            bias, weight = bias - 0.5 * placed.sum(1), placed
        linear = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight.double(), bias.double()
        layers += [linear, torch.nn.GELU()]
    return torch.nn.Sequential(*layers[:-1]).double()


@pytest.mark.parametrize("rotation", ["harmonic", "bilinear"])
def test_tangents_are_the_derivative_of_the_responses(ensemble, faces, rotation):
    step, at = 1e-6, np.array([-2.0, 0.1, 3.0])
    activity = fb.record(ensemble, fb.Stimulus(faces, rotation), at)
    difference = (activity.shifted(step).responses() - activity.shifted(-step).responses()) / (2 * step)
    error = (difference - activity.whole()[1]).abs() / difference.abs().max()
    assert error.quantile(0.99) < 1e-3


def test_an_ensemble_is_recorded_as_the_same_network_seen_through_its_images(ensemble, stimulus):
    shown = stimulus.faces.split("test", fold=1)
    module = fb.record(as_module(ensemble, 1), stimulus, [0.3, -1.0], split=shown)
    fast = fb.record(ensemble, stimulus, [0.3, -1.0], split="test")
    for ours, theirs in zip(fast.whole(), module.whole(), strict=True):
        assert torch.allclose(ours[1], theirs[0], atol=1e-5 * float(theirs.abs().max()))


def test_noise_that_depends_on_the_angle_is_recorded_as_it_is_seen(tmp_path):
    stimulus = fb.Stimulus(fb.load_faces("orl", 16, limit=60, noise=0.3), noise_wave=(0.4, 2, 1.0))
    stages = [fb.Stage("uniform", fb.uniform(), steps=5, batch=8)]
    network = fb.Network(hidden=(12, 6), nonlinearity="gelu")
    ensemble = fb.train(stimulus, network, stages, 1, store=Store(tmp_path), progress=False)
    fast = fb.record(ensemble, stimulus, [0.3, -1.0], [4, 7])
    module = fb.record(as_module(ensemble, 0), stimulus, [0.3, -1.0], [4, 7])
    for ours, theirs in zip(fast.whole(), module.whole(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))


def test_chunks_cover_all_angles_whatever_the_memory(ensemble, stimulus):
    whole = fb.record(ensemble, stimulus, 20)
    small = fb.record(ensemble, stimulus, 20, memory=1)
    assert len(list(small.chunks())) == 20
    assert torch.allclose(whole.responses(), small.responses(), atol=1e-12)


def test_each_replicate_is_shown_its_own_held_out_people(ensemble, stimulus):
    activity = fb.record(ensemble, stimulus, 1)
    for row, replicate in enumerate(activity.replicate):
        held_out = stimulus.faces.split("test", fold=int(replicate))
        assert (activity.face[row] == held_out).all()
        assert (activity.identity[row] == stimulus.faces.identity[held_out]).all()


def test_a_subset_is_the_same_faces_fewer(ensemble, stimulus):
    activity = fb.record(ensemble, stimulus, 4)
    some = activity.subset([3, 5])
    assert torch.equal(some.responses(), activity.responses()[:, :, [3, 5]])
    assert some.identity.shape == (3, 2) and some.key != activity.key


def test_held_activity_is_computed_once_within_its_memory_and_is_the_same(ensemble, stimulus):
    plain, calls = fb.record(ensemble, stimulus, 6), []
    counted = replace(plain, _evaluate=lambda *asked: calls.append(asked) or plain._evaluate(*asked))
    for bytes_, expected in ((10**6, 2), (0, 4)):
        held = counted.held(bytes_)
        calls.clear()
        assert torch.equal(held.responses(), plain.responses())
        assert all(map(torch.equal, held.whole(), plain.whole()))
        assert torch.equal(held.responses(), plain.responses())
        assert torch.equal(held.decoded().whole()[1], plain.decoded().whole()[1])
        assert len(calls) == expected


def test_the_reported_angle_comes_with_its_derivative(ensemble, stimulus):
    decoded = fb.record(ensemble, stimulus, [0.2, 2.0]).decoded()
    step = 1e-6
    difference = circle.wrap(decoded.shifted(step).responses() - decoded.shifted(-step).responses()) / (2 * step)
    slope = decoded.whole()[1]
    assert (difference - slope).abs().quantile(0.99) < 1e-4 * slope.abs().max()


def test_dropout_at_recording_is_internal_noise_of_the_faces_and_is_said_so(ensemble, stimulus):
    still, noisy = (fb.record(ensemble, stimulus, 3, dropout=d) for d in (False, True))
    assert noisy.attrs["dropout"] == "on" and "dropout" not in still.attrs
    assert not torch.allclose(still.responses(), noisy.responses())
    assert torch.equal(noisy.responses(), noisy.responses())


def test_keys_tell_recordings_apart(ensemble, stimulus, faces):
    keys = [
        fb.record(ensemble, stimulus).key,
        fb.record(ensemble, stimulus, layer="hidden1").key,
        fb.record(ensemble, stimulus, stage="initial").key,
        fb.record(ensemble, stimulus, split="train").key,
        fb.record(ensemble, stimulus, dropout=True).key,
        fb.record(ensemble, fb.Stimulus(faces, "bilinear")).key,
        fb.record(ensemble.select([1]), stimulus).key,
    ]
    assert len(set(keys)) == len(keys)
    assert fb.record(ensemble, stimulus, 7).key == keys[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"stage": "uniforn"},
            "stage must be one of initial, uniform, not 'uniforn'; did you mean 'uniform'",
        ),
        ({"layer": "out"}, "layer must be one of hidden1, hidden2, output, not 'out'; did you mean 'output'"),
        ({"split": "tset"}, "did you mean 'test'"),
        ({"split": [-1]}, "faces must be indices from 0 to 399"),
    ],
)
def test_a_bad_recording_meets_one_sentence(ensemble, stimulus, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fb.record(ensemble, stimulus, **options)


def test_only_the_output_is_decoded(ensemble, stimulus):
    with pytest.raises(ValueError, match="only a network's output layer can be decoded, not 'hidden1'"):
        fb.record(ensemble, stimulus, layer="hidden1").decoded()


# ---- units, and what is not finite ----------------------------------------------------------------------------------


class Units(torch.nn.Module):
    """Two lively units, one that is dead, one that is so where the images' right half is dark, and one on a ramp."""

    def forward(self, images):
        left, right = images[..., :8].mean((1, 2, 3)), images[..., 8:].mean((1, 2, 3))
        dead = torch.zeros_like(left)
        return torch.stack([left, dead, (right - left - 0.02).relu(), right, dead + 1e3 + 1e-12 * left], 1)


@pytest.mark.parametrize(("at", "left"), [("any", [0, 3]), ("all", [0, 2, 3])])
def test_constant_units_are_dropped_by_the_rule_that_is_asked_for(stimulus, at, left):
    activity = fb.record(Units(), stimulus, 8, range(6))
    varying = activity.drop_constant(at)
    assert varying.attrs["constant_units"] == 5 - len(left)
    for found, whole in zip(varying.whole(), activity.whole(), strict=True):
        assert torch.equal(found, whole[..., left])


def test_a_unit_is_dropped_for_all_replicates_where_it_is_dead_in_one(ensemble, stimulus):
    weights = {name: tensor.clone() for name, tensor in ensemble["uniform"].items()}
    weights["hidden2.weight"][1, 4] = 0
    dead = dataclasses.replace(ensemble, weights={"uniform": weights})
    activity = fb.record(dead, stimulus, 3, layer="hidden2")
    varying = activity.drop_constant()
    assert torch.equal(varying.responses(), activity.responses()[..., [0, 1, 2, 3, 5]])
    assert varying.key not in (None, activity.key)


def test_a_layer_of_constant_units_alone_meets_one_sentence(stimulus):
    dead = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Threshold(10, 0))
    with pytest.raises(ValueError, match="all 256 units of layer 'output' are constant over faces at some angle"):
        fb.record(dead, stimulus, 2, range(3)).drop_constant()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activity_that_is_not_finite_is_named_with_its_layer_and_angle(stimulus, bad):
    level = float(stimulus.images([0.5, 2.0], range(5)).flatten(2)[..., 120:124].median())

    class Bad(torch.nn.Module):
        def forward(self, images):
            x = images.flatten(1)[:, 120:124]
            return torch.where(x > level, x.new_tensor(bad), x)

    activity = fb.record(torch.nn.Sequential(Bad()), stimulus, [0.5, 2.0], range(5), layer="0")
    wrong = (stimulus.images([0.5, 2.0], range(5)).flatten(2)[..., 120:124] > level).sum()
    assert 0 < wrong < 40
    sentence = rf"the activity of layer '0' must be finite, but {wrong} of 40 values are NaN or infinite, .* rad"
    for ask in (activity.whole, activity.responses, lambda: fb.estimate(activity), activity.drop_constant):
        with pytest.raises(ValueError, match=sentence):
            ask()


# ---- memory ---------------------------------------------------------------------------------------------------------

_MEASURED = """
import resource
import numpy as np, torch, fisherbook as fb
from fisherbook.network.ensembles import Ensemble
from fisherbook.network.networks import generator
from fisherbook.stimulus.faces import Faces

def shown(size, **how):
    images = np.random.default_rng(0).random((5000, 1, size, size), np.float32)
    return fb.Stimulus(Faces(images, "drawn", parts={"test": (np.arange(5000),)}), **how)

def drawn(stimulus, replicates):
    network = fb.Network(hidden=(60, 20))
    weights = {"initial": network.initialise(len(stimulus.aperture), [generator(r) for r in range(replicates)])}
    prints = {"initial": tuple(map(str, range(replicates)))}
    return Ensemble(network, (), np.arange(replicates), 0, "", prints, weights, {}, {})

fine, harmonic, bilinear = shown(40), shown(16, orders=8), shown(16, rotation="bilinear", orders=8)
module = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1568, 2))
cases = [dict(network=drawn(fine, 1), stimulus=fine, stage="initial")]
cases += [dict(network=drawn(harmonic, 4), stimulus=harmonic, layer=l, stage="initial") for l in ("output", "hidden1")]
cases.append(dict(network=drawn(bilinear, 2), stimulus=bilinear, stage="initial"))
cases.append(dict(network=module, stimulus=harmonic))
for case in cases:
    fb.record(angles=1, split=[0, 1], **case).whole()  # what is loaded once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for case in cases:
    for _ in fb.record(angles=2, memory="64 MiB", **case).chunks():
        pass
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


_ESTIMATED = """
import pathlib, resource, tempfile, warnings
import numpy as np, fisherbook as fb
from fisherbook.stimulus.faces import Faces
from fisherbook.store import Store

warnings.simplefilter("ignore")
draw, network = np.random.default_rng(0), fb.Network(hidden=(60, 20))
stages = [fb.Stage("once", fb.uniform(), steps=1, batch=4)]

def turned(number):
    images = draw.random((number, 1, 16, 16), np.float32)
    parts = {"train": (np.arange(40),), "test": (np.arange(number),)}
    return fb.Stimulus(Faces(images, "drawn", parts=parts), orders=8)

def rises(stimulus, memory):
    global before
    how = dict(device="cpu", store=Store(pathlib.Path(tempfile.mkdtemp())), progress=False)
    ensemble = fb.train(stimulus, network, stages, 2, **how)
    before = before or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    at = lambda layer: fb.record(ensemble, stimulus, 8, "test", layer=layer, memory=memory)
    yield fb.estimate(at("output"), estimator=["smoothed", "decoded"])
    yield fb.estimate(at("hidden1").at(at("output").angles[:2]), estimator=["tangent", "direct"], delta=0.1)
    yield fb.log_fisher(at("hidden1"))
    names = ["hidden1", "hidden2", "output"]
    yield fb.measure(
        stimulus, network, stages, 2, 4, layers=names, splits=["test"], after=["once"], memory=memory, **how
    )

before = 1
list(rises(turned(200), "1 GiB"))  # what is loaded once
before = 0
for _ in rises(turned(5000), "128 MiB"):
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


@pytest.mark.slow
def test_estimating_from_five_thousand_faces_keeps_to_the_memory_given():
    run = subprocess.run([sys.executable, "-c", _ESTIMATED], capture_output=True, text=True, check=True)
    rises = [float(line) for line in run.stdout.split()]
    assert len(rises) == 4 and rises[-1] < 128 + 32, rises  # MiB; 32 are left to the allocator


def test_what_cannot_be_had_in_the_memory_says_what_it_needs(ensemble, stimulus):
    wide = fb.record(ensemble, stimulus, 2, layer="hidden1", memory="1 MiB")
    with pytest.raises(ValueError, match=r"estimating from one angle needs \d+ MiB, more than the memory of 0 MiB"):
        fb.estimate(replace(wide, memory=2**10))
    with pytest.raises(ValueError, match=r"a whole curve needs \d+ MiB, more than the memory of 1 MiB.*larger memory"):
        fb.estimate(fb.record(ensemble, stimulus, 360, memory="1 MiB"), estimator="smoothed")


@pytest.mark.slow
def test_recording_five_thousand_faces_keeps_to_the_memory_given():
    run = subprocess.run([sys.executable, "-c", _MEASURED], capture_output=True, text=True, check=True)
    rises = [float(line) for line in run.stdout.split()]
    assert len(rises) == 5 and rises[-1] < 64 + 16, rises  # MiB; 16 are left to the allocator
