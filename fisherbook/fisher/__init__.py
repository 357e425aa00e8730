"""Fisher information: estimators, their calibration, and the labelled result."""
