"""``python -m emix``: the same as the command ``emix``."""

import sys

from emix.cli import main

if __name__ == "__main__":
    sys.exit(main())
