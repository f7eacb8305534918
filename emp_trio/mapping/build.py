"""Build a connector's settings from the mapping and the environment, and record each value's source. Pure.

The precedence is that of :mod:`emp_trio.settings`. Text is converted after substitution; only text that is exactly one
reference can become a number or a boolean.
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
"""Names that the fleet's file puts in every ``api_config``; no warning if the connector has no such setting."""

OriginSource = Literal["literal", "environment", "default", "mixed", "missing"]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a connector and the source of its value. Safe to print: secrets are masked.

    Attributes:
        name, part: flat name, and the part of the settings that has it (None: the settings themselves).
        value: JSON value; ``***`` for a secret, None if missing.
        source: ``literal`` (text of the mapping), ``environment``, ``default``, ``mixed`` (several of these) or
            ``missing``.
        path: location of the text: a JSON path into the mapping, or an attribute of the connector class.
        text: text as written; None if the value is not text.
        variables: environment variables that the text references.
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
    """Result of :func:`build_settings`.

    ``settings`` is None after an error. ``needed`` lists the missing variables that the connector's settings require.
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
    """Build the settings of a connector.

    Args:
        connector: class whose ``Settings`` declares the settings and their environment expressions.
        api_config: settings of this service in the mapping.
        path: JSON path of ``api_config``.
        env: the environment.
        diagnostics: receives the problems, except missing variables that only the connector references: they are
            returned in ``needed``, because several services may need the same variable.
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
    """The value can't be built; the reason is in the diagnostics."""


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
        # A blank variable counts as missing in the connector's own expressions.
        self.filled = {name: value for name, value in env.items() if value.strip()}
        self.diagnostics = diagnostics
        self.origins: list[Origin] = []
        self.needed: list[str] = []
        self.secrets: list[Secret] = []

    def field(self, field: SettingField) -> Any:
        """Return the converted value of one setting, or UNSET."""
        try:
            raw = self.find(field)
        except SubstitutionError as error:
            path = child(self.path, field.name)
            self.diagnostics.substitution(path, error)
            text = str(self.api_config[field.name]) if error.missing else None
            self.note(field, _Value(None, "missing", path, text=text))
            return msgspec.UNSET
        except _Reported:
            self.note(field, _Value(None, "missing", child(self.path, field.name)))
            return msgspec.UNSET
        if raw is None:
            self.note(field, _Value(None, "missing", self.place(field), text=field.expression))
            return msgspec.UNSET
        if raw.value is field.default:  # the struct's own default needs no conversion
            self.note(field, raw)
            return field.default
        return self.convert(field, raw)

    def find(self, field: SettingField) -> _Value | None:
        """Return the value of the first of the four sources that has one."""
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

    def convert(self, field: SettingField, raw: _Value) -> Any:
        try:
            value = convert(raw.value, field.type, whole=raw.whole)
        except Unfit as error:
            secret = self.note(field, raw)
            variables = [p.variable for p in raw.pieces if p.source == "environment"]
            self.diagnostics.error(
                raw.path,
                f"{'the value' if secret else _shown(raw.value)} does not fit {field.name}: {error.reason}",
                error.hint,
                variable=variables[0] if variables else None,
            )
            return msgspec.UNSET
        if isinstance(value, Secret) and raw.source == "literal":
            self.diagnostics.warning(raw.path, "is a secret in plain text", "write a reference such as ${NAME} instead")
        self.note(field, _Value(value, raw.source, raw.path, raw.text, raw.pieces))
        return value

    def note(self, field: SettingField, raw: _Value) -> bool:
        """Record the origin. Return whether the setting is a secret."""
        read = references(raw.text) if raw.text is not None else raw.pieces
        named = tuple(dict.fromkeys(item.variable for item in read if item.variable is not None))
        hidden = [p.text for p in raw.pieces if p.source == "environment" and is_secret_variable(p.variable or "")]
        self.secrets += [Secret(text) for text in hidden if text]
        by_name = isinstance(raw.value, str) and is_secret_name(field.name)
        secret = _holds_secret(field.type) or bool(hidden) or by_name
        shown = msgspec.to_builtins(raw.value, enc_hook=str, builtin_types=())
        if secret:
            shown = MASK if raw.value else None
        elif is_headers_name(field.name):
            shown = Redactor().data({field.name: shown})[field.name]
        # Show the text of a secret only if it consists of references alone.
        literal = any(p.source != "environment" for p in raw.pieces)
        text = MASK if secret and raw.text is not None and literal else raw.text
        self.origins.append(
            Origin(
                name=field.name,
                part=field.part,
                value=Redactor().data(shown),
                source=raw.source,
                path=raw.path,
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
        """Build the settings struct, its parts first; return None if its own validation rejects the values."""
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
