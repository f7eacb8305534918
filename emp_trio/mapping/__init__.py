"""The service mapping: the ``${}`` parser, the structs of the file, the way from a job type to settings."""

from emp_trio.mapping.substitution import Piece, Substituted, escape, substitute
from emp_trio.mapping.syntax import SubstitutionError

__all__ = ["Piece", "Substituted", "SubstitutionError", "escape", "substitute"]
