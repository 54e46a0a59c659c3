"""``python -m ctspine1k``."""

import sys

from ctspine1k.cli import main

sys.exit(main())
