"""A fake of AUTOMATIC1111's web UI started with ``--api`` (A1111 reference 10).

::

    async with open_fake_a1111() as a1111:
        ...  # talk to a1111.base_url
        assert a1111.violations == []
        assert [work.end for work in a1111.work] == ["done"]
"""

from emp_trio.testing.a1111.engine import Work
from emp_trio.testing.a1111.fake import FakeA1111, Received, open_fake_a1111
from emp_trio.testing.a1111.script import Failure, Model, Script

__all__ = ["Failure", "FakeA1111", "Model", "Received", "Script", "Work", "open_fake_a1111"]
