"""The connector of "Write a connector", with the tests that the page tells authors to write."""

from __future__ import annotations

import sys

from tests.project.support import ROOT

sys.path.insert(0, str(ROOT / "examples"))

from test_atelier import TestAtelier

__all__ = ["TestAtelier"]
