"""WebSockets to a service: each with one reader, a watchdog, and a bounded queue of messages."""

from emp_trio.protocols.websocket.client import WebSocketClient
from emp_trio.protocols.websocket.mixin import WebSocket
from emp_trio.protocols.websocket.session import WebSocketSession
from emp_trio.protocols.websocket.settings import WebSocketSettings

__all__ = ["WebSocket", "WebSocketClient", "WebSocketSession", "WebSocketSettings"]
