"""`python -m facefit` is the command `facefit`."""

import sys

from facefit.cli import main

if __name__ == "__main__":
    sys.exit(main())
