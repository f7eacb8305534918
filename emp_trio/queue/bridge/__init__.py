"""Redis for a Trio program, by redis-py's connection under trio-asyncio: the only place that knows asyncio.

One asyncio-side owner per connection packs what Trio tasks ask for into batches (a bridge crossing per batch, not per
command), reads replies in order, and never sends anything twice. A cancelled caller only marks its request: the reply
is still read in its turn. What was measured stands in docs/why-one-connection.md.
"""

from emp_trio.queue.bridge.bridge import Bridge, open_bridge

__all__ = ["Bridge", "open_bridge"]
