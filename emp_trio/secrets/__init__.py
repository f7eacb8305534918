"""Secrets: the type, the registry of secrets this process holds, and redaction of all its output."""

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
