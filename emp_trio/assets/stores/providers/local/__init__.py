"""Folders of this machine."""

from emp_trio.assets.stores.providers.local.provider import PROVIDER

__all__ = ["PROVIDER"]
