"""The iteration of training, measuring and re-weighting."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["adaptation", "finetuning", "gain", "schemes"])
