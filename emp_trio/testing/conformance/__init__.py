"""A suite of tests that any connector can be put through.

``examples/test_atelier.py`` is a use of it, and docs/write-a-connector.md says what it tests.
"""

from emp_trio.testing.conformance.scene import open_toolbox
from emp_trio.testing.conformance.suite import ConnectorConformance

__all__ = ["ConnectorConformance", "open_toolbox"]
