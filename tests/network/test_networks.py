import pytest
import torch

from fisherbook.network.losses import LOSSES
from fisherbook.network.networks import NONLINEARITIES, Network
from fisherbook.network.readouts import READOUTS


def test_the_tables_name_and_describe_what_they_hold():
    assert list(NONLINEARITIES) == ["relu", "leaky_relu", "celu", "elu", "gelu", "silu", "softplus", "tanh"]
    for table in (NONLINEARITIES, READOUTS, LOSSES):
        for name, entry in table.items():
            assert entry.name == name and entry.description and "\n" not in entry.description


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_smooth_nonlinearities_have_a_continuous_derivative(name):
    x = torch.tensor([-1e-7, 1e-7], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(NONLINEARITIES[name](x).sum(), x)
    assert ((slope[1] - slope[0]).abs() < 1e-5) == NONLINEARITIES[name].smooth


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_even_least_at_zero_and_grows_with_its_exponent(name):
    errors = torch.linspace(-3, 3, 61, dtype=torch.float64)
    losses = LOSSES[name](errors)
    assert torch.allclose(losses, losses.flip(0)) and losses.argmin() == 30 and losses.isfinite().all()
    small = torch.tensor([0.05, 0.1], dtype=torch.float64)
    rise = LOSSES[name](small)
    if LOSSES[name].exponent:
        assert torch.isclose(torch.log2(rise[1] / rise[0]), torch.tensor(LOSSES[name].exponent).double(), atol=0.02)
    else:
        assert torch.isclose(rise[1] - rise[0], torch.tensor(2.0).double().log(), atol=0.02)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_a_finite_gradient_everywhere(name):
    errors = torch.tensor([-torch.pi, -1.0, 0.0, 1e-9, torch.pi], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(LOSSES[name](errors).sum(), errors)
    assert slope.isfinite().all()


def test_the_angular_readout_reports_the_direction_and_the_shorter_way_round():
    readout = READOUTS["angular"]
    outputs = 3 * torch.tensor([[torch.cos(torch.tensor(3.0)), torch.sin(torch.tensor(3.0))]])
    assert torch.isclose(readout.decode(outputs), torch.tensor(3.0))
    assert torch.isclose(readout.error(outputs, torch.tensor([-3.0])), torch.tensor(6 - 2 * torch.pi), atol=1e-5)


def test_initial_weights_are_uniform_within_one_over_root_fan_in():
    network = Network(hidden=(50, 20))
    generators = [torch.Generator().manual_seed(s) for s in (1, 2)]
    parameters = network.initialise(400, generators)
    weight = parameters["hidden1.weight"]
    assert weight.shape == (2, 50, 400) and parameters["output.weight"].shape == (2, 2, 20)
    assert weight.abs().max() <= 0.05 and torch.isclose(weight.std(), torch.tensor(0.05 / 3**0.5), rtol=0.02)


def test_a_hidden_layer_can_be_read_on_the_way():
    network = Network(hidden=(5, 4), nonlinearity="relu")
    parameters = network.initialise(9, [torch.Generator().manual_seed(0)])
    currents = network.first(parameters, torch.linspace(0, 1, 63).view(1, 7, 9))
    hidden = network.onward(parameters, currents, "hidden1")
    assert torch.equal(hidden, currents.relu())
    assert network.onward(parameters, currents, "hidden2").shape == (1, 7, 4)
    assert network.layers == ("hidden1", "hidden2", "output")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"architecture": "resnet"}, "architecture must be one of"),
        ({"nonlinearity": "rulu"}, "nonlinearity must be one of .*, not 'rulu'; did you mean 'relu'"),
        ({"readout": "angle"}, "readout must be one of .* did you mean 'angular'"),
        ({"hidden": (60, 0)}, "hidden must be a whole number of at least 1, not 0"),
        ({"hidden": ()}, "hidden must name at least one layer"),
        ({"dropout": 1.0}, "dropout must be a probability"),
    ],
)
def test_a_bad_network_meets_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Network(**options)
