"""Settings of the Gemini connector (Gemini reference A2, A6; connector reference 7)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from emp_trio.protocols.http import HttpSettings
from emp_trio.protocols.polling import PollingSettings
from emp_trio.secrets import Secret
from emp_trio.services.probing import HealthPath
from emp_trio.settings import Env

Api = Literal["interactions", "generate_content"]

_HOST: Final = "https://generativelanguage.googleapis.com"
BASE_URL: Final = "${GEMINI_NANO_BANANA_URL:-" + _HOST + "}"
MAX_RETRIES: Final = "${GEMINI_MAX_RETRIES:-3}"
TIMEOUT: Final = "${GEMINI_TIMEOUT:-300}"

# An image takes minutes to make and comes as one answer, in base64 and with its drafts.
HTTP: Final = HttpSettings(
    base_url=_HOST, timeout=300.0, read_timeout=180.0, retry_delay=2.0, max_response_bytes=192 * 2**20
)
# The end is set by ``poll_timeout``, so attempts are as many as nobody needs. Five failed looks in a row end the wait.
POLLING: Final = PollingSettings(interval=2.0, attempts=10_000, errors_in_a_row=4)

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class GeminiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The account, the model, and the time that an image may take.

    Attributes:
        model: the image model; empty for the one that ``GEMINI_NANO_BANANA_URL`` names, or else the default.
        api: which of the two interfaces is tried first; a job may say it too.
        poll_timeout: seconds from the start of an interaction after which it is cancelled and the attempt fails.
        call_timeout: seconds for one poll, cancel, or list of models, with everything that belongs to it.
        create_timeout: seconds for the call that starts an interaction, which carries the input images.
        cleanup_timeout: seconds that the upstream cancel may take when an attempt is stopped.
        health_path: what is asked for to see whether the account can be used, below the version of the API; ``none``
            asks nothing. A service that does not know the path counts as healthy.
        overload_wait: seconds that a job waits in the queue when Gemini stays overloaded and says no time.
    """

    api_key: Annotated[Secret, Env("${GEMINI_API_KEY}")]
    model: Annotated[str, Env("${GEMINI_IMAGE_MODEL:-}")] = ""
    api: Annotated[Api, Env("${GEMINI_API:-interactions}")] = "interactions"
    poll_timeout: Annotated[_Seconds, Env("${GEMINI_POLL_TIMEOUT:-300}")] = 300.0
    call_timeout: _Seconds = 20.0
    create_timeout: _Seconds = 60.0
    cleanup_timeout: _Seconds = 5.0
    health_path: Annotated[HealthPath, Env("${GEMINI_HEALTH_PATH:-/models}")] = "/models"
    overload_wait: Annotated[float, msgspec.Meta(ge=0)] = 30.0
