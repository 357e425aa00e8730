import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

import fisherbook as fb
from fisherbook.iteration import schemes
from fisherbook.store import Store

pytestmark = pytest.mark.slow

STIMULUS = {"source": "orl", "size": 16, "folds": 2, "limit": 100}
SCRIPT = """
import sys, torch, fisherbook as fb
torch.set_num_threads(1)
from fisherbook.iteration import schemes
from test_finetuning import networks, STIMULUS
from fisherbook.store import Store
from pathlib import Path
fb.adapt(networks(Store(Path(sys.argv[1]))), "plain", schemes.multisines(2, 32), 30, store=Store(Path(sys.argv[1])))
"""


def networks(store, **options):
    pretraining, finetuning = (fb.Stage(n, fb.uniform(), steps=s, batch=8) for n, s in (("uniform", 60), ("tuned", 20)))
    stimulus = fb.Stimulus(fb.load_faces(**STIMULUS))
    options = {"replicates": 2, "angles": 32} | options
    return fb.Networks(stimulus, fb.Network(hidden=(12, 6)), pretraining, finetuning, store=store, **options)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def counted(monkeypatch):
    calls, original = [], fb.Networks.__call__
    monkeypatch.setattr(fb.Networks, "__call__", lambda self, d: calls.append(len(d)) or original(self, d))
    return calls


def test_a_chain_goes_on_where_it_ended_and_shares_its_beginning(store, monkeypatch):
    calls, starts = counted(monkeypatch), schemes.multisines(2, 32)
    short = fb.adapt(networks(store), "plain", starts, 2, store=store)
    whole = fb.adapt(networks(store), "plain", starts, 3, store=store)
    fb.adapt(networks(store), "damped", starts, 1, store=store)
    assert calls == [1, 2, 3]
    assert np.array_equal(short.log_density, whole.log_density[:3])
    xr.testing.assert_identical(whole, fb.adapt(networks(store), "plain", starts, 3, store=store))


def test_a_chain_does_not_see_the_others(store, tmp_path):
    starts = schemes.multisines(3, 32)
    three = networks(store)(starts[None])
    one = networks(Store(tmp_path / "b"))(starts[None, :1])
    assert np.abs(three[:1] - one).max() < 1e-3 < np.abs(three[1:] - one).max()


@pytest.mark.parametrize("options", [
    {"pretrained": "redrawn"}, {"pretrained": "redrawn", "pool": 2}, {"warm": True},
])  # fmt: skip
def test_variants_run_and_differ(store, options):
    densities = np.stack([schemes.multisines(2, 32)] * 2)
    ours, plain = networks(store, **options), networks(store)
    assert ours.key != plain.key and np.isfinite(ours(densities)).all()
    assert np.abs(ours(densities) - plain(densities)).max() > 1e-3


def test_chains_with_a_pretrained_network_of_their_own_need_one_fold(store):
    with pytest.raises(ValueError, match="folds"):
        networks(store, pretrained="chain")
    with pytest.raises(ValueError, match="densities has 16, curves has 32"):
        networks(store)(schemes.multisines(2, 16)[None])


@pytest.mark.filterwarnings("ignore:.*counts as absent")  # what was half-written when it was killed
def test_a_killed_run_resumes_with_nothing_recomputed_but_the_piece_in_flight(tmp_path, monkeypatch):
    sealed = "adaptation/[!.]*.sidecar"  # not those half-written, which begin with a dot
    env = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], env=env, stderr=subprocess.DEVNULL) as process:
        began = time.monotonic()
        while len(list(tmp_path.glob(sealed))) < 2 and time.monotonic() - began < 300:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    done = len(list(tmp_path.glob(sealed)))
    calls = counted(monkeypatch)
    store = Store(tmp_path)
    resumed = fb.adapt(networks(store), "plain", schemes.multisines(2, 32), done + 2, store=store)
    assert 2 <= done < 30 and calls == [done + 1, done + 2]
    again = fb.adapt(networks(store), "plain", schemes.multisines(2, 32), done + 2, store=store)
    xr.testing.assert_identical(again, resumed)
    # Another process may add up in another order, and training makes much of the last digit: not to the last digit.
    clean = Store(tmp_path / "clean")
    uninterrupted = fb.adapt(networks(clean), "plain", schemes.multisines(2, 32), done + 2, store=clean)
    xr.testing.assert_allclose(resumed, uninterrupted, atol=1e-3)
