"""ResNet-18 below a probe, against torchvision's own, against forward-mode derivatives, and end to end."""

import re
from dataclasses import replace
from unittest.mock import patch
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

import fisherbook as fb
from fisherbook import derivative
from fisherbook.network import banks, networks, resnet, training
from fisherbook.network.probes import start
from fisherbook.store import Store


class Unsafe:
    """What only unpickling could read."""


pytestmark = pytest.mark.slow

FROZEN = fb.Network("resnet18", hidden=(8,), weights="random", bank=8)
FINETUNED = replace(FROZEN, backbone="finetuned")
UNITS = {"layer1": 4096, "layer2": 2048, "layer3": 1024, "layer4": 512, "features": 512}  # at 32 px
SHORT = fb.Stage("uniform", fb.uniform(), steps=3, batch=4)
TUNING = replace(SHORT, steps=4, backbone_rate=1e-4)


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Calibrate on a few images, and draw for two steps at a time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fisherbook.network.probes._CALIBRATION", 64)
        patched.setattr(training, "_BLOCK", 2)
        yield


@pytest.fixture(scope="module")
def stimulus():
    return fb.Stimulus(fb.load_faces("orl", 32, limit=20, folds=2, split_by="image"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all tests: weights of 45 MB are written once."""
    return Store(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def empty(tmp_path):
    return Store(tmp_path)


@pytest.fixture(scope="module")
def bank(stimulus, store):
    return fb.FeatureBank(stimulus, FROZEN, store=store)


@pytest.fixture(scope="module")
def finetuned(stimulus, store):
    return fb.train(stimulus, FINETUNED, [TUNING], 2, store=store, progress=False)


@pytest.fixture(scope="module")
def onward(finetuned):
    """Fine-tuning goes on from a backbone that was trained here."""
    return replace(FINETUNED, weights=finetuned.keys["uniform"][0])


@pytest.fixture(scope="module")
def probes(stimulus, store, onward):
    return fb.train(stimulus, replace(onward, backbone="frozen"), [SHORT], 2, store=store, progress=False)


@pytest.fixture(scope="module")
def state():
    """Weights with batch norms that are not the identity."""
    state, random = resnet.draw(networks.generator(0)), networks.generator(1)
    for tensor in state.values():
        if tensor.ndim == 1:
            tensor += 0.2 * torch.rand(tensor.shape, generator=random)
    return state


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=networks.generator(2))


def test_it_is_torchvisions_resnet18(state, images, may_draw):
    theirs = resnet18().eval()
    theirs.load_state_dict(state, strict=False)
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = theirs(resnet.normalised(images))
    scale = expected.abs().max()
    assert (resnet.forward(state, images) - expected).abs().max() < 1e-5 * scale
    assert (resnet.respond(resnet.folded(state), images)[0] - expected).abs().max() < 1e-5 * scale


@pytest.mark.parametrize("layer", resnet.BACKBONE_LAYERS)
def test_stacked_response_and_tangent_equal_forward_mode_derivatives(state, images, layer):
    tangents = torch.randn(images.shape, generator=networks.generator(3))
    before = {name: tensor.clone() for name, tensor in state.items()}
    value, along = derivative.along(lambda x: resnet.forward(state, x, layer), images, tangents)
    response, tangent = resnet.respond(resnet.folded(state), images, tangents, layer)
    assert response.shape == (3, UNITS[layer])
    for found, expected in ((response, value), (tangent, along)):
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_what_enters_the_first_convolution_is_normalised_once(stimulus):
    pixels = stimulus.images(4).flatten(0, 1)
    entering = resnet.normalised(pixels)
    assert entering.shape[1] == 3
    assert entering.min() > -2.3
    assert entering.max() < 2.9
    assert entering.std() > 0.2
    grey = resnet.normalised(torch.full((1, 1, 2, 2), 0.449))
    assert grey.abs().max() < 0.25


def test_calibration_makes_random_batch_norms_and_features_standard(stimulus, store):
    begun = start(FROZEN.kind.backbone, stimulus, (0,), store)
    faces = torch.arange(20)
    angles = torch.linspace(-3, 3, 20, dtype=torch.float64)
    respond = FROZEN.kind.backbone.ready(begun)
    features, _ = banks.record_features(respond, stimulus, faces, angles, tangents=False)
    shown = (features - begun["mean"]) / begun["scale"]
    assert shown.mean().abs() < 0.3
    assert 0.5 < shown.std() < 2
    with patch.object(resnet, "forward", side_effect=AssertionError):
        again = start(FROZEN.kind.backbone, stimulus, (0,), store)
    assert all(torch.equal(begun[name], again[name]) for name in begun)
    assert not torch.equal(start(FROZEN.kind.backbone, stimulus, (1,), store)["conv1.weight"], begun["conv1.weight"])


def test_a_bank_holds_the_backbones_own_responses_and_tangents_at_its_angles(stimulus, store, bank):
    faces, angles = torch.tensor([3, 0, 19]), torch.from_numpy(fb.grid(8)[[0, 3, 7]])
    values, tangents = banks.record_features(bank.respond, stimulus, faces, angles)
    begun = start(FROZEN.kind.backbone, stimulus, (0,), store)
    shown = 0.5 + 0.25 * (values - begun["mean"]) / begun["scale"]
    assert (bank.pixels(faces, angles)[:, 0] - shown).abs().max() < 1e-4
    along = 0.25 * tangents / begun["scale"]
    assert (
        bank.pixels(faces, angles, tangents=True)[:, 0] - along
    ).abs().median() < 1e-4 * along.abs().median()  # rounding may switch a relu
    outer = bank.product(faces, angles)
    assert outer.shape == (3, 3, 1, 512)
    assert torch.equal(outer[1, 1], bank.pixels(faces[1:2], angles[1:2])[0])


def test_between_a_banks_angles_the_tangent_is_the_responses_derivative_and_all_is_continuous(bank):
    at, face, h = (
        torch.tensor([0.1, 2 * np.pi / 8, np.pi - 0.02, -np.pi]).double(),
        torch.zeros(4, dtype=torch.long),
        1e-5,
    )
    slope = (bank.pixels(face, at + h) - bank.pixels(face, at - h)) / (2 * h)
    tangent = bank.pixels(face, at, tangents=True)
    assert (slope - tangent).abs().max() < 1e-4 * tangent.abs().max()


def test_an_exact_bank_is_the_backbone_itself_between_angles_too(stimulus, bank):
    exact, faces, on_grid = bank.exact(), torch.tensor([2, 9]), torch.from_numpy(fb.grid(8)[[1, 5]])
    assert exact.digest != bank.digest
    for tangents in (False, True):
        assert torch.allclose(exact.pixels(faces, on_grid, tangents), bank.pixels(faces, on_grid, tangents), atol=2e-3)
    between = on_grid + 0.3
    values = banks.record_features(bank.respond, stimulus, faces, between)
    assert (exact.pixels(faces, between) - bank.pixels(faces, between)).abs().max() > 0.01  # the cubic is not exact
    for tangents, value in enumerate(values):
        shown = value.double() - (not tangents) * bank._mean
        expected = 0.25 * shown / bank._scale + 0.5 * (not tangents)
        assert torch.allclose(exact.pixels(faces, between, bool(tangents))[:, 0], expected, atol=1e-9)
    with patch.object(banks, "record_features", side_effect=AssertionError):
        exact.pixels(faces, between, True)  # responses and tangents came together


def test_a_bank_is_resumed_where_its_build_was_interrupted(stimulus, empty, monkeypatch):
    monkeypatch.setattr(banks, "_PIECE", 8 * 4 * 2 * 512 * 4)  # eight faces a piece: three pieces
    whole, calls = banks.record_features, []

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    bank = fb.FeatureBank(stimulus, FROZEN, 4, store=empty)
    with patch.object(banks, "record_features", failing), pytest.raises(KeyboardInterrupt):
        bank.pixels(torch.tensor([0]), torch.tensor([0.0]))
    calls.clear()
    monkeypatch.setattr(banks, "record_features", lambda *a, **o: calls.append(1) or whole(*a, **o))
    again = fb.FeatureBank(stimulus, FROZEN, 4, store=empty)
    again.pixels(torch.tensor([0]), torch.tensor([0.0]))
    assert len(calls) == 12  # the other two pieces' faces
    assert isinstance(again._pieces[0], np.memmap)
    with patch.object(banks, "record_features", side_effect=AssertionError):
        fb.FeatureBank(stimulus, FROZEN, 4, store=empty).pixels(torch.tensor([19]), torch.tensor([0.0]))


def test_a_bank_in_several_pieces_is_the_same_bank(stimulus, store, bank, monkeypatch):
    monkeypatch.setattr(banks, "_PIECE", 8 * 8 * 2 * 512 * 4)  # eight faces a piece
    pieces = fb.FeatureBank(stimulus, FROZEN, store=store)
    faces, angles = torch.tensor([19, 3, 8, 7]), torch.tensor([-1.0, 0.2, 3.0, 1.5], dtype=torch.float64)
    assert len(pieces._pieces) == 3
    assert torch.allclose(pieces.pixels(faces, angles), bank.pixels(faces, angles), atol=1e-4)


def test_a_bank_in_half_precision_is_half_as_large_and_rounds(stimulus, store):
    bank, half = (fb.FeatureBank(stimulus, FROZEN, 4, dtype, store=store) for dtype in ("float32", "float16"))
    assert bank.digest != half.digest
    pair = torch.tensor([5]), torch.tensor([0.0])
    difference = (bank.pixels(*pair) - half.pixels(*pair)).abs().max()
    assert 0 < difference < 0.01
    assert half._pieces[0].nbytes * 2 == bank._pieces[0].nbytes


def test_a_frozen_backbone_is_trained_recorded_and_measured_like_any_network(stimulus, store, bank, monkeypatch):
    monkeypatch.setenv("FISHERBOOK_STORE", str(store.root))
    with pytest.warns(fb.FewFaces):
        measured = fb.measure(
            stimulus, FROZEN, [SHORT], 2, 4, splits=["train"], layers=["output"], store=store, progress=False
        )
    assert measured.fisher_information.isel(replicate=0).notnull().all()
    ensemble = fb.train(stimulus, FROZEN, [SHORT], 2, store=store, progress=False)
    for layer in ("layer4", "features", "hidden1", "output"):
        responses, tangents = fb.record(ensemble, stimulus, 2, layer=layer).whole()
        assert responses.shape == tangents.shape == (2, 2, len(stimulus.faces.split("test")), responses.shape[-1])
    same = fb.train(bank, FROZEN, [SHORT], 2, store=store, progress=False)
    assert same.keys == ensemble.keys
    assert set(ensemble["uniform"]) == {
        f"{layer}.{part}" for layer in ("hidden1", "output") for part in ("weight", "bias")
    }


def test_a_finetuned_backbone_is_trained_and_recorded_with_exact_tangents(stimulus, finetuned):
    before, after = finetuned["initial"], finetuned["uniform"]
    moved = (after["backbone.conv1.weight"] - before["backbone.conv1.weight"]).abs().max()
    assert 0 < moved < 5e-4  # four steps of Adam
    assert not torch.equal(after["backbone.bn1.running_mean"], before["backbone.bn1.running_mean"])  # from random
    assert torch.equal(after["backbone.mean"], before["backbone.mean"])
    h = 1e-4
    activity = fb.record(finetuned, stimulus, [0.3, 0.3 - h, 0.3 + h])
    responses, tangents = activity.whole()
    slope = (responses[:, 2] - responses[:, 1]) / (2 * h)
    assert (tangents[:, 0] - slope).abs().median() < 0.1 * slope.abs().median()  # a relu or two switches in between
    assert activity.decoded().whole()[0].shape == (2, 3, len(stimulus.faces.split("test")), 1)


def test_training_in_turn_is_training_alone_and_goes_on_where_it_was_interrupted(
    stimulus, empty, finetuned, monkeypatch
):
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", -1.0)
    step, calls = training._step, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    with patch.object(training, "_step", failing), pytest.raises(KeyboardInterrupt):
        fb.train(stimulus, FINETUNED, [TUNING], [1], store=empty, progress=False)
    calls.clear()
    with patch.object(training, "_step", lambda *a: calls.append(1) or step(*a)):
        resumed = fb.train(stimulus, FINETUNED, [TUNING], [1], store=empty, progress=False)
    assert len(calls) == 2  # of four
    for name, tensor in resumed["uniform"].items():
        assert torch.allclose(tensor[0], finetuned["uniform"][name][1], atol=1e-5), name


def test_finetuning_goes_on_from_a_probe_of_the_same_frozen_backbone(stimulus, store, onward, probes, finetuned):
    probes, one = probes.select([1]), replace(SHORT, steps=2)
    stages = [replace(one, name="probe", backbone_rate=0.0), replace(one, name="all")]
    ensemble = fb.train(stimulus, onward, stages, [1], store=store, progress=False, start=probes.keys["uniform"])
    begun = finetuned["uniform"]["backbone.conv1.weight"][0]
    for stage, moved in {"initial": False, "probe": False, "all": True}.items():
        assert torch.equal(ensemble[stage]["backbone.conv1.weight"][0], begun) != moved
    for name, tensor in ensemble["all"].items():
        if "running" in name:
            assert torch.equal(tensor[0], finetuned["uniform"][name][0])  # statistics stay as they are
    assert torch.equal(ensemble["initial"]["hidden1.weight"], probes["uniform"]["hidden1.weight"])
    # while its backbone stays as it is, a fine-tuned network is the frozen one
    exact = fb.FeatureBank(stimulus, probes.network, store=store).exact()
    frozen = fb.record(probes, exact, [0.3, 2.0]).responses()
    assert torch.allclose(fb.record(ensemble, stimulus, [0.3, 2.0], stage="initial").responses(), frozen, atol=1e-3)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_come_from_a_file_and_are_keyed_by_its_contents(state, tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, file)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, file)
    read = resnet.load(str(file))
    assert all(torch.equal(read[name], state[name]) for name in state)
    network = fb.Network("resnet18", weights=file)
    keyed = network.keyed
    copy = tmp_path / f"copy{suffix}"
    copy.write_bytes(file.read_bytes())
    assert keyed == fb.Network("resnet18", weights=copy).keyed != fb.Network("resnet18").keyed


def test_weights_that_cannot_be_had_are_refused_in_one_sentence(state, tmp_path, monkeypatch, empty):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(URLError("offline")))
    where = re.escape(str(tmp_path / "hub" / "checkpoints"))
    with pytest.raises(FileNotFoundError, match=rf"resnet18-f37072fd.pth into {where}"):
        resnet.load("imagenet")
    with pytest.raises(FileNotFoundError, match="imagenet, random"):
        resnet.load("no_such_file.pt")
    with pytest.raises(ValueError, match="no trained weights of key"):
        resnet.load("0" * 64, empty)
    file = tmp_path / "odd.pt"
    torch.save({n: t for n, t in state.items() if n != "layer3.0.conv1.weight"}, file)
    with pytest.raises(ValueError, match=r"layer3\.0\.conv1\.weight is missing"):
        resnet.load(str(file))


def test_weights_of_another_network_or_that_are_none_are_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(resnet, "CONVOLUTIONS", {"conv1": (64, 3, 7)})  # small files
    file, state = tmp_path / "odd.pt", resnet.draw(networks.generator(0))
    odd = {
        r"it has layer1\.2\.conv1\.weight too": state | {"layer1.2.conv1.weight": torch.ones(1)},  # a deeper network's
        r"conv1\.weight has the shape \(2,\), not \(64, 3, 7, 7\)": state | {"conv1.weight": torch.ones(2)},
        r"not finite, in bn1\.bias": state | {"bn1.bias": torch.full((64,), torch.nan)},
        "it must hold a state dict": {"model": state},
        "must hold a state dict": [1, 2],
        "is no file of weights": "pickled",
    }
    for sentence, content in odd.items():
        torch.save(Unsafe() if content == "pickled" else content, file)
        with pytest.raises(ValueError, match=sentence) as refused:
            resnet.load(str(file))
        assert "pickl" not in str(refused.value) and refused.value.__context__ is None
    file.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="is no file of weights"):
        resnet.load(str(file))


def test_what_torchvision_keeps_beside_the_features_is_left_out(state, tmp_path):
    whole = state | {"fc.weight": torch.ones(1000, 512), "bn1.num_batches_tracked": torch.tensor(7)}
    torch.save(whole, tmp_path / "whole.pt")
    assert resnet.load(str(tmp_path / "whole.pt")).keys() == resnet.draw(torch.Generator()).keys()


def test_mixed_precision_is_refused_where_there_is_no_gpu(stimulus, store):
    stage = replace(SHORT, mixed_precision=True)
    with pytest.raises(ValueError, match="on a GPU"):
        fb.train(stimulus, FINETUNED, [stage], 1, device="cpu", store=store, progress=False)


def test_a_projection_is_fixed_and_keeps_tangents(stimulus, store):
    ensemble = fb.train(stimulus, fb.Network(hidden=(30, 20)), [SHORT], 2, store=store, progress=False)
    activity = fb.record(ensemble, stimulus, 5, layer="hidden1")
    few = activity.projected(4)
    responses, tangents = activity.whole()
    found, along = few.whole()
    weights = torch.linalg.lstsq(responses.flatten(0, 2), found.flatten(0, 2)).solution
    assert torch.allclose(responses @ weights, found, atol=1e-6)
    assert torch.allclose(tangents @ weights, along, atol=1e-5)
    assert torch.equal(activity.projected(4).whole()[0], found)
    assert activity.projected(4, seed=1).key != few.key != activity.key
