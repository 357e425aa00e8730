"""Fisher information about the angle of a rotated face, in networks that report it.

The public names are listed in ``__init__.pyi``. Each is imported when it is first asked for: who estimates needs no
HoloViews, and the command line no torch.
"""

import lazy_loader

from . import checks

_lazily, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _lazily(name)
    except ModuleNotFoundError as error:
        raise checks.not_installed(f"fisherbook.{name}", error, "book") from None
