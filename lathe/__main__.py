"""`python -m lathe` is the `lathe` command."""

import sys

from lathe.cli import main

if __name__ == "__main__":
    sys.exit(main())
