"""Estimates with intervals, claims and how they are decided, and statistics of curves."""

import lazy_loader

_PARTS = ["curves", "distances", "estimates", "findings", "power_law"]
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, _PARTS)
