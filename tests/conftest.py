"""What every test starts from: fixed seeds, few threads, a store of its own, and global state as it was."""

import random

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples each time, and no deadline: how fast a machine is does not decide a test.
settings.register_profile("fisherbook", deadline=None, derandomize=True)
settings.load_profile("fisherbook")


def pytest_addoption(parser):
    parser.addoption("--threads", type=int, default=1, help="threads that torch may use in a test")


def pytest_configure(config):
    torch.set_num_threads(config.getoption("threads"))


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seed():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what a dependency may draw from
    torch.manual_seed(0)


def _global_state():
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "NumPy's random state": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "NumPy's error handling": tuple(np.geterr().items()),
    }


@pytest.fixture(autouse=True)
def _leaves_global_state_alone(request, _seed):
    """Fail a test after which global state differs; the fixture `may_draw` permits random draws."""
    before = _global_state()
    yield
    after = _global_state()
    spoilt = [name for name in before if before[name] != after[name]]
    if "may_draw" in request.fixturenames:
        spoilt = [name for name in spoilt if "random" not in name]
    assert not spoilt, f"the test changed {', '.join(spoilt)}"


@pytest.fixture
def may_draw():
    """Let a test use the global random generators, which the package itself never does."""


@pytest.fixture
def rng():
    return np.random.default_rng(0)
