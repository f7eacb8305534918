"""Find the storage providers: the packages in :mod:`emp_trio.assets.stores.providers`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from emp_trio.assets.stores import providers as package
from emp_trio.assets.stores.provider import Provider


@functools.cache
def providers() -> Mapping[str, Provider[Any, Any]]:
    """Return the ``PROVIDER`` of each package by name, in alphabetical order."""
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    by_name = [importlib.import_module(f"{package.__name__}.{name}").PROVIDER for name in modules]
    return {provider.name: provider for provider in by_name}


def find_provider(name: str) -> Provider[Any, Any] | None:
    """Return the provider with a name or alias, ignoring case, or None."""
    wanted = name.strip().lower()
    return next((found for found in providers().values() if wanted in (found.name, *found.aliases)), None)


def provider_names() -> str:
    """Return the names of all providers for a message: ``azure, gcs, local or s3``."""
    *most, last = providers()
    return f"{', '.join(most)} or {last}"
