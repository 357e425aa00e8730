"""Fisher information about the angle of a rotated face, in networks that report it.

The public names are listed in ``__init__.pyi``. Each is imported when it is first asked for: who estimates needs no
HoloViews, and the command line no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
