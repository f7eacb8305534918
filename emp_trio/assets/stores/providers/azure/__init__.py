"""Azure Blob Storage."""

from emp_trio.assets.stores.providers.azure.provider import PROVIDER

__all__ = ["PROVIDER"]
