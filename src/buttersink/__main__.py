"""`python -m buttersink` is the command."""

import sys

from buttersink.cli import main

sys.exit(main())
