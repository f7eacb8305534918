"""A connector's settings from the mapping and the environment, with where each came from. Pure.

Order of precedence as in :mod:`emp_trio.settings`. Text is converted after substitution; only text that is one whole
reference may become a number or a truth value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_type_hints

import msgspec

from emp_trio.mapping.convert import Unfit, convert
from emp_trio.mapping.diagnostics import Diagnostics
from emp_trio.mapping.lint import lint_values
from emp_trio.mapping.nested import Nested
from emp_trio.mapping.paths import child
from emp_trio.mapping.schema import Setting
from emp_trio.mapping.substitution import Piece, references, substitute
from emp_trio.mapping.substitution_errors import SubstitutionError
from emp_trio.mapping.suggestions import did_you_mean
from emp_trio.secrets import MASK, Redactor, Secret, excerpt
from emp_trio.secrets.names import is_headers_name, is_secret_name, is_secret_variable
from emp_trio.settings import SettingField, setting_fields

FLEET_NAMES: Final = frozenset(
    "base_url timeout max_retries text_models image_models retry_delay max_concurrent_jobs request_timeout_ms".split()
)
"""Names in ``api_config`` that the fleet's file has on every service; a connector may have no use for them."""

OriginSource = Literal["literal", "environment", "default", "mixed", "missing"]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a connector and where its value came from. Safe to print: secrets are masked.

    Attributes:
        name, part: the flat name, and the part of the settings it belongs to (None: the settings themselves).
        value: as JSON; ``***`` for a secret, None where it is missing.
        source: ``literal`` (the mapping's text), ``environment``, ``default``, ``mixed`` (several of them) or
            ``missing``.
        path: where that text stands: a JSON path into the mapping, or a place in the connector's class.
        text: the text itself as written; None for a value that is no text.
        variables: the environment variables its text names.
        secret: whether the value is a secret.
    """

    name: str
    part: str | None = None
    value: Any = None
    source: OriginSource
    path: str
    text: str | None = None
    variables: tuple[str, ...] = ()
    secret: bool = False


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`build_settings` made.

    ``settings`` is None after an error. ``needed`` are the variables without which a setting has no value.
    """

    settings: Any
    origins: tuple[Origin, ...]
    secrets: tuple[Secret, ...]
    needed: tuple[str, ...]


class _Value(msgspec.Struct, frozen=True):
    """A value before conversion."""

    value: Any
    source: OriginSource
    path: str
    text: str | None = None
    pieces: tuple[Piece, ...] = ()
    whole: bool = False


def build_settings(
    connector: type[Any],
    api_config: Mapping[str, Setting],
    path: str,
    *,
    env: Mapping[str, str],
    diagnostics: Diagnostics,
) -> Built:
    """Make the settings of a connector.

    Args:
        connector: its class; ``Settings`` names the settings and their environment expressions.
        api_config: the mapping's settings for this service.
        path: JSON path of ``api_config``.
        env: the environment.
        diagnostics: where problems are added, but for missing variables that only the connector asks for: those are in
            ``needed``, because several services may need the same.
    """
    build = _Build(connector, api_config, path, env, diagnostics)
    fields = setting_fields(connector.Settings)
    values = {field.name: build.field(field) for field in fields}
    build.unknown_names([field.name for field in fields])
    complete = all(value is not msgspec.UNSET for value in values.values())
    return Built(
        settings=build.assemble(fields, values) if complete else None,
        origins=tuple(build.origins),
        secrets=tuple(dict.fromkeys([*(v for v in values.values() if isinstance(v, Secret)), *build.secrets])),
        needed=tuple(dict.fromkeys(build.needed)),
    )


class _Reported(Exception):
    """A value can't be made, and the diagnostics say why."""


class _Build:
    def __init__(
        self,
        connector: type[Any],
        api_config: Mapping[str, Setting],
        path: str,
        env: Mapping[str, str],
        diagnostics: Diagnostics,
    ) -> None:
        self.connector = connector
        self.api_config = api_config
        self.path = path
        self.env = env
        # A blank variable counts as missing wherever the connector itself asks for it.
        self.filled = {name: value for name, value in env.items() if value.strip()}
        self.diagnostics = diagnostics
        self.origins: list[Origin] = []
        self.needed: list[str] = []
        self.secrets: list[Secret] = []

    def field(self, field: SettingField) -> Any:
        """The converted value of one setting, or UNSET."""
        try:
            found = self.find(field)
        except SubstitutionError as error:
            path = child(self.path, field.name)
            self.diagnostics.substitution(path, error)
            text = str(self.api_config[field.name]) if error.missing else None
            self.note(field, _Value(None, "missing", path, text=text))
            return msgspec.UNSET
        except _Reported:
            self.note(field, _Value(None, "missing", child(self.path, field.name)))
            return msgspec.UNSET
        if found is None:
            self.note(field, _Value(None, "missing", self.place(field), text=field.expression))
            return msgspec.UNSET
        if found.value is field.default:  # the struct's own default needs no conversion
            self.note(field, found)
            return field.default
        return self.convert(field, found)

    def find(self, field: SettingField) -> _Value | None:
        """The first of the four places that has a value."""
        expressed = self.expressed(field)
        if expressed is not None and any(p.source == "environment" for p in expressed.pieces):
            return expressed
        configured = self.configured(field)
        if configured is not None:
            return configured
        has_default = field.default is not msgspec.UNSET
        if expressed is not None and not (has_default and str(expressed.value).strip() == ""):
            return expressed
        if has_default:
            return _Value(field.default, "default", self.place(field), text=field.expression)
        if field.expression is not None:
            self.needed += [r.variable for r in references(field.expression) if r.variable not in self.filled]
        else:
            self.diagnostics.error(
                child(self.path, field.name), "is missing", f"{self.connector.__name__} has no default for it"
            )
        return None

    def expressed(self, field: SettingField) -> _Value | None:
        if field.expression is None:
            return None
        try:
            done = substitute(field.expression, self.filled)
        except SubstitutionError as error:
            if not error.missing:
                raise TypeError(f"{self.place(field)}: {error}") from error
            return None
        place, text = self.place(field), field.expression
        return _Value(done.value, _source(done.pieces), place, text=text, pieces=done.pieces, whole=done.whole)

    def configured(self, field: SettingField) -> _Value | None:
        value = self.api_config.get(field.name)
        path = child(self.path, field.name)
        if isinstance(value, (dict, list)):
            return self.nested(value, path)
        if not isinstance(value, str):
            return None if value is None else _Value(value, "literal", path)
        done = substitute(value, self.env)
        for problem in lint_values(path, value, self.env):
            self.diagnostics.add(problem)
        if not done.value.strip():
            return None
        return _Value(done.value, _source(done.pieces), path, text=value, pieces=done.pieces, whole=done.whole)

    def nested(self, value: Any, path: str) -> _Value:
        made = Nested(value, path, self.env)
        for problem in made.problems:
            self.diagnostics.add(problem)
        for place, error in made.errors:
            self.diagnostics.substitution(place, error)
        if made.errors:
            raise _Reported
        return _Value(made.value, _source(tuple(made.pieces)), path, pieces=tuple(made.pieces))

    def convert(self, field: SettingField, found: _Value) -> Any:
        try:
            value = convert(found.value, field.type, whole=found.whole)
        except Unfit as error:
            secret = self.note(field, found)
            variables = [p.variable for p in found.pieces if p.source == "environment"]
            self.diagnostics.error(
                found.path,
                f"{'the value' if secret else _shown(found.value)} does not fit {field.name}: {error.reason}",
                error.hint,
                variable=variables[0] if variables else None,
            )
            return msgspec.UNSET
        if isinstance(value, Secret) and found.source == "literal":
            self.diagnostics.warning(
                found.path, "is a secret in plain text", "write a reference such as ${NAME} instead"
            )
        self.note(field, _Value(value, found.source, found.path, found.text, found.pieces))
        return value

    def note(self, field: SettingField, found: _Value) -> bool:
        """Add to the origins; returns whether the setting is a secret."""
        read = references(found.text) if found.text is not None else found.pieces
        named = tuple(dict.fromkeys(one.variable for one in read if one.variable is not None))
        hidden = [p.text for p in found.pieces if p.source == "environment" and is_secret_variable(p.variable or "")]
        self.secrets += [Secret(text) for text in hidden if text]
        by_name = isinstance(found.value, str) and is_secret_name(field.name)
        secret = _holds_secret(field.type) or bool(hidden) or by_name
        shown = msgspec.to_builtins(found.value, enc_hook=str, builtin_types=())
        if secret:
            shown = MASK if found.value else None
        elif is_headers_name(field.name):
            shown = Redactor().data({field.name: shown})[field.name]
        # Text of a secret is shown only where it is nothing but references.
        literal = any(p.source != "environment" for p in found.pieces)
        text = MASK if secret and found.text is not None and literal else found.text
        self.origins.append(
            Origin(
                name=field.name,
                part=field.part,
                value=Redactor().data(shown),
                source=found.source,
                path=found.path,
                text=Redactor().text(text) if text is not None else None,
                variables=named,
                secret=secret,
            )
        )
        return secret

    def place(self, field: SettingField) -> str:
        return ".".join(filter(None, (self.connector.__name__, field.part, field.name)))

    def unknown_names(self, known: list[str]) -> None:
        for name in self.api_config:
            if name not in known and name not in FLEET_NAMES:
                hint = did_you_mean(name, known)
                self.diagnostics.warning(
                    child(self.path, name), f"{self.connector.__name__} has no setting {name!r}", hint
                )

    def assemble(self, fields: tuple[SettingField, ...], values: dict[str, Any]) -> Any:
        """The settings struct, parts first; None when it refuses its own values."""
        hints = get_type_hints(self.connector.Settings)
        whole: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {}
        for field in fields:
            target = whole if field.part is None else parts.setdefault(field.part, {})
            target[field.name] = values[field.name]
        try:
            for part, members in parts.items():
                whole[part] = hints[part](**members)
            return self.connector.Settings(**whole)
        except (ValueError, TypeError) as error:
            self.diagnostics.error(self.path, f"the settings do not fit {self.connector.__name__}: {error}")
            return None


def _source(pieces: tuple[Piece, ...]) -> OriginSource:
    kinds = {piece.source for piece in pieces}
    return "literal" if not kinds else kinds.pop() if len(kinds) == 1 else "mixed"


def _holds_secret(type_: Any) -> bool:
    return type_ is Secret or any(_holds_secret(part) for part in get_args(type_))


def _shown(value: Any) -> str:
    text = json.dumps(Redactor().data(value), ensure_ascii=False)
    return text if len(text) <= 60 else excerpt(text, 60) + "..."
