"""Service mapping: read the file, substitute ``${...}``, resolve a job type to a connector and its settings."""

from emp_trio.mapping.build import Origin
from emp_trio.mapping.explain import Chain, Explanation, explain
from emp_trio.mapping.jsonschema import mapping_schema
from emp_trio.mapping.load import Loaded, load_mapping
from emp_trio.mapping.plans import Plan, ServicePlan, WorkerPlan
from emp_trio.mapping.resolve import plan
from emp_trio.mapping.schema import ServiceMapping
from emp_trio.mapping.substitution import Piece, Substituted, escape, substitute
from emp_trio.mapping.substitution_errors import SubstitutionError
from emp_trio.mapping.workers import workers_from_env

__all__ = [
    "Chain",
    "Explanation",
    "Loaded",
    "Origin",
    "Piece",
    "Plan",
    "ServiceMapping",
    "ServicePlan",
    "Substituted",
    "SubstitutionError",
    "WorkerPlan",
    "escape",
    "explain",
    "load_mapping",
    "mapping_schema",
    "plan",
    "substitute",
    "workers_from_env",
]
