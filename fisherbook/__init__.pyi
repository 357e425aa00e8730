from . import curves, distances, figures, findings, gain, theory
from .activity import Activity, record
from .adaptation import adapt
from .angles import Density, grid, tabulated, uniform, von_mises
from .banks import FeatureBank
from .checks import FewFaces
from .ensembles import Ensemble, Stage
from .experiment import measure, measure_increments, sweep
from .faces import Faces, load_faces
from .finetuning import Networks
from .fisher import calibration, intervals, sampling
from .fisher.calibration import plan_faces
from .fisher.estimate import ESTIMATORS, estimate
from .losses import LOSSES
from .networks import NONLINEARITIES, READOUTS, Network
from .results import keep, open_results
from .schemes import SCHEMES
from .stimulus import ROTATIONS, Stimulus
from .training import train

__all__ = [
    "ESTIMATORS", "LOSSES", "NONLINEARITIES", "READOUTS", "ROTATIONS", "SCHEMES", "Activity", "Density", "Ensemble",
    "Faces", "FeatureBank", "FewFaces", "Network", "Networks", "Stage", "Stimulus", "adapt", "calibration", "curves",
    "distances", "estimate", "figures", "findings", "gain", "grid", "intervals", "keep", "load_faces", "measure",
    "measure_increments", "open_results", "plan_faces", "record", "sampling", "sweep", "tabulated", "theory", "train",
    "uniform", "von_mises",
]  # fmt: skip
