"""Backbones trained on upright faces: what they are shown is never turned, and an interrupted training goes on."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import fisherbook as fb
from fisherbook.network import upright
from fisherbook.store import Store

HOW = upright.SimCLR(steps=6, batch=8, every=2)


@pytest.fixture(scope="module")
def images():
    return fb.load_faces("orl", 16, limit=40).images


def test_views_are_cropped_and_mirrored_and_never_turned():
    down = torch.linspace(0.2, 0.8, 32)[None, None, :, None].expand(64, 1, 32, 32)
    seen = upright.view(down, upright.SimCLR(colour=0.0), torch.Generator().manual_seed(0))
    assert seen.shape == (64, 3, 32, 32)
    assert (seen.diff(dim=2) > -1e-6).all() and seen.diff(dim=3).abs().max() < 1e-6
    across = upright.view(down.mT, upright.SimCLR(colour=0.0), torch.Generator().manual_seed(0))
    rises = across[:, 0, 16].diff(dim=1).mean(1) > 0
    assert 10 < rises.sum() < 54


def test_the_contrast_of_views_that_are_all_alike_is_a_guess():
    alike = torch.nn.functional.normalize(torch.ones(8, 4), dim=1)
    assert float(upright.contrast(alike, 0.5)) == pytest.approx(math.log(7))
    apart = torch.eye(4).repeat(2, 1)
    assert float(upright.contrast(apart, 0.05)) < 1e-6


def test_an_interrupted_training_goes_on_where_it_ended(images, tmp_path, monkeypatch):
    whole, losses = upright.train(images, HOW, 0, "cpu", Store(tmp_path / "whole"), progress=False)
    store, put = Store(tmp_path / "halves"), Store.put

    def fails(self, kind, key, *rest):
        put(self, kind, key, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", fails)
        with pytest.raises(KeyboardInterrupt):
            upright.train(images, HOW, 0, "cpu", store, progress=False)
    steps = []
    monkeypatch.setattr(upright, "view", lambda *a, real=upright.view: steps.append(1) or real(*a))
    key, again = upright.train(images, HOW, 0, "cpu", store, progress=False)
    assert key == whole and len(steps) == 2 * 4
    np.testing.assert_allclose(again, losses, rtol=1e-4)
    assert not list((tmp_path / "halves" / "upright").glob("*.pt"))


def test_the_same_backbone_asked_for_twice_is_trained_once(tmp_path, images, monkeypatch):
    steps = []
    monkeypatch.setattr(upright, "view", lambda *a, real=upright.view: steps.append(1) or real(*a))

    def ask(_):
        return upright.train(images, HOW, 0, "cpu", Store(tmp_path), progress=False)

    with ThreadPoolExecutor(2) as pool:
        (key, losses), (other, same) = pool.map(ask, range(2))
    assert key == other and (losses == same).all()
    assert len(steps) == 2 * HOW.steps


def test_training_learns_and_its_weights_go_into_a_network(images, tmp_path):
    store = Store(tmp_path)
    key, losses = upright.train(images, upright.SimCLR(steps=30, batch=32, every=30), 1, "cpu", store, progress=False)
    assert losses[-5:].mean() < losses[:5].mean() - 0.2
    found = upright.features(key, images[:3], store)
    assert found.shape == (3, 512) and np.isfinite(found).all()
    network = fb.Network("resnet18", weights=key, bank=4)
    bank = fb.FeatureBank(fb.Stimulus(fb.load_faces("orl", 16, limit=20)), network, store=store)
    assert len(bank.aperture) == 512


def test_too_few_images_are_refused(images, tmp_path):
    with pytest.raises(ValueError, match="at least as many as a batch of 8, not 3"):
        upright.train(images[:3], HOW, store=Store(tmp_path))
