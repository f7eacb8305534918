"""Model names: defaults, and what is known of image models that are gone (OpenAI reference 1). Pure.

Names are open strings: an unknown one is passed on as it is. The table only spares jobs an error that is certain.
"""

from __future__ import annotations

import datetime
import re
from typing import Final

DEFAULT_TEXT_MODEL: Final = "gpt-6-luna"
DEFAULT_IMAGE_MODEL: Final = "gpt-image-2.6-flare"

SHUTDOWNS: Final = {
    "dall-e-2": datetime.date(2026, 5, 12),
    "dall-e-3": datetime.date(2026, 5, 12),
    "gpt-image-1": datetime.date(2026, 10, 23),
    "gpt-image-1-mini": datetime.date(2026, 12, 1),
    "gpt-image-1.5": datetime.date(2026, 12, 1),
    "chatgpt-image-latest": datetime.date(2026, 12, 1),
}

_IMAGE: Final = re.compile(r"(?i)dall-e|.*image")
_TEXT: Final = re.compile(r"(?i)gpt-\d|o\d|chatgpt-4")


def is_image_model(name: str) -> bool:
    """Whether a name is certainly that of an image model, which the Responses API refuses as the top-level model."""
    return _IMAGE.match(name) is not None


def choose_image_model(name: str, *, today: datetime.date) -> tuple[str, str]:
    """The image model to use for a configured or requested name.

    Args:
        name: what was asked for.
        today: the date on which it is to work.

    Returns:
        (model, warning); the warning is empty when there is nothing to say.
    """
    end = SHUTDOWNS.get(name)
    if end is not None and end <= today:
        return DEFAULT_IMAGE_MODEL, f"{name} was shut down on {end}: {DEFAULT_IMAGE_MODEL} is used instead"
    if end is not None:
        return name, f"{name} will be shut down on {end}: change to {DEFAULT_IMAGE_MODEL}"
    if _TEXT.match(name) and not is_image_model(name):
        return (
            DEFAULT_IMAGE_MODEL,
            f"{name} is a text model, not an image model: {DEFAULT_IMAGE_MODEL} is used "
            "(OPENAI_IMAGE_MODEL names the image model, OPENAI_RESPONSES_MODEL the text model that calls it)",
        )
    return name, ""
