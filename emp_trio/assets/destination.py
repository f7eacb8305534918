"""Resolve the destination of a job's assets: its ``ctx`` before the environment, field by field. Pure.

The worker's key, endpoint and CDN are used only with the worker's account. A job that names another account must bring
its key. Otherwise a job could have requests signed with the operator's key sent to a host of its choice.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from emp_trio.assets.config import StorageSettings
from emp_trio.assets.stores.provider import Provider
from emp_trio.assets.stores.registry import find_provider, provider_names
from emp_trio.assets.validators import base_url_problem, with_scheme
from emp_trio.errors import ConfigError, InvalidJob
from emp_trio.jobs import JobContext
from emp_trio.protocols.urls import origin
from emp_trio.secrets import excerpt


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A location at a provider, and the base URL of its CDN (with scheme, without trailing slash) or None."""

    provider: Provider[Any, Any]
    location: Any
    cdn_url: str | None = None


def destination(ctx: JobContext, settings: StorageSettings) -> Destination:
    """Return the destination of the assets of a job with this context.

    Raises:
        InvalidJob: ``ctx`` is not a JSON object, has an unsafe name or an unknown provider, or names another account
            without its key.
        ConfigError: a required value is missing in both the job and the environment; the message names it.
    """
    if ctx.unusable is not None:
        raise InvalidJob(f"the job's ctx does not say where to store anything: {ctx.unusable}", reason="invalid_format")
    provider = _provider(ctx, settings)
    container = ctx.bucket or settings.container or None
    if container is not None and (text := provider.check_name(container)):
        raise InvalidJob(f"the container (ctx.storage.bucket): {text}")
    location, ours = provider.location_for(ctx, settings.accounts.get(provider.name), container)
    ours = ours and settings.provider in (provider.name, None)
    cdn = ctx.cdn_url or (settings.cdn_url if ours else None)
    if cdn is None:
        return Destination(provider=provider, location=location)
    cdn = with_scheme(cdn.strip())
    if text := base_url_problem(cdn):
        raise InvalidJob(f"the CDN address of ctx.storage.cdnUrl {text}")
    return Destination(provider=provider, location=location, cdn_url=cdn)


def is_own_cdn(cdn: str, settings: StorageSettings) -> bool:
    """Return whether a CDN is the operator's (``CLOUD_CDN_URL``), which is trusted at any address.

    Also true if the job names exactly that URL.
    """
    if settings.cdn_url is None:
        return False
    own = with_scheme(settings.cdn_url.strip())
    return origin(cdn) == origin(own) and urlsplit(cdn).path == urlsplit(own).path


def _provider(ctx: JobContext, settings: StorageSettings) -> Provider[Any, Any]:
    requested = (ctx.provider or "").strip() or settings.provider
    if requested is None:
        raise ConfigError(
            "there is nowhere to save assets: neither the job's ctx (storage.provider) nor this worker's environment "
            f"names a storage provider. Set CLOUD_STORAGE_PROVIDER to {provider_names()}, with "
            "CLOUD_STORAGE_CONTAINER and the account's variables; for a folder of this machine, "
            "CLOUD_STORAGE_PROVIDER=local with LOCAL_STORAGE_PATH is enough"
        )
    provider = find_provider(requested)
    if provider is None:
        raise InvalidJob(
            f"the storage provider {excerpt(requested, 80)!r} of the job's ctx is not known: use {provider_names()}",
            reason="unsupported_operation",
        )
    return provider
