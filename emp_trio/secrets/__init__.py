"""Secrets: the type, what the process holds, and masking in everything that leaves it."""

from emp_trio.secrets.held import excerpt, excerpt_around, held, hold, one_line
from emp_trio.secrets.redactor import Redactor, distinct, harmless, hides
from emp_trio.secrets.secret import MASK, Secret

__all__ = [
    "MASK",
    "Redactor",
    "Secret",
    "distinct",
    "excerpt",
    "excerpt_around",
    "harmless",
    "held",
    "hides",
    "hold",
    "one_line",
]
