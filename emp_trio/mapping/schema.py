"""Structs of the service mapping, with every field of the fleet's file (service mapping reference, section 2).

Text whose description says "references" is substituted from the environment (:mod:`emp_trio.mapping.substitution`),
only for services in use. Fields that only other parts of the fleet read are accepted, so that all can share one file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

VariableName = Annotated[
    str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]*$", description="Name of an environment variable, without `${}`.")
]
Template = Annotated[str | int, Meta(description="May hold references such as `${COMFYUI_BASE_PORT:-8188}`.")]
Scalar = str | int | float | bool | None
Setting = str | int | float | bool | list[Any] | dict[str, Any] | None

WorkerKind = Literal["direct_worker", "service_client", "daemon_client"]
ServiceKind = Literal[
    "internal",
    "external",
    "pm2_service",
    "daemon_service",
    "managed_service",
    "external_api",
    "external_service",
]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one type, and the worker service that runs them."""

    job_service_required: Annotated[str, Meta(description="The job type: `service_required` of a job.")]
    worker_service: Annotated[str, Meta(description="A name in `services`.")]


class WorkerType(msgspec.Struct, frozen=True, kw_only=True):
    """A worker type, as named in WORKERS."""

    job_service_required_map: Annotated[
        tuple[Route, ...], Meta(description="The job types this worker takes; of two entries for one, the first.")
    ]
    services: Annotated[tuple[str, ...], Meta(description="Worker services this type provides.")] = ()
    is_gpu_bound: Annotated[bool, Meta(description="At most one worker per GPU.")] = False
    required_env: Annotated[tuple[VariableName, ...], Meta(description="Must be set and not empty.")] = ()
    type: WorkerKind = "direct_worker"
    daemon_dependency: str | None = None
    scaling_strategy: str | None = None
    description: str = ""


class ConnectorEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Import path of a connector class."""

    path: Annotated[
        str | None,
        Meta(
            description="`package.module:Class`; a path ending in `.js`, or none, means built in or installed, by name."
        ),
    ] = None
    description: str = ""


class TelemetryLog(msgspec.Struct, frozen=True, kw_only=True):
    """A log file of a service, to be followed and forwarded."""

    path: Annotated[str, Meta(description="Path or glob; may hold references.")]
    name: str
    description: str = ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A worker service: a connector and its settings."""

    connector: Annotated[str, Meta(description="Class name, as in `connectors`.")]
    type: ServiceKind | None = None
    api_config: Annotated[
        dict[str, Setting],
        Meta(description="Settings of the connector by name (`base_url`, `timeout`, ...); text may hold references."),
    ] = {}
    job_timeout_minutes: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Time one attempt may take, in place of JOB_TIMEOUT_MINUTES."),
    ] = None
    required_env: Annotated[tuple[VariableName, ...], Meta(description="Must be set and not empty.")] = ()
    description: str = ""
    is_gpu_bound: bool = False
    build_stage: str = "base"
    installer: str | None = None
    installer_filename: str | None = None
    installer_config: Annotated[dict[str, Scalar], Meta(description="Read by the installers of the fleet.")] = {}
    service_instances_per_gpu: Template | None = None
    service_instances_per_machine: Template | None = None
    ports: tuple[Template, ...] = ()
    port: Template | None = None
    port_increment: Template | None = None
    telemetry_logs: tuple[TelemetryLog, ...] = ()
    daemon_command: str | None = None
    health_endpoint: str | None = None


class ServiceType(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of a service type. Informational: code compares only the names of the types."""

    description: str = ""
    requires_installer: bool = False
    has_ports: bool = False
    has_pm2_process: bool = False
    scaling_strategy: str | None = None
    startup_order: str | None = None


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """Method that detects a capability of the machine."""

    detection_method: str | None = None
    fallback: str | None = None
    env_var: VariableName | None = None
    test_urls: tuple[str, ...] = ()
    required_env: tuple[VariableName, ...] = ()


class MachineCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Capabilities of machines. Informational."""

    auto_detect: dict[str, Detection] = {}
    static: dict[str, Scalar] = {}


class ServiceMapping(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file: job type -> worker type -> worker service -> connector."""

    schema: Annotated[str | None, Meta(description="Where this schema is found, for editors.")] = msgspec.field(
        name="$schema", default=None
    )
    workers: dict[str, WorkerType] = {}
    machine_capabilities: MachineCapabilities = MachineCapabilities()
    connectors: dict[str, ConnectorEntry] = {}
    services: dict[str, Service] = {}
    service_types: dict[str, ServiceType] = {}
