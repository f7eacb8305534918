"""Faults put into a module on purpose, for as long as a test runs, to see that they are found."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def planted(module: ModuleType, right: str, wrong: str) -> Iterator[None]:
    """The module with one text in place of another, which must be there once: what it is in is defined anew."""
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{right!r} is {source.count(right)} times in {module.__name__}"
    before = {ast.dump(node) for node in ast.parse(source).body}
    changed = [node for node in ast.parse(source.replace(right, wrong)).body if ast.dump(node) not in before]
    assert changed, "the fault changes nothing"
    kept = dict(vars(module))
    try:
        exec(compile(ast.Module(changed, []), module.__name__, "exec"), vars(module))
        yield
    finally:
        vars(module).update(kept)
