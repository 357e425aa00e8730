"""A sweep on Dask's workers: the same numbers, whatever becomes of a worker."""

import os
import signal

import numpy as np
import pytest
import xarray as xr

import fisherbook as fb
from fisherbook.store import Store

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")


@pytest.mark.filterwarnings("ignore::fisherbook.FewFaces")
def test_a_killed_workers_piece_is_computed_again_and_counted_once(tmp_path):
    def condition(kappa, seed):
        """Kill the first worker that meets one of the combinations."""
        doomed = tmp_path / "killed"
        if (kappa, seed) == (2.0, 1) and not doomed.exists():
            doomed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        faces = fb.load_faces("gratings", size=16, limit=30)
        stages = [fb.Stage("focused", fb.von_mises(0.0, kappa), steps=5, batch=4)]
        network = fb.Network("mlp", (4,))
        options = {"replicates": 1, "angles": 4, "store": Store(tmp_path / where["store"]), "progress": False}
        return fb.measure(fb.Stimulus(faces), network, stages, seed=seed, **options)

    where = {"store": "cluster"}
    grid = {"kappa": [1.0, 2.0], "seed": [0, 1]}
    found = fb.sweep(condition, grid, scheduler="local")
    assert (tmp_path / "killed").exists()
    where["store"] = "alone"
    xr.testing.assert_allclose(found, fb.sweep(condition, grid))
    assert found.sizes["kappa"] == found.sizes["seed"] == 2
    assert np.isfinite(found.fisher_information).all()


def test_an_error_on_a_worker_is_raised_here(tmp_path):
    def condition(kappa):
        raise ValueError(f"kappa {kappa} is too much")

    here = {"protocol": "tcp://", "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(1, threads_per_worker=1, **here) as cluster,
        pytest.raises(ValueError, match="kappa 3 is too much"),
    ):
        fb.sweep(condition, {"kappa": [3]}, scheduler=cluster.scheduler_address)


def test_a_schedulers_name_is_checked():
    with pytest.raises(ValueError, match="must be None, 'local' or an address such as 'tcp://host:8786', not 'slurm'"):
        fb.sweep(lambda kappa: None, {"kappa": [1]}, scheduler="slurm")
