"""A fake of the OpenAI API: chat, Responses, Images and models, plain and streamed.

::

    async with open_fake_openai(strict=True) as openai:
        ...  # talk to openai.base_url with openai.api_key
        assert openai.billed == 1

It refuses what the API refuses, and what no reference documents it remembers (``violations``). A :class:`Script` says
how generations go; ``inject`` answers single requests with errors, late, slowly, or not to the end.
"""

from emp_trio.testing.fake_service import Received
from emp_trio.testing.openai.fake import FakeOpenAI, open_fake_openai
from emp_trio.testing.openai.script import Script, StreamScript, ToolCall

__all__ = ["FakeOpenAI", "Received", "Script", "StreamScript", "ToolCall", "open_fake_openai"]
