"""Settings that the connectors of the OpenAI API share (OpenAI reference 1.3, 2, 6.3, 13)."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from emp_trio.protocols.polling import PollingSettings
from emp_trio.secrets import Secret
from emp_trio.services.openai.models import DEFAULT_TEXT_MODEL
from emp_trio.services.probing import HealthPath
from emp_trio.settings import Env

BASE_URL: Final = "${OPENAI_BASE_URL:-https://api.openai.com/v1}"
MAX_RETRIES: Final = "${OPENAI_MAX_RETRIES:-${OPENAI_RETRY_ATTEMPTS:-3}}"  # the second is the fleet's older name

# The first interval between two looks; it grows with the age of a response (see background.pause). The end is set by
# ``poll_timeout``, so attempts are as many as nobody needs. Five failed looks in a row end the wait.
POLLING: Final = PollingSettings(interval=2.0, attempts=10_000, errors_in_a_row=4)

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class AccountSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The account.

    Attributes:
        organization, project: sent as headers where they are set.
        call_timeout: seconds for one poll, cancel, or list of models, with everything that belongs to it.
        health_path: what is asked for to see whether the account can be used; ``none`` asks nothing. A service that
            does not know the path counts as healthy.
    """

    api_key: Annotated[Secret, Env("${OPENAI_API_KEY}")]
    organization: Annotated[str, Env("${OPENAI_ORG_ID:-}")] = ""
    project: Annotated[str, Env("${OPENAI_PROJECT_ID:-}")] = ""
    call_timeout: _Seconds = 20.0
    health_path: Annotated[HealthPath, Env("${OPENAI_HEALTH_PATH:-/models}")] = "/models"


class OpenAISettings(AccountSettings, frozen=True, kw_only=True):
    """The account, the model that answers with a response, and the time it may take.

    Attributes:
        model: the text model; for images, the one that calls the image tool.
        poll_timeout: seconds from the start of a response after which it is cancelled and the attempt fails.
        cleanup_timeout: seconds that the upstream cancel may take when an attempt is stopped.
        stream_read_timeout: seconds without a byte after which a stream counts as lost.
        stream_resumptions: how often a lost stream is taken up again, before its response is polled.
    """

    model: Annotated[str, Env("${OPENAI_RESPONSES_MODEL:-" + DEFAULT_TEXT_MODEL + "}")] = DEFAULT_TEXT_MODEL
    poll_timeout: Annotated[_Seconds, Env("${OPENAI_POLL_TIMEOUT:-300}")] = 300.0
    cleanup_timeout: _Seconds = 5.0
    stream_read_timeout: _Seconds = 120.0
    stream_resumptions: Annotated[int, msgspec.Meta(ge=0)] = 3
