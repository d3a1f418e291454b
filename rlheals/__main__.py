"""`python -m rlheals` is the command `rlheals`."""

import sys

from rlheals.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
