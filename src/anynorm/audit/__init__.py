"""The shipping audit: what is wrong with normalization in an exported file.

The package can be called: ``anynorm.audit(path)`` is `anynorm.audit.api.audit`.
"""

from __future__ import annotations

from anynorm.audit.api import audit
from anynorm.audit.result import Audit
from anynorm.audit.table import CHECKS
from anynorm.packages import make_callable

__all__ = ["CHECKS", "Audit", "audit"]

make_callable(__name__, audit)
