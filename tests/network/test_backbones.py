"""Modules of the reader's own as backbones: a small network and one of torchvision's, frozen and trained."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_1

import fisherbook as fb
from fisherbook.network.backbones import TorchBackbone, features, first, read
from fisherbook.network.banks import record_features
from fisherbook.store import Store

STAGE = fb.Stage("uniform", fb.uniform(), steps=3, batch=4)
AT = torch.tensor([0.3, -2.0], dtype=torch.float64)
FACES = torch.tensor([3, 7])


class Small(nn.Module):
    """A network of three channels with a norm, dropout and an operation in place."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain
        self.register_buffer("mean", torch.tensor(0.5))  # a normalisation of its own
        self.conv = nn.Conv2d(3, 4, 5, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.GELU()
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        x = self.drop(self.act(self.norm(self.conv((images - self.mean) * self.gain))))
        return x.mul_(2).mean((2, 3))


class Steps(torch.autograd.Function):
    """A softplus that knows no forward-mode derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return nn.functional.softplus(x)

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.saved_tensors[0].sigmoid()


class Backward(Small):
    def forward(self, images):
        return Steps.apply(self.conv(images)).flatten(1)


@pytest.fixture(autouse=True)
def _may_draw(may_draw, monkeypatch):
    monkeypatch.setattr("fisherbook.network.probes._CALIBRATION", 32)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def stimulus():
    return fb.Stimulus(fb.load_faces("orl", 32, limit=100, folds=2, split_by="image"))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("FISHERBOOK_STORE", str(tmp_path))
    return Store(tmp_path)


def probe(module, **options):
    return fb.Network(backbone=module, hidden=(6,), bank=4, **options)


def turned(stimulus, angles, tangents=False):
    pixels = stimulus.pixels(FACES, angles, tangents, torch.float32)
    return stimulus.embed(pixels, tangents).expand(-1, 3, -1, -1)


def test_features_and_tangents_are_the_modules_own_on_images_of_three_channels(stimulus):
    module = Small()
    own = TorchBackbone.of(module)
    values, tangents = record_features(own.ready(own.state((), None)), stimulus, FACES, AT)
    with torch.no_grad():
        assert torch.allclose(values, module.eval()(turned(stimulus, AT)), atol=1e-6)
        ahead, behind = (module.double()(turned(stimulus, AT + h).double()) for h in (1e-4, -1e-4))
    slope = (ahead - behind) / 2e-4
    assert (tangents - slope).abs().max() < 2e-3 * slope.abs().max()


def test_where_there_is_no_forward_mode_differences_of_the_images_stand_in(stimulus):
    own = TorchBackbone.of(Backward())
    respond = own.ready(own.state((), None))
    values, tangents = record_features(respond, stimulus, FACES, AT)
    weight, bias = own.module.conv.weight.detach(), own.module.conv.bias.detach()
    currents = nn.functional.conv2d(turned(stimulus, AT), weight, bias, 2)
    along = nn.functional.conv2d(turned(stimulus, AT, True), weight, None, 2)
    assert torch.allclose(values, nn.functional.softplus(currents).flatten(1), atol=1e-6)
    expected = (currents.sigmoid() * along).flatten(1)
    assert (tangents - expected).abs().max() < 2e-3 * expected.abs().max()


@pytest.mark.parametrize("make", [Small, lambda: nn.Sequential(squeezenet1_1(weights=None).features, nn.Flatten())])
def test_a_frozen_module_is_trained_recorded_and_measured_from_its_bank(stimulus, store, make):
    module = make().eval()
    network = probe(module)
    with warnings.catch_warnings(action="ignore", category=fb.FewFaces):
        measured = fb.measure(stimulus, network, [STAGE], 2, 2, splits=["train"], store=store, progress=False)
    assert measured.fisher_information.isel(stage=-1).notnull().all()
    ensemble = fb.train(stimulus, network, [STAGE], 2, store=store, progress=False)
    assert set(ensemble["uniform"]) == {"hidden1.weight", "hidden1.bias", "output.weight", "output.bias"}
    features = fb.record(ensemble, stimulus, fb.grid(4)[:2], [3, 7], layer="features").responses()
    with torch.no_grad():
        expected = module(turned(stimulus, torch.from_numpy(fb.grid(4)[:1]).repeat(2)))
    assert ensemble["uniform"]["hidden1.weight"].shape[-1] == expected.shape[1]
    assert torch.allclose(features[0, 0].float(), expected, atol=1e-5 * float(expected.abs().max()))
    bank = fb.FeatureBank(stimulus, network, store=store)
    assert fb.train(bank, network, [STAGE], 2, store=store, progress=False).keys == ensemble.keys


def test_a_modules_inner_layers_are_recorded_as_they_leave_it(stimulus, store):
    module = Small().eval()
    ensemble = fb.train(stimulus, probe(module), [STAGE], 1, store=store, progress=False)
    assert "backbone.conv" in ensemble.network.layers
    found = fb.record(ensemble, stimulus, AT[:1].numpy(), [3, 7], layer="backbone.act").responses()
    with torch.no_grad():
        shown = turned(stimulus, AT[:1].repeat(2))
        expected = module.act(module.norm(module.conv(shown - 0.5)))  # before it is doubled in place
    assert torch.allclose(found[0, 0].float(), expected.flatten(1), atol=1e-5)


def test_a_tuned_module_is_trained_with_its_probe_in_stages(stimulus, store):
    module = Small()
    module.conv.bias.requires_grad_(False)
    network, slow = probe(module, tuned=True), replace(STAGE, name="slow", backbone_rate=0.0)
    ensemble = fb.train(stimulus, network, [slow, STAGE], 2, store=store, progress=False)
    weight = "backbone.module.conv.weight"
    assert torch.equal(ensemble["initial"][weight], ensemble["slow"][weight])
    moved = (ensemble["uniform"][weight] - ensemble["slow"][weight]).abs().max()
    assert 0 < moved < 5e-3  # three steps of Adam
    for fixed in ("conv.bias", "norm.running_mean", "mean"):
        assert torch.equal(
            ensemble["uniform"][f"backbone.module.{fixed}"], ensemble["initial"][f"backbone.module.{fixed}"]
        )
    h = 1e-3
    responses, tangents = fb.record(ensemble, stimulus, [0.3, 0.3 - h, 0.3 + h]).whole()
    slope = (responses[:, 2] - responses[:, 1]) / (2 * h)
    assert (tangents[:, 0] - slope).abs().max() < 0.01 * slope.abs().max()
    assert torch.equal(module.conv.weight, ensemble["initial"][weight][0])  # the reader's own is left alone
    ensemble.save(store.root / "ensemble.pt")
    loaded = fb.Ensemble.load(store.root / "ensemble.pt", backbone=module)
    assert loaded.network == network and torch.equal(loaded["uniform"][weight], ensemble["uniform"][weight])
    for other in (None, Small()):
        with pytest.raises(ValueError, match=r"a Small with its weights of then: give it as Ensemble\.load"):
            fb.Ensemble.load(store.root / "ensemble.pt", backbone=other)


def test_keys_hold_what_a_module_is_and_not_how_it_was_trained_afterwards(stimulus):
    module = Small()
    network, same = probe(module), probe(module)
    assert network == same and network.keyed == same.keyed
    changed = Small()
    changed.load_state_dict(module.state_dict())
    assert probe(changed) == network
    changed.act = nn.ReLU()
    louder = Small(gain=2.0)
    louder.load_state_dict(module.state_dict())
    moved = Small()
    with torch.no_grad():
        module.conv.weight[0, 0, 0, 0] += 1
    assert len({probe(m) for m in (changed, louder, moved, module)} | {network}) == 5


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: fb.Network(tuned=True), "a module must be given as backbone"),
        (lambda: fb.Network("module"), "a module must be given as backbone"),
        (lambda: fb.Network("resnet18", backbone="frozn"), "backbone must be one of frozen, finetuned"),
        (lambda: probe(nn.Linear(2, 1).requires_grad_(False).apply(poisoned)), "weight holds NaN or an infinity"),
    ],
)
def test_a_bad_backbone_meets_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def poisoned(module):
    module.weight.data[:] = np.nan


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Linear(7, 2), r"backbone must map images of shape \(sample, 1, 32, 32\) to one tensor"),
        (nn.MaxPool2d(2, return_indices=True), "to one tensor"),
        (nn.Threshold(9.0, 0.0), "features must be finite and differ between images"),
    ],
)
def test_a_backbone_that_does_not_fit_the_images_meets_one_sentence(stimulus, store, module, sentence):
    with pytest.raises(ValueError, match=sentence):
        fb.train(stimulus, probe(module), [STAGE], 1, store=store, progress=False)


MADE = """
import torch
SCALE = 2.0
class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pad = torch.nn.ZeroPad2d(1)
        self.conv = torch.nn.Conv2d(3, 2, 3)
    def forward(self, images):
        return self.conv(self.pad(SCALE * images)).mean((2, 3))
def backbone():
    torch.manual_seed(0)
    return Scaled()
"""


def test_a_file_makes_a_backbone_that_is_known_by_the_files_text(tmp_path):
    (tmp_path / "one.py").write_text(MADE)
    (tmp_path / "two.py").write_text(MADE.replace("2.0", "3.0"))
    one, same, two = (read(tmp_path / f"{name}.py") for name in ("one", "one", "two"))
    assert probe(one) == probe(same) != probe(two)
    assert first(one) == "backbone.conv" in probe(one).layers
    assert first(nn.ReLU()) == "features"
    images = np.random.default_rng(0).random((5, 1, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = one(torch.from_numpy(images).expand(-1, 3, -1, -1)).numpy()
    assert np.allclose(features(one, images), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "import nothing_of_that_name",
            "own.py stopped with ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
        ("def backbone(:", "own.py stopped with SyntaxError"),
        ("def other(): pass", r"own.py must have a function backbone\(\) that returns a torch module"),
        ("def backbone(): return 3", r"own.py must have a function backbone\(\) that returns a torch module"),
    ],
)
def test_a_file_that_makes_no_backbone_meets_one_sentence(tmp_path, text, sentence):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path / "own.py")


def test_a_file_that_is_not_there_meets_one_sentence():
    with pytest.raises(FileNotFoundError, match=r"there is no file 'own\.py' whose function backbone\(\) returns"):
        read("own.py")


class Acting(nn.Module):
    """A module whose numbers follow from what is no weight of it."""

    def __init__(self, act=torch.tanh, **given):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.act = nn.Linear(144, 4), act
        vars(self).update(given)

    def forward(self, images):
        return self.act(self.linear(images.flatten(1))) * FACTOR


FACTOR = 5.0


class Slotted:
    """An object that shows nothing of itself."""

    __slots__ = ()


def scaled(factor):
    return lambda x: factor * x


def test_a_backbone_is_known_by_all_that_decides_what_it_does(monkeypatch):
    given = [torch.ones(2), torch.zeros(2), np.ones(3), {"a": 1}, {"a": 2}, [torch.sin], {1, 2}]
    modules = [Acting(act) for act in (torch.tanh, torch.sin, scaled(2), scaled(3), lambda x: x + 1, lambda x: x + 2)]
    modules += [Acting(given=one) for one in given] + [type("Acting", (Acting,), {"forward": lambda self, x: x})()]
    known = [TorchBackbone.of(module).contents for module in modules]
    assert len(set(known)) == len(known)
    assert known[3] == TorchBackbone.of(Acting(scaled(3))).contents
    monkeypatch.setattr(f"{__name__}.FACTOR", 6.0)
    assert TorchBackbone.of(Acting()).contents != known[0]
    with pytest.raises(ValueError, match="backbone holds a Slotted, of which cannot be told what it does"):
        TorchBackbone.of(Acting(given=Slotted()))


def test_a_backbone_is_known_by_the_same_digest_in_another_process():
    text = (
        "from torch import nn; import torch; torch.manual_seed(0)\n"
        "from fisherbook.network.backbones import TorchBackbone\n"
        "module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()); module.act = torch.tanh\n"
        "module.names = {'b', 'a', 'c'}\n"
        "print(TorchBackbone.of(module).contents)"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", text], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True
        ).stdout
        for seed in "12"
    ]
    assert found[0] == found[1] and len(found[0]) > 60


class Detached(Acting):
    """Its forward-mode derivative leaves out what is detached."""

    def forward(self, images):
        h = torch.tanh(self.linear(images.flatten(1)))
        return h / h.norm(dim=1, keepdim=True).detach()


def test_a_wrong_derivative_of_a_backbone_is_replaced_by_differences():
    own = TorchBackbone.of(Detached())
    images, tangents = torch.rand(3, 1, 12, 12), torch.randn(3, 1, 12, 12)
    _, slopes = own.ready(own.state((), None))(images, tangents, "features")
    exact = own.module.double()
    with torch.no_grad():
        far, near = (exact(images.double() + h * tangents.double()) for h in (-1e-5, 1e-5))
    torch.testing.assert_close(slopes.double(), (near - far) / 2e-5, rtol=2e-2, atol=2e-2)
