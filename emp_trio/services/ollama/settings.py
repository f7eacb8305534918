"""Settings of the Ollama connector, and where its server is (Ollama reference B5, connector reference 8)."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.http.settings import Seconds
from emp_trio.secrets import Secret
from emp_trio.services.probing import HealthPath
from emp_trio.settings import Env

DEFAULT_MODEL: Final = "llama3.2"
DEFAULT_PORT: Final = 11434

_LOOPBACK: Final = "127.0.0.1"
_ANY: Final = {"0.0.0.0": _LOOPBACK, "::": "::1"}  # noqa: S104 - where a server may listen, not where it can be reached


class OllamaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The model, what may be downloaded, and how long the server may be silent.

    Attributes:
        port: of a server that was named without one.
        model: for jobs that name none.
        auto_pull: names of the models, with commas between them, that are downloaded when a job needs them.
        api_key: of the hosted service; a local server needs none.
        line_timeout: seconds between two pieces of an answer. For the first one ``http.timeout`` counts.
        embed_timeout: seconds for embeddings.
        call_timeout: seconds for the list of models and the version.
        health_path: what is asked for to see whether a server is there; ``none`` asks nothing. A server that does not
            know the path counts as healthy.
        pull_line_timeout: seconds between two lines of a download, which may otherwise take any time.
        inline_embedding_bytes: embeddings that are longer as JSON are saved as an asset instead of being in the result.
    """

    port: Annotated[int, msgspec.Meta(ge=1, le=65535), Env("${OLLAMA_PORT:-${OLLAMA_BASE_PORT:-11434}}")] = DEFAULT_PORT
    model: Annotated[str, Env("${OLLAMA_DEFAULT_MODEL:-" + DEFAULT_MODEL + "}")] = DEFAULT_MODEL
    auto_pull: Annotated[str, Env("${OLLAMA_AUTO_PULL:-}")] = ""
    api_key: Annotated[Secret, Env("${OLLAMA_API_KEY:-}")] = Secret("")
    line_timeout: Seconds = 120.0
    embed_timeout: Seconds = 120.0
    call_timeout: Seconds = 5.0
    health_path: Annotated[HealthPath, Env("${OLLAMA_HEALTH_PATH:-/api/version}")] = "/api/version"
    pull_line_timeout: Seconds = 60.0
    inline_embedding_bytes: Annotated[int, msgspec.Meta(ge=0)] = 256 * 2**10

    def may_pull(self, model: str) -> bool:
        """Whether ``model`` is in ``auto_pull``; a name without a tag means ``latest`` (Ollama reference, part B)."""
        return full_name(model) in {full_name(name.strip()) for name in self.auto_pull.split(",") if name.strip()}


def reached(http: HttpSettings, ollama: OllamaSettings) -> HttpSettings:
    """``http`` with the server's full URL, and a read timeout that leaves the other time limits their effect.

    Raises:
        ValueError: the address is none.
    """
    patience = max(http.read_timeout, http.timeout, ollama.line_timeout, ollama.embed_timeout, ollama.pull_line_timeout)
    url = server_url(http.base_url, ollama.port)
    return msgspec.structs.replace(http, base_url=url, read_timeout=patience)


def server_url(address: str, port: int) -> str:
    """The URL of a server from a host, host:port or URL. Pure.

    Args:
        address: as in ``OLLAMA_HOST``, in any form that Ollama's own clients take: ``host``, ``:port``, ``host:port``,
            ``host:port/path``, a URL, IPv6 in brackets. Without a host, or with the address that a server listens at
            on all its networks (``0.0.0.0``), it is this machine.
        port: for an address that is no URL and has none; URLs have those of their schemes.

    Raises:
        ValueError: it is none of these.
    """
    wrong = ValueError(
        "OLLAMA_HOST must be a host, :port, host:port, host:port/path or a URL such as http://localhost:11434"
    )
    address = address.strip()
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    if not rest or (any(letter.isspace() or letter in "@?#\\" for letter in rest) and not separator):
        raise wrong
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, own_port = parts.hostname or _LOOPBACK, parts.port
    except ValueError:
        raise wrong from None
    if separator and parts.hostname and parts.hostname not in _ANY:
        return address.rstrip("/")
    host = _ANY.get(host, host)
    own_port = own_port or (None if separator else port)
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.strip("/")
    return f"{scheme}://{shown}{f':{own_port}' if own_port else ''}{f'/{path}' if path else ''}"


def full_name(model: str) -> str:
    """A model's name with its tag: ``llama3.2`` is ``llama3.2:latest``."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"
