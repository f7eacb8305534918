"""A fake of the OpenAI API: models, Responses and background mode (OpenAI reference 4, 6 and 7).

::

    async with open_fake_openai() as openai:
        ...  # talk to openai.base_url with openai.api_key
        assert openai.violations == []
        assert openai.billed == 1
"""

from emp_trio.testing.openai.fake import FakeOpenAI, Received, open_fake_openai
from emp_trio.testing.openai.generation import Script

__all__ = ["FakeOpenAI", "Received", "Script", "open_fake_openai"]
