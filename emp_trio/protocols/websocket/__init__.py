"""WebSockets to a service: each with one reader, a watchdog, and a bounded queue of messages."""

from emp_trio.protocols.websocket.session import Socket, WebSocket
from emp_trio.protocols.websocket.settings import WebSocketSettings

__all__ = ["Socket", "WebSocket", "WebSocketSettings"]
