"""``python -m anynorm``: the same as the ``anynorm`` command."""

from __future__ import annotations

import sys

from anynorm.cli import main

if __name__ == "__main__":
    sys.exit(main())
