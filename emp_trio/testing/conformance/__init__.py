"""A suite of tests that any connector can be put through.

::

    class TestKiln(ConnectorConformance):
        connector = KilnConnector
        payload = {"glaze": "celadon"}

        def open_service(self) -> AbstractAsyncContextManager[FakeKiln]:
            return open_fake_kiln()

        def settings(self, service: FakeKiln, url: str) -> KilnConnector.Settings:
            return KilnConnector.Settings(api_key=service.api_key, http=HttpSettings(base_url=url, retry_delay=0.01))

        def long_job(self, service: FakeKiln) -> Job:
            service.seconds = 3600
            return self.job()

        def begun(self, service: FakeKiln) -> int: ...
        def running(self, service: FakeKiln) -> int: ...
        def check(self, result: JobResult) -> None: ...
"""

from emp_trio.testing.conformance.suite import ConnectorConformance

__all__ = ["ConnectorConformance"]
