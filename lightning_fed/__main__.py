"""`python -m lightning_fed` is the same as `lightning-fed`."""

import sys

from lightning_fed.cli import main

if __name__ == "__main__":
    sys.exit(main())
