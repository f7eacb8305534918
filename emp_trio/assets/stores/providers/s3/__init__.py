"""S3 and compatible services."""

from emp_trio.assets.stores.providers.s3.provider import PROVIDER

__all__ = ["PROVIDER"]
