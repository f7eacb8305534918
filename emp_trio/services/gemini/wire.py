"""Names of the API, in the camel case of the documentation: it takes snake case too, and so do jobs. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

_NAMES: Final = (
    "systemInstruction generationConfig safetySettings serviceTier inlineData fileData mimeType fileUri imageUrl "
    "thoughtSignature responseModalities imageConfig responseFormat aspectRatio imageSize topP topK candidateCount "
    "maxOutputTokens stopSequences thinkingConfig thinkingBudget includeThoughts "
    "finishReason finishMessage safetyRatings promptFeedback blockReason usageMetadata modelVersion responseId "
    "promptTokenCount candidatesTokenCount totalTokenCount cachedContentTokenCount thoughtsTokenCount"
).split()
_DEPTH: Final = 64  # of structures in a payload


def snake(name: str) -> str:
    """``mime_type`` for ``mimeType``."""
    return re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), name)


_CAMEL: Final = {snake(name): name for name in _NAMES}


def camel(value: Any, depth: int = _DEPTH) -> Any:
    """A copy of JSON-like ``value`` in which documented names in snake case are in camel case; others stay."""
    if depth and isinstance(value, dict):
        return {_CAMEL.get(name, name): camel(item, depth - 1) for name, item in value.items()}
    if depth and isinstance(value, list):
        return [camel(item, depth - 1) for item in value]
    return value
