"""A replicate is bit for bit the same alone, among others, with any threads, resumed or trained again."""

from dataclasses import replace

import pytest
import torch

import fisherbook as fb
from fisherbook.network import training
from fisherbook.network.losses import LOSSES
from fisherbook.network.networks import NONLINEARITIES, alike
from fisherbook.network.readouts import READOUTS
from fisherbook.store import Store

# no number of samples times units is a whole number of vectors
NETWORK = fb.Network(hidden=(7, 5), dropout=0.2)
STAGES = [
    fb.Stage("first", fb.uniform(-1.5, 1.5), steps=7, batch=5, clip=0.1),
    fb.Stage("second", fb.uniform(-1.5, 1.5), steps=3, batch=5, optimizer_state="kept"),
]


@pytest.fixture(scope="module")
def stimulus():
    return fb.Stimulus(fb.load_faces("orl", 16, limit=40, folds=4, split_by="image"))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Draw for few steps at a time, and use what threads there are even for small steps."""
    monkeypatch.setattr(training, "_BLOCK", 4)
    monkeypatch.setattr(training, "_ONE_THREAD", 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def assert_same(stimulus, folder, network, stages, companies, dtype=torch.float32, threads=(1, 2)):
    """Assert that replicate 2 is the same among all of the companies, with each number of threads."""
    first = None
    for used in threads:
        torch.set_num_threads(used)
        for company in companies:
            store = Store(folder / f"{used}-{len(company)}")
            found = fb.train(stimulus, network, stages, company, 0, "cpu", dtype, store, progress=False).select([2])
            first = first or found
            assert found.keys == first.keys
            for stage, weights in found.weights.items():
                for name, tensor in weights.items():
                    assert torch.equal(tensor, first[stage][name]), (used, len(company), stage, name)
            for stage, loss in found.training_loss.items():
                assert torch.equal(loss.nan_to_num(-1), first.training_loss[stage].nan_to_num(-1))


def test_a_replicate_is_the_same_in_companies_of_1_2_3_5_and_16(stimulus, tmp_path):
    companies = [[2], [0, 2], [2, 1, 3], range(5), range(16)]
    assert_same(stimulus, tmp_path, NETWORK, STAGES, companies)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_a_replicate_is_the_same_in_any_company_with_every_nonlinearity(stimulus, tmp_path, nonlinearity):
    assert_same(stimulus, tmp_path, replace(NETWORK, nonlinearity=nonlinearity), STAGES, [[2], range(3)], threads=(2,))


@pytest.mark.parametrize(
    ("readout", "loss"),
    [*((r, "cosine") for r in READOUTS), *(("angular", loss) for loss in LOSSES if loss != "cosine"),
     *((r, "likelihood") for r, readout in READOUTS.items() if readout.likelihood)],
)  # fmt: skip
def test_a_replicate_is_the_same_in_any_company_with_every_readout_and_loss(stimulus, tmp_path, readout, loss):
    stage = replace(STAGES[0], loss=loss, clip=None)
    assert_same(stimulus, tmp_path, replace(NETWORK, readout=readout), [stage], [[2], range(3)], threads=(2,))


@pytest.mark.parametrize(("batch", "rotation"), [(1, "harmonic"), (3, "bilinear"), (33, "harmonic")])
def test_a_replicate_is_the_same_in_any_company_with_any_batch_and_rotation(stimulus, tmp_path, batch, rotation):
    stages = [replace(stage, batch=batch) for stage in STAGES]
    turned = fb.Stimulus(stimulus.faces, rotation)
    for dtype in (torch.float32, torch.float64):
        assert_same(turned, tmp_path / str(dtype), NETWORK, stages, [[2], range(3)], dtype)


def test_a_replicate_stops_early_and_goes_on_the_same_in_any_company(stimulus, tmp_path):
    network = replace(NETWORK, auxiliary=4)
    watched = replace(STAGES[0], steps=60, patience=8, learning_rate=1e-2, auxiliary="identity", weight=0.3)
    stages = [watched, replace(STAGES[1], steps=8)]
    among = fb.train(stimulus, network, stages, 3, store=Store(tmp_path), progress=False)
    stopped = among.training_loss["first"].isfinite().sum(1)
    assert len(set(stopped.tolist())) > 1 and not among.failures
    assert_same(stimulus, tmp_path, network, stages, [[2], range(3), range(5)], threads=(1,))


def test_a_fourth_replicate_later_and_a_lost_file_trained_again_give_the_same_numbers(stimulus, tmp_path):
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    train = {"progress": False, "device": "cpu"}
    at_once = fb.train(stimulus, NETWORK, STAGES, 4, store=one, **train)
    fb.train(stimulus, NETWORK, STAGES, 3, store=other, **train)
    for again in ("a fourth", "a lost file"):
        later = fb.train(stimulus, NETWORK, STAGES, 4, store=other, **train)
        for stage, weights in at_once.weights.items():
            assert all(torch.equal(later[stage][name], tensor) for name, tensor in weights.items()), again
        other.remove("weights", at_once.keys["second"][1], ".pt")
    start = at_once.keys["first"]
    together = fb.train(stimulus, NETWORK, STAGES[1:], 4, store=one, start=start, **train)
    alone = fb.train(stimulus, NETWORK, STAGES[1:], [3], store=other, start=start[3:], **train)
    assert torch.equal(together["second"]["hidden1.weight"][3], alone["second"]["hidden1.weight"][0])


def test_many_numbers_shared_among_threads_are_each_as_they_are_alone():
    currents = torch.randn(3, 97, 301, generator=torch.Generator().manual_seed(0)).mT
    function = NONLINEARITIES["celu"]
    torch.set_num_threads(1)
    alone = torch.cat([alike(function, one[None]) for one in currents])
    assert torch.allclose(alone, function(currents), atol=1e-6)
    torch.set_num_threads(3)
    assert torch.equal(alike(function, currents), alone)


def test_on_a_gpu_the_company_is_part_of_the_key(stimulus):
    run = training._Run(stimulus, NETWORK, 0, "cuda", torch.float32, False)
    assert not run.apart and replace(run, device="cpu").apart
    assert run.key(STAGES, 0) != replace(run, company=(0, 1)).key(STAGES, 0)
