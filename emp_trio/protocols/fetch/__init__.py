"""Files from addresses that a job names, without letting the job reach into the worker's own network."""

from emp_trio.protocols.fetch.fetcher import Fetcher
from emp_trio.protocols.fetch.mixin import Fetches
from emp_trio.protocols.fetch.settings import Fetched, FetchSettings

__all__ = ["FetchSettings", "Fetched", "Fetcher", "Fetches"]
