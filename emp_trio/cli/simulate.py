"""``emp-trio simulate``."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from emp_trio.cli.output import OK, print_json
from emp_trio.errors import ConfigError

Service = Literal["http", "websocket", "openai", "gemini", "ollama", "comfyui", "a1111"]

# The default ports of the connectors; openai and gemini have none.
_PORTS: Final = {
    "http": 8299,
    "websocket": 8399,
    "openai": 8499,
    "gemini": 8599,
    "ollama": 11434,
    "comfyui": 8188,
    "a1111": 7860,
}


async def simulate(
    service: Service,
    /,
    *,
    port: Annotated[int | None, Parameter(validator=Number(gte=0, lte=65535))] = None,
    host: str = "127.0.0.1",
    seconds: Annotated[float, Parameter(validator=Number(gte=0))] = 1.0,
    json: bool = False,
) -> int:
    """Run a simulated service for tests of workers.

    It returns real (small) images, so that storage and CDN are exercised, too.
    Runs until ^C.

    For example:

        emp-trio simulate http --port 8299
        emp-trio simulate openai --seconds 2

    Args:
        service: Service to run. openai, gemini, ollama, comfyui and a1111 are fakes of those APIs.
        port: TCP port; 0 for a free port. Default: http 8299, websocket 8399, openai 8499, gemini 8599, ollama 11434,
            comfyui 8188, a1111 7860.
        host: Address to listen on.
        seconds: Duration of a job that does not set its own, in seconds.
        json: Print the address of the service as one JSON object.
    """
    import trio

    at = _PORTS[service] if port is None else port
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with AsyncExitStack() as stack:
            try:
                environment = await stack.enter_async_context(_open(service, at, host, seconds))
            except OSError as error:
                reason = error.strerror or error
                raise ConfigError(f"the simulated service can't listen at {host}, port {at}: {reason}") from error
            if json:
                print_json({"service": service, "environment": environment})
            else:
                print("\n".join(f"export {name}={value}" for name, value in environment.items()), flush=True)
                print(f"the simulated {service} service is ready; ^C stops it", file=sys.stderr)
            await anext(signals)
    return OK


@asynccontextmanager
async def _open(service: Service, port: int, host: str, seconds: float) -> AsyncIterator[dict[str, str]]:
    """Serve the service; yield the environment variables that a worker needs to use it."""
    match service:
        case "http":
            from emp_trio.testing.sim_http import open_simulated_http

            async with open_simulated_http(port, host=host, default_seconds=seconds) as http:
                yield {"SIMULATION_HTTP_URL": http.base_url}
        case "websocket":
            from emp_trio.testing.sim_websocket import open_simulated_websocket

            async with open_simulated_websocket(port, host=host, default_seconds=seconds) as websocket:
                yield {"SIMULATION_WEBSOCKET_URL": websocket.url}
        case "gemini":
            from emp_trio.testing.gemini import Script as GeminiScript
            from emp_trio.testing.gemini import open_fake_gemini

            async with open_fake_gemini(port, host=host, script=GeminiScript(seconds=seconds)) as gemini:
                yield {"GEMINI_NANO_BANANA_URL": gemini.base_url, "GEMINI_API_KEY": gemini.api_key.reveal()}
        case "comfyui":
            from emp_trio.testing.comfyui import Behavior, open_fake_comfyui

            behavior = Behavior(seconds=seconds, any_class=True)
            async with open_fake_comfyui(port, host=host, behavior=behavior) as comfyui:
                yield {"COMFYUI_WS_URL": f"ws{comfyui.url.removeprefix('http')}/ws"}
        case "a1111":
            from emp_trio.testing.a1111 import Script as A1111Script
            from emp_trio.testing.a1111 import open_fake_a1111

            async with open_fake_a1111(port, host=host, script=A1111Script(seconds=seconds)) as a1111:
                yield {"A1111_BASE_URL": a1111.base_url}
        case "openai":
            from emp_trio.testing.openai import Script, open_fake_openai

            async with open_fake_openai(port, host=host, script=Script(seconds=seconds)) as openai:
                yield {"OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": openai.api_key.reveal()}
        case "ollama":
            from emp_trio.testing.ollama import Script as OllamaScript
            from emp_trio.testing.ollama import open_fake_ollama

            script = OllamaScript(pause=seconds / 10)  # its default answer has ten lines
            async with open_fake_ollama(port, host=host, script=script) as ollama:
                yield {"OLLAMA_BASE_URL": ollama.base_url}
