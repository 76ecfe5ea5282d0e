"""``python -m lmac_sb``: the command ``lmac``."""

import sys

from lmac_sb.cli import main

if __name__ == "__main__":
    sys.exit(main())
