"""Settings of the Ollama connector, and where its server is (Ollama reference B5, connector reference 8)."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.http_settings import Seconds
from emp_trio.secrets import Secret
from emp_trio.settings import Env

DEFAULT_MODEL: Final = "llama3.2"
DEFAULT_PORT: Final = 11434


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
        address: as in ``OLLAMA_HOST``. A URL is kept as it is but for a slash at its end.
        port: for an address that is no URL and has none.

    Raises:
        ValueError: it is none of these.
    """
    address = address.strip().rstrip("/")
    if "://" in address:
        return address
    try:
        parts = urlsplit(f"http://{address}")
        host, own_port = parts.hostname, parts.port
    except ValueError:
        host, own_port = None, None
    if not host or parts.path or parts.query or "@" in parts.netloc:
        raise ValueError("OLLAMA_HOST must be a host, host:port or a URL such as http://localhost:11434")
    return f"http://{f'[{host}]' if ':' in host else host}:{own_port or port}"


def full_name(model: str) -> str:
    """A model's name with its tag: ``llama3.2`` is ``llama3.2:latest``."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"
