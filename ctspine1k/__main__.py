"""``python -m ctspine1k``."""

import sys

from ctspine1k.cli.main import main

sys.exit(main())
