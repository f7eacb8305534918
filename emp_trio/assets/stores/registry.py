"""The storage providers that there are: every module of :mod:`emp_trio.assets.stores.providers`."""

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
    """The ``PROVIDER`` of each module, by its name, in alphabetical order."""
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [importlib.import_module(f"{package.__name__}.{name}").PROVIDER for name in modules]
    return {provider.name: provider for provider in found}


def find_provider(name: str) -> Provider[Any, Any] | None:
    """The provider of a name or alias, in any case; None where there is no such."""
    wanted = name.strip().lower()
    return next((found for found in providers().values() if wanted in (found.name, *found.aliases)), None)


def provider_names() -> str:
    """The names of all providers, for a sentence: ``azure, gcs, local or s3``."""
    *most, last = providers()
    return f"{', '.join(most)} or {last}"
