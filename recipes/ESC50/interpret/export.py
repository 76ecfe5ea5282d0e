#!/usr/bin/env python3
"""Export a finished run as a folder that `LMACInterpreter` loads:

python export.py results/lmac/1234 results/bundle
python export.py results/lmac/1234 results/bundle --push name/repository
"""

import sys

from lmac_sb.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
