"""Fisher information: estimators, their calibration, and the labelled result."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["calibration", "intervals", "sampling"])
