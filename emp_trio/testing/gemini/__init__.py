"""A fake of the Gemini API: models, generateContent, and interactions in the background (Gemini reference, part A).

::

    async with open_fake_gemini() as gemini:
        ...  # talk to gemini.base_url with gemini.api_key
        assert gemini.violations == []
        assert gemini.billed == 1
"""

from emp_trio.testing.gemini.fake import FakeGemini, open_fake_gemini
from emp_trio.testing.gemini.generation import Script

__all__ = ["FakeGemini", "Script", "open_fake_gemini"]
