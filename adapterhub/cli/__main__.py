"""`python -m adapterhub.cli` is `adz`."""

import sys

from adapterhub.cli import main

sys.exit(main())
