"""A fake of the OpenAI API: models, chat, Responses and background mode (OpenAI reference).

::

    async with open_fake_openai() as openai:
        ...  # talk to openai.base_url with openai.api_key
        assert openai.violations == []
        assert openai.billed == 1
"""

from emp_trio.testing.openai.fake import FakeOpenAI, Received, open_fake_openai
from emp_trio.testing.openai.script import Script, StreamScript, ToolCall

__all__ = ["FakeOpenAI", "Received", "Script", "StreamScript", "ToolCall", "open_fake_openai"]
