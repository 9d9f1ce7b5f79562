"""`python -m vaectl` is `vaectl`."""

import sys

from vaectl.cli.app import main

sys.exit(main())
