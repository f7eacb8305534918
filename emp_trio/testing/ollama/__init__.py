"""A fake of Ollama: generate, chat, embeddings, models and pulls (Ollama reference, part B).

::

    async with open_fake_ollama() as ollama:
        ...  # talk to ollama.base_url
        assert ollama.violations == []
        assert [work.end for work in ollama.generations] == ["done"]
"""

from emp_trio.testing.ollama.fake import FakeOllama, open_fake_ollama
from emp_trio.testing.ollama.script import Script
from emp_trio.testing.ollama.stream import Work

__all__ = ["FakeOllama", "Script", "Work", "open_fake_ollama"]
