"""`python -m t2i.cli` is `t2i`."""

import sys

from t2i.cli.main import main

sys.exit(main())
