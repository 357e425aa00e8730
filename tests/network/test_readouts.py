"""The readouts `bins` and `von_mises`: what they report, their likelihoods, and that training learns with them."""

import numpy as np
import pytest
import torch
from scipy import stats

import fisherbook as fb
from fisherbook import derivative
from fisherbook.network.readouts import BINS, READOUTS
from fisherbook.store import Store

LIKELY = [name for name, readout in READOUTS.items() if readout.likelihood]
TURN = 2 * np.pi


def drawn(readout, count=200, seed=0):
    """Random outputs (sample, unit) and angles (sample,) in rad."""
    rng = np.random.default_rng(seed)
    outputs = 3 * rng.normal(size=(count, READOUTS[readout].outputs))
    return torch.from_numpy(outputs), torch.from_numpy(rng.uniform(-np.pi, np.pi, count))


def test_the_likelihood_of_von_mises_is_scipys():
    outputs, angles = drawn("von_mises")
    kappa, mean = np.hypot(*outputs.T.numpy()), np.arctan2(*outputs.T.numpy()[::-1])
    found = READOUTS["von_mises"].likelihood(outputs, angles)
    assert np.allclose(found, -stats.vonmises.logpdf(angles, kappa, mean))
    concentrated = torch.tensor([[3e4, 0.0]])
    assert (
        READOUTS["von_mises"]
        .likelihood(concentrated, torch.zeros(1))
        .isclose(torch.tensor(-stats.norm.logpdf(0, scale=3e4**-0.5)).float(), rtol=1e-3)
    )


def test_the_likelihood_of_bins_is_the_bins_probability_per_width():
    outputs, angles = drawn("bins")
    probability = np.exp(outputs.numpy()) / np.exp(outputs.numpy()).sum(1, keepdims=True)
    edges = np.linspace(-np.pi, np.pi, BINS + 1)
    chosen = np.digitize(angles, edges) - 1
    density = probability[np.arange(len(angles)), chosen] / (TURN / BINS)
    assert np.allclose(READOUTS["bins"].likelihood(outputs, angles), -np.log(density))


@pytest.mark.parametrize("name", LIKELY)
def test_a_likelihood_is_that_of_a_density_over_the_circle(name):
    outputs = drawn(name, 20)[0][:, None].expand(-1, 4096, -1)
    angles = torch.from_numpy(fb.grid(4096) + 1e-4).expand(20, -1)
    loss = READOUTS[name].likelihood(outputs, angles)
    assert torch.allclose((-loss).exp().mean(1) * TURN, torch.ones(20).double(), atol=1e-9)
    assert torch.allclose(loss, READOUTS[name].likelihood(outputs, angles + TURN))


@pytest.mark.parametrize("name", LIKELY)
def test_a_likelihood_has_a_finite_gradient_at_zero_and_at_the_edge(name):
    outputs = torch.zeros((3, READOUTS[name].outputs), requires_grad=True)
    loss = READOUTS[name].likelihood(outputs, torch.tensor([-np.pi, 0.0, np.pi], dtype=torch.float32))
    (slope,) = torch.autograd.grad(loss.sum(), outputs)
    assert torch.allclose(loss, torch.tensor(TURN).log()) and slope.isfinite().all() and slope.abs().max() > 0.05


def test_bins_report_the_circular_mean_of_their_centres():
    readout, centres = READOUTS["bins"], fb.grid(BINS) + np.pi / BINS
    sure = 200 * torch.eye(BINS, dtype=torch.float64)
    assert np.allclose(readout.decode(sure), centres)
    between = sure[-1] + sure[0]  # the last bin and the first: the mean is ±π
    assert readout.error(between, torch.tensor(np.pi, dtype=torch.float64)).abs() < 1e-12
    weights = torch.from_numpy(stats.vonmises.pdf(centres, 2.0, 1.234)).log()
    assert readout.decode(weights).isclose(torch.tensor(1.234).double(), atol=1e-6)


@pytest.mark.parametrize("name", READOUTS)
def test_the_slope_of_the_reported_angle_is_that_of_finite_differences(name):
    outputs, _ = drawn(name)
    along = torch.from_numpy(np.random.default_rng(1).normal(size=outputs.shape))
    reported, slope = derivative.along(READOUTS[name].decode, outputs, along)
    ahead, behind = (READOUTS[name].error(outputs + step * along, reported) for step in (1e-6, -1e-6))
    assert torch.allclose(slope, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def stimulus():
    return fb.Stimulus(fb.load_faces("orl", size=16, folds=4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:there is no logarithm of the plug-in")  # of 16 bins above 10 units
@pytest.mark.parametrize("name", LIKELY)
def test_a_likelihood_teaches_the_angle(name, stimulus, tmp_path):
    stage = fb.Stage("uniform", fb.uniform(), loss="likelihood", steps=400, batch=32)
    options = {"store": Store(tmp_path), "progress": False}
    measured = fb.measure(
        stimulus, fb.Network(hidden=(30, 10), readout=name), [stage], 2, angles=12,
        estimators=["decoded"], splits=["train"], **options,
    )  # fmt: skip
    rmse = (measured.rmse**2).mean("angle") ** 0.5
    assert (measured.training_loss[:, :5].mean("step") > 0.9 * np.log(TURN)).all()
    assert (measured.training_loss[:, -50:].mean("step") < 0.6 * np.log(TURN)).all()
    assert (rmse.sel(stage="uniform") < 0.6 * rmse.sel(stage="initial")).all()
    assert (measured.fisher_information.sel(stage="uniform").mean("angle") > 0.5).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELY)
def test_a_likelihood_knows_a_stimulus_that_repeats_after_half_a_turn(name, tmp_path):
    gratings = fb.Stimulus(fb.load_faces("gratings", size=16, limit=200))
    stage = fb.Stage("uniform", fb.uniform(), loss="likelihood", steps=300, batch=32)
    network = fb.Network(hidden=(30, 10), readout=name)
    loss = fb.train(gratings, network, [stage], 1, store=Store(tmp_path), progress=False).training_loss["uniform"]
    assert loss[0, -50:].mean() < 0.6 * np.log(TURN)


@pytest.mark.slow
def test_early_stopping_watches_the_likelihood_itself(stimulus, tmp_path):
    stages = [
        fb.Stage("uniform", fb.uniform(), loss="likelihood", steps=steps, batch=8, patience=64) for steps in (64, 1024)
    ]
    network = fb.Network(hidden=(30, 10), readout="von_mises")
    few, many = (fb.train(stimulus, network, [s], 1, store=Store(tmp_path), progress=False) for s in stages)
    judge = fb.record(many, stimulus, 60, "test")
    losses = [
        READOUTS["von_mises"].likelihood(judge_of.responses(), torch.from_numpy(fb.grid(60))[:, None]).mean()
        for judge_of in (fb.record(few, stimulus, 60, "test"), judge)
    ]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", ["angular", "linear"])
def test_a_readout_without_a_likelihood_says_so(name, stimulus):
    stage = fb.Stage("half", fb.uniform(-1.5, 1.5), loss="likelihood")
    with pytest.raises(ValueError, match=f"the {name} readout has no likelihood .* have: bins, von_mises"):
        fb.train(stimulus, fb.Network(readout=name), [stage])
