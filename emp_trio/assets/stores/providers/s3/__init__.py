"""S3, and services that speak its protocol."""

from emp_trio.assets.stores.providers.s3.provider import PROVIDER

__all__ = ["PROVIDER"]
