"""Responses as they come, from OpenAI and from gateways that speak its language (OpenAI reference 4.4, 7, 11). Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from emp_trio.protocols.parsing import Lenient, NoObject


class ImageFacts(msgspec.Struct, frozen=True):
    """What the service says of an image beside its data; gateways leave out what they like."""

    output_format: Lenient[str] = ""
    revised_prompt: Lenient[str | None] = None
    size: Lenient[str | None] = None
    quality: Lenient[str | None] = None


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response was stopped."""

    reason: Any = None


class TokenDetails(msgspec.Struct, frozen=True):
    """What tokens were for."""

    cached_tokens: Lenient[int | None] = None
    reasoning_tokens: Lenient[int | None] = None


class Tokens(msgspec.Struct, frozen=True):
    """Tokens; None where the service says nothing of them."""

    input_tokens: Lenient[int | None] = None
    output_tokens: Lenient[int | None] = None
    total_tokens: Lenient[int | None] = None
    input_tokens_details: Lenient[TokenDetails | None] = None
    output_tokens_details: Lenient[TokenDetails | None] = None


class ToolUsage(msgspec.Struct, frozen=True):
    """What tools have used; an empty object where there were none."""

    image_gen: Lenient[dict[str, Any] | None] = None


class Spent(msgspec.Struct, frozen=True):
    """What a response says of its cost."""

    model: Lenient[str | None] = None
    usage: Lenient[Tokens | None] = None
    tool_usage: Lenient[ToolUsage | None] = None


class Response(Spent, frozen=True, kw_only=True):
    """A response object. The output may be one item in place of a list; of some gateways it is that of the Images API.
    Items are kept as they are: where their images and words stand differs from one service to the next."""

    id: Any = None
    status: Any = None
    error: Any = None
    incomplete_details: IncompleteDetails | NoObject = None
    output: Lenient[list[Lenient[dict[str, Any]]] | dict[str, Any] | None] = None
    data: Lenient[list[Lenient[dict[str, Any]]] | dict[str, Any] | None] = None
    images: Lenient[list[Lenient[dict[str, Any]]] | dict[str, Any] | None] = None
    output_text: Lenient[str | None] = None

    def items(self) -> list[dict[str, Any]]:
        """The objects of the output."""
        output = self.output or self.data or self.images or []
        return [output] if isinstance(output, dict) else output


class ItemParts(msgspec.Struct, frozen=True):
    """Where gateways put images into an item."""

    content: Lenient[list[Lenient[dict[str, Any]]]] = []
    images: Lenient[list[Lenient[dict[str, Any]]]] = []
