"""Settings of a connector's WebSocket client."""

from __future__ import annotations

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class WebSocketSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a connector reaches a WebSocket. All times in seconds.

    Attributes:
        url: a ws or wss URL; its query may hold secrets, messages leave it out.
        handshake_timeout: for TCP, TLS and the upgrade together.
        ping_interval: between two pings of ours.
        ping_timeout: an unanswered ping without a byte received for so long means that the peer is gone.
        close_timeout: for the closing handshake, and then the socket is closed anyhow.
        max_message_bytes: a larger message ends the socket (ComfyUI's images are several MiB).
        message_queue: messages kept for a slow consumer before the peer is made to wait.
    """

    url: str
    handshake_timeout: Seconds = 10.0
    ping_interval: Seconds = 20.0
    ping_timeout: Seconds = 20.0
    close_timeout: Seconds = 2.0
    max_message_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 * 2**20
    message_queue: Annotated[int, msgspec.Meta(ge=1)] = 64
