"""Job payloads as requests of Ollama's own API (Ollama reference B2, B4; connector reference 8). Pure."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from emp_trio.errors import InvalidJob
from emp_trio.secrets import excerpt
from emp_trio.services.lenient import numbers

Operation = Literal["generate", "chat", "embed", "models", "pull"]

PATHS: Final[dict[Operation, str]] = {
    "generate": "/api/generate",
    "chat": "/api/chat",
    "embed": "/api/embed",
    "models": "/api/tags",
    "pull": "/api/pull",
}

_BY_JOB_TYPE: Final[dict[str, Operation]] = {
    "text_generation": "generate",
    "chat_completion": "chat",
    "embeddings": "embed",
}
_BY_WORD: Final[dict[str, Operation]] = {
    "generate": "generate",
    "text_generation": "generate",
    "chat": "chat",
    "chat_completion": "chat",
    "embed": "embed",
    "embeddings": "embed",
    "models": "models",
    "pull": "pull",
}
_OPTIONS: Final = (  # option, and the names it goes by in a payload
    ("temperature", ("temperature",)),
    ("top_k", ("top_k",)),
    ("top_p", ("top_p",)),
    ("num_predict", ("num_predict", "max_tokens")),
    ("num_ctx", ("num_ctx", "context_length")),
    ("repeat_penalty", ("repeat_penalty",)),
    ("stop", ("stop",)),
)
_NUMBERS: Final = frozenset(option for option, _ in _OPTIONS) - {"stop"} | frozenset(
    "seed num_keep min_p typical_p repeat_last_n presence_penalty frequency_penalty num_batch num_gpu main_gpu "
    "num_thread".split()
)
_SHARED: Final = ("format", "think", "keep_alive", "truncate", "shift")
_GENERATE_ONLY: Final = ("suffix", "template", "raw", "context")
_EMBED_ONLY: Final = ("truncate", "dimensions", "keep_alive")


class OllamaRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask of Ollama.

    Attributes:
        operation: which call.
        body: its JSON body; images stand in it as the job gave them.
        single: embeddings of one text, whose vector is then the result itself.
        warnings: what was left out of the payload, for the result and the log.
    """

    operation: Operation
    body: dict[str, Any]
    single: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Path of the call."""
        return PATHS[self.operation]

    @property
    def model(self) -> str:
        """The model it is about; empty for the list of models."""
        return str(self.body.get("model", ""))


def ollama_request(job_type: str, payload: dict[str, Any], *, default_model: str) -> OllamaRequest:
    """The request of a job.

    The job type decides the operation where it names one (``text_generation``, ``chat_completion``, ``embeddings``);
    else ``payload.job_type`` or ``payload.operation`` does. Where nothing does, ``messages`` without a prompt are a
    chat, and everything else is a prompt to ``generate``.

    Args:
        job_type: the routing string.
        payload: the job's payload.
        default_model: for a payload that names no model.

    Raises:
        InvalidJob: the operation is unknown, or what it needs is missing.
    """
    operation, warnings = _operation(job_type, payload)
    if operation == "models":
        return OllamaRequest(operation=operation, body={}, warnings=warnings)
    model = payload.get("model") or default_model
    if not isinstance(model, str):
        raise InvalidJob(f"payload.model must be text, not {type(model).__name__}", reason="invalid_format")
    body: dict[str, Any] = {"model": model}
    match operation:
        case "pull":
            body |= {"stream": True}
        case "embed":
            body |= {"input": _inputs(payload)} | _given(payload, _EMBED_ONLY)
        case "chat":
            body |= {"messages": _messages(payload), "stream": True} | _given(payload, (*_SHARED, "tools"))
        case "generate":
            body |= _prompt(payload) | {"stream": True} | _given(payload, _SHARED + _GENERATE_ONLY)
    options = {} if operation == "pull" else _options(payload)
    if options:
        body["options"] = options
    single = operation == "embed" and isinstance(body["input"], str)
    return OllamaRequest(operation=operation, body=body, single=single, warnings=warnings)


def _operation(job_type: str, payload: dict[str, Any]) -> tuple[Operation, tuple[str, ...]]:
    word = next((payload[name] for name in ("job_type", "operation") if payload.get(name)), None)
    asked = _BY_WORD.get(word) if isinstance(word, str) else None
    routed = _BY_JOB_TYPE.get(job_type)
    if routed is not None:
        ignored = word is not None and asked != routed
        return routed, (
            f"the operation {_shown(word)} is left out: a {job_type} job is always that",
        ) if ignored else ()
    if word is None:
        chat = payload.get("messages") and not payload.get("prompt")
        return "chat" if chat else "generate", ()
    if asked is None:
        known = ", ".join(sorted(_BY_WORD))
        raise InvalidJob(f"payload.operation {_shown(word)} is not one of {known}", reason="unsupported_operation")
    return asked, ()


def _shown(word: Any) -> str:
    return repr(excerpt(word, 80)) if isinstance(word, str) else f"of type {type(word).__name__}"


def _prompt(payload: dict[str, Any]) -> dict[str, Any]:
    prompt = payload.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise InvalidJob("the payload has no prompt", reason="missing_required_field")
    system = _system(payload)
    images = _images(payload)
    return {"prompt": prompt} | ({"system": system} if system else {}) | ({"images": images} if images else {})


def _messages(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as they are, or made of system and prompt; ``payload.images`` go with the last of the user's."""
    given = payload.get("messages")
    system = _system(payload)
    if given is None and isinstance(payload.get("prompt"), str) and payload["prompt"]:
        given = [{"role": "user", "content": payload["prompt"]}]
    if not isinstance(given, list) or not given or not all(isinstance(message, dict) for message in given):
        raise InvalidJob(
            "the payload needs messages, a list of objects with role and content, or a prompt",
            reason="missing_required_field" if given is None else "invalid_format",
        )
    messages = [message | ({"images": own} if (own := _images(message)) else {}) for message in given]
    if system and not any(message.get("role") == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": system})
    images = _images(payload)
    if images:
        asking = next((message for message in reversed(messages) if message.get("role") == "user"), None)
        if asking is None:
            raise InvalidJob("payload.images need a message of the role user", reason="missing_required_field")
        asking["images"] = _images(asking) + images
    return messages


def _inputs(payload: dict[str, Any]) -> str | list[str]:
    given = next((payload[name] for name in ("input", "prompt", "text") if payload.get(name)), None)
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given and all(isinstance(item, str) and item for item in given):
        return list(given)
    raise InvalidJob(
        "the payload needs input (or prompt, or text): a text or a list of texts, none of them empty",
        reason="missing_required_field" if given is None else "invalid_format",
    )


def _system(payload: dict[str, Any]) -> str:
    return next((payload[n] for n in ("system_prompt", "system") if isinstance(payload.get(n), str)), "")


def _images(payload: dict[str, Any]) -> list[Any]:
    images = payload.get("images")
    if images is None:
        return []
    if not isinstance(images, list):
        raise InvalidJob("images must be a list", reason="invalid_format")
    return list(images)


def _options(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload's options under Ollama's names; what stands in its own ``options`` counts for more."""
    options: dict[str, Any] = {}
    for option, names in _OPTIONS:
        value = next((payload[name] for name in names if payload.get(name) is not None), None)
        if value is not None:
            options[option] = value
    native = payload.get("options")
    if not isinstance(native, dict | None):
        raise InvalidJob("payload.options must be an object", reason="invalid_format")
    return numbers(options | (native or {}), _NUMBERS)


def _given(payload: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: payload[name] for name in names if payload.get(name) is not None}
