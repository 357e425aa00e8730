"""``python -m fisherbook`` is the command ``fisherbook``."""

import sys

from .publishing.cli import main

if __name__ == "__main__":
    sys.exit(main())
