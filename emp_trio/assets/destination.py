"""Resolve the destination of a job's assets: its ``ctx`` before the environment, field by field. Pure.

One rule stands above that order: what belongs to the worker's account stays with it. A job that names another account
must bring that account's key; the worker's own key, endpoint and CDN are not used for it. Otherwise a job could have
requests signed with the operator's key sent to a host of its choice.
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
    """A location at a provider, and the CDN in front of it: a base URL with scheme and without a slash at its end, or
    None."""

    provider: Provider[Any, Any]
    location: Any
    cdn_url: str | None = None


def destination(ctx: JobContext, settings: StorageSettings) -> Destination:
    """Where assets of a job with this context go.

    Raises:
        InvalidJob: the ctx is no JSON object, or the job asks for what no worker would do (an unsafe name, an unknown
            provider, another account without its key).
        ConfigError: neither the job nor this worker's environment says something that is needed; the text names it.
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
    """Whether the CDN of a destination is the operator's (``CLOUD_CDN_URL``), which is trusted wherever it is. A job
    that names the very same one, path and all, changes nothing."""
    if settings.cdn_url is None:
        return False
    own = with_scheme(settings.cdn_url.strip())
    return origin(cdn) == origin(own) and urlsplit(cdn).path == urlsplit(own).path


def _provider(ctx: JobContext, settings: StorageSettings) -> Provider[Any, Any]:
    asked = (ctx.provider or "").strip() or settings.provider
    if asked is None:
        raise ConfigError(
            "there is nowhere to save assets: neither the job's ctx (storage.provider) nor this worker's environment "
            f"names a storage provider. Set CLOUD_STORAGE_PROVIDER to {provider_names()}, with "
            "CLOUD_STORAGE_CONTAINER and the account's variables; for a folder of this machine, "
            "CLOUD_STORAGE_PROVIDER=local with LOCAL_STORAGE_PATH is enough"
        )
    provider = find_provider(asked)
    if provider is None:
        raise InvalidJob(
            f"the storage provider {excerpt(asked, 80)!r} of the job's ctx is not known: use {provider_names()}",
            reason="unsupported_operation",
        )
    return provider
