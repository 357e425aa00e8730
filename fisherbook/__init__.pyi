from . import figures
from .angles import Density, grid, tabulated, uniform, von_mises
from .checks import FewFaces, Misfit, listed, numbers
from .experiment import lazily, measure, random_angles, sweep
from .fisher import calibration, intervals, sampling
from .fisher.calibration import plan_faces, plan_trials
from .fisher.estimate import ESTIMATORS, estimate
from .fisher.log_fisher import halves, increments, log_fisher
from .iteration import gain
from .iteration.adaptation import adapt
from .iteration.finetuning import Networks
from .iteration.schemes import SCHEMES
from .network.activity import Activity, record
from .network.banks import FeatureBank
from .network.ensembles import Ensemble, Stage
from .network.losses import LOSSES
from .network.networks import NONLINEARITIES, Network
from .network.readouts import READOUTS
from .network.training import train
from .results import keep, open_results
from .statistics import curves, distances, findings, power_law
from .stimulus.faces import Faces
from .stimulus.rotation import ROTATIONS
from .stimulus.sources import load_faces
from .stimulus.stimulus import Stimulus

__all__ = [
    "ESTIMATORS", "LOSSES", "NONLINEARITIES", "READOUTS", "ROTATIONS", "SCHEMES", "Activity", "Density", "Ensemble",
    "Faces", "FeatureBank", "FewFaces", "Misfit", "Network", "Networks", "Stage", "Stimulus", "adapt",
    "calibration", "curves", "distances", "estimate", "figures", "findings", "gain", "grid", "halves", "increments",
    "intervals", "keep", "lazily", "listed", "load_faces", "log_fisher", "measure", "numbers", "open_results",
    "plan_faces", "plan_trials", "power_law", "random_angles", "record", "sampling", "sweep", "tabulated", "train",
    "uniform", "von_mises",
]  # fmt: skip
