import dataclasses

import numpy as np
import pytest
import torch

import fisherbook as fb
from fisherbook.network import training
from fisherbook.store import Store

NETWORK = fb.Network(hidden=(12, 6), dropout=0.2)
STAGES = [
    fb.Stage("uniform", fb.uniform(), steps=70, batch=8, clip=0.5),
    fb.Stage("focused", fb.von_mises(1.0, 3.0), loss="square_root", steps=20, batch=8, optimizer_state="kept"),
]


@pytest.fixture(scope="module")
def stimulus():
    return fb.Stimulus(fb.load_faces("orl", size=16, folds=4))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def train(stimulus, store, stages=STAGES, network=NETWORK, replicates=3, **options):
    return fb.train(stimulus, network, stages, replicates, store=store, progress=False, **options)


@pytest.mark.slow
def test_training_lowers_the_loss(stimulus, store):
    stage = fb.Stage("uniform", fb.uniform(), steps=400, batch=32)
    loss = train(stimulus, store, [stage], fb.Network(hidden=(30, 10)), 2).training_loss["uniform"]
    assert loss.shape == (2, 400) and (loss[:, -50:].mean(1) < 0.6 * loss[:, :50].mean(1)).all()


def test_a_replicate_alone_equals_the_same_replicate_among_others(stimulus, tmp_path):
    alone = train(stimulus, Store(tmp_path / "a"), replicates=[2])
    among = train(stimulus, Store(tmp_path / "b"), replicates=5)
    for stage in ("initial", "uniform", "focused"):
        for name, tensor in among[stage].items():
            assert torch.equal(tensor[2], alone[stage][name][0])
    assert torch.equal(among.training_loss["focused"][2], alone.training_loss["focused"][0])


def test_replicates_differ(stimulus, store):
    weight = train(stimulus, store)["focused"]["hidden1.weight"]
    assert (weight[0] - weight[1]).abs().max() > 0.01


@pytest.mark.slow
def test_more_replicates_train_only_the_new_ones(stimulus, store, monkeypatch):
    first = train(stimulus, store, replicates=2)
    asked = []
    original = training._train_stage
    monkeypatch.setattr(training, "_train_stage", lambda r, s, reps, *a: asked.append(reps) or original(r, s, reps, *a))
    more = train(stimulus, store, replicates=4)
    assert asked == [[2, 3], [2, 3]]
    assert torch.equal(more["focused"]["output.bias"][:2], first["focused"]["output.bias"])
    train(stimulus, store, replicates=4)
    assert len(asked) == 2


def test_curricula_that_begin_alike_share_their_beginning(stimulus, store):
    train(stimulus, store, STAGES[:1])
    files = set((store.root / "weights").glob("*.pt"))
    train(stimulus, store, STAGES)
    assert len(set((store.root / "weights").glob("*.pt")) - files) == 3


@pytest.mark.slow
def test_keeping_adams_state_differs_from_resetting_it(stimulus, store):
    reset = [STAGES[0], dataclasses.replace(STAGES[1], optimizer_state="reset")]
    kept, started_anew = train(stimulus, store), train(stimulus, store, reset)
    assert not torch.equal(kept["focused"]["output.bias"], started_anew["focused"]["output.bias"])


@pytest.mark.slow
def test_one_long_stage_equals_the_same_steps_interrupted(stimulus, tmp_path, monkeypatch):
    whole = train(stimulus, Store(tmp_path / "a"), STAGES[:1])
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 0.0)
    store, steps = Store(tmp_path / "b"), []
    original = training._step

    def dies_at_step_67(*arguments):
        steps.append(0)
        if len(steps) == 67:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(training, "_step", dies_at_step_67)
    with pytest.raises(KeyboardInterrupt):
        train(stimulus, store, STAGES[:1])
    monkeypatch.setattr(training, "_step", original)
    resumed = train(stimulus, store, STAGES[:1])
    assert torch.equal(whole["uniform"]["hidden1.weight"], resumed["uniform"]["hidden1.weight"])
    assert not list((store.root / "interim").glob("*.pt"))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_reported_and_leaves_the_other_replicates_intact(stimulus, tmp_path, monkeypatch):
    whole = train(stimulus, Store(tmp_path / "a"))
    original = training._Run.initialise

    def poisoned(self, replicate):
        drawn = original(self, replicate)
        return {n: t * torch.nan for n, t in drawn.items()} if replicate == 1 else drawn

    monkeypatch.setattr(training._Run, "initialise", poisoned)
    with pytest.warns(RuntimeWarning, match="the loss of replicate 1 is not finite in stage 'uniform' at step 0"):
        broken = train(stimulus, Store(tmp_path / "b"))
    assert list(broken.failures) == [1]
    for r in (0, 2):
        assert torch.allclose(broken["focused"]["hidden1.weight"][r], whole["focused"]["hidden1.weight"][r], atol=1e-6)


def test_clipping_bounds_each_replicates_own_gradient(stimulus, store, monkeypatch):
    norms = []
    original = training._Adam.step

    def watched(self, gradients, scale):
        original(self, gradients, scale)
        norms.append(self._gradient.square().sum(1).sqrt())

    monkeypatch.setattr(training._Adam, "step", watched)
    train(stimulus, store, [fb.Stage("clipped", fb.uniform(), steps=20, clip=0.01)])
    norms = torch.stack(norms)
    assert norms.max() <= 0.01 * (1 + 1e-5) and norms.shape == (20, 3)


@pytest.mark.slow
def test_early_stopping_keeps_each_replicate_at_its_best(stimulus, tmp_path):
    stage = fb.Stage("uniform", fb.uniform(), steps=2000, batch=8, patience=128, learning_rate=3e-3)
    alone = train(
        stimulus,
        Store(tmp_path / "a"),
        [stage],
        fb.Network(hidden=(12,)),
        replicates=[1],
        dtype=torch.float64,
    )
    among = train(stimulus, Store(tmp_path / "b"), [stage], fb.Network(hidden=(12,)), replicates=3, dtype=torch.float64)
    trained = among.training_loss["uniform"].isfinite().sum(1)
    assert trained.max() < 2000 and len(set(trained.tolist())) > 1
    assert (alone["uniform"]["hidden1.weight"][0] - among["uniform"]["hidden1.weight"][1]).abs().max() < 1e-9
    assert not among.failures


def test_the_same_faces_and_uniforms_are_drawn_whatever_the_density(stimulus):
    run = training._Run(stimulus, NETWORK, 0, "cpu", torch.float32, False)
    one = training._draw(run, STAGES[0], [0, 1], 0)
    other = training._draw(run, dataclasses.replace(STAGES[0], density=fb.von_mises(0, 2)), [0, 1], 0)
    assert torch.equal(one["face"], other["face"])
    ranks = [draw["angle"][0].flatten().argsort() for draw in (one, other)]
    assert torch.equal(*ranks)
    for r in (0, 1):
        assert np.isin(one["face"][r].numpy(), stimulus.faces.split("train", fold=r)).all()


def test_an_ensemble_is_saved_and_loaded_whole(stimulus, store, tmp_path):
    ensemble = train(stimulus, store)
    ensemble.save(tmp_path / "ensemble.pt")
    loaded = fb.Ensemble.load(tmp_path / "ensemble.pt")
    assert loaded.network == ensemble.network and loaded.stages == ensemble.stages and loaded.keys == ensemble.keys
    assert torch.equal(loaded["focused"]["output.weight"], ensemble["focused"]["output.weight"])


def test_a_saved_ensemble_with_one_bit_flipped_is_refused(stimulus, store, tmp_path):
    file = tmp_path / "ensemble.pt"
    train(stimulus, store, [dataclasses.replace(STAGES[0], steps=1)], replicates=1).save(file)
    whole = file.read_bytes()
    for place in range(7, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged, or was not written by Ensemble"):
            fb.Ensemble.load(file)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged, or was not written by Ensemble"):
        fb.Ensemble.load(file)


def test_a_failed_save_leaves_the_file_that_was_there(stimulus, store, tmp_path, monkeypatch):
    file, ensemble = tmp_path / "ensemble.pt", train(stimulus, store, STAGES[:1], replicates=1)
    ensemble.save(file)
    before = file.read_bytes()

    def fails(_, path):
        path.write_bytes(b"half")
        raise RuntimeError("killed")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(RuntimeError, match="killed"):
        ensemble.save(file)
    assert file.read_bytes() == before and [f.name for f in tmp_path.glob("*.pt")] == ["ensemble.pt"]


def test_fingerprints_tell_weights_apart_that_one_key_made(stimulus, store):
    ensemble = train(stimulus, store)
    moved = {name: tensor + (name == "output.bias") for name, tensor in ensemble["focused"].items()}
    other = dataclasses.replace(ensemble, weights=ensemble.weights | {"focused": moved})
    assert other.fingerprints("uniform") == ensemble.fingerprints("uniform")
    assert set(other.fingerprints("focused")).isdisjoint(ensemble.fingerprints("focused"))
    assert ensemble.select([2, 0]).fingerprints("focused") == ensemble.fingerprints("focused")[::-2]
    recorded = [fb.record(e, stimulus, stage="focused").key for e in (ensemble, other)]
    assert recorded[0] != recorded[1]


@pytest.mark.slow
def test_the_linear_readout_learns_on_part_of_the_circle(stimulus, store):
    stage = fb.Stage("half", fb.uniform(-1.5, 1.5), loss="square", steps=400, batch=32)
    ensemble = train(stimulus, store, [stage], fb.Network(hidden=(30, 10), readout="linear"), 1)
    loss = ensemble.training_loss["half"][0]
    assert loss[-50:].mean() < 0.5 * loss[:10].mean()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda s: fb.Stage("initial", fb.uniform()),
            ValueError,
            "a stage's name must be a word other than 'initial'",
        ),
        (
            lambda s: fb.Stage("a", "uniform"),
            TypeError,
            "density must come from uniform, von_mises or tabulated",
        ),
        (
            lambda s: fb.Stage("a", fb.uniform(), loss="cosin"),
            ValueError,
            "loss must be one of .* did you mean 'cosine'",
        ),
        (
            lambda s: fb.Stage("a", fb.uniform(), steps=0),
            ValueError,
            "steps must be a whole number of at least 1, not 0",
        ),
        (
            lambda s: fb.Stage("a", fb.uniform(), learning_rate=0),
            ValueError,
            "learning_rate must be a number above 0",
        ),
        (lambda s: fb.train(s, NETWORK, []), ValueError, "stages must be at least one stage"),
        (lambda s: fb.train(s, NETWORK, [STAGES[0]] * 2), ValueError, "each with its own name"),
        (
            lambda s: fb.train(s, NETWORK, STAGES, 0),
            ValueError,
            "replicates must be a whole number of at least 1",
        ),
        (
            lambda s: fb.train(s, fb.Network(readout="linear"), STAGES),
            ValueError,
            "the linear readout needs densities that leave out ±π, but stage 'uniform' has its support from -3.14",
        ),
    ],
)
def test_bad_curricula_meet_one_sentence(stimulus, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(stimulus)


@pytest.mark.slow
def test_each_replicate_may_have_its_own_density_and_sees_no_other(stimulus, tmp_path):
    densities = tuple(fb.von_mises(angle, 3.0) for angle in (-1.0, 0.0, 2.0))
    own = dataclasses.replace(STAGES[0], density=densities)
    store = Store(tmp_path / "a")
    together = train(stimulus, store, [own], dtype=torch.float64)
    for r, density in enumerate(densities):
        stage = dataclasses.replace(STAGES[0], density=density)
        alone = train(stimulus, Store(tmp_path / "b"), [stage], replicates=[r], dtype=torch.float64)
        assert alone.keys["uniform"][0] == together.keys["uniform"][r]
        assert (together["uniform"]["hidden1.weight"][r] - alone["uniform"]["hidden1.weight"][0]).abs().max() < 1e-9
    assert together.select([2]).stages[0].density == densities[2]
    with pytest.raises(ValueError, match="density"):
        train(stimulus, store, [own], replicates=2)


@pytest.mark.slow
def test_training_starts_at_stored_weights(stimulus, store):
    whole = train(stimulus, store)
    begun = train(stimulus, store, STAGES[:1])
    ended = train(stimulus, store, STAGES[1:], start=begun.keys["uniform"])
    for name, tensor in whole["focused"].items():
        assert torch.equal(tensor, ended["focused"][name])
    assert set(ended.keys["focused"]).isdisjoint(whole.keys["focused"])
    with pytest.raises(ValueError, match="in the store"):
        train(stimulus, store, STAGES[1:], start=["nothing"] * 3)
