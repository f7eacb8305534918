"""Google Cloud Storage."""

from emp_trio.assets.stores.providers.gcs.provider import PROVIDER

__all__ = ["PROVIDER"]
