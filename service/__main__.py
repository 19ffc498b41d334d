"""`python -m service` is `postroom`."""

import sys

from service.cli import main

sys.exit(main())
