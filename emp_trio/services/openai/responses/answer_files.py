"""The images of an answer as files, and what is to be said of an answer that was cut short."""

from __future__ import annotations

from emp_trio.protocols.fetch import Fetcher
from emp_trio.protocols.http import HttpClient
from emp_trio.services.openai.responses.answer import Answer, Image
from emp_trio.services.outputs import Output, OutputFiles, output_files


async def image_files(http: HttpClient, fetcher: Fetcher, images: tuple[Image, ...]) -> OutputFiles:
    """The files of images, as far as they can be had.

    Raises:
        ServiceError: (response_error) none can be had. They have been paid for.
    """
    outputs = [Output(source=image.data, media_type=image.media_type) for image in images]
    return await output_files(http, fetcher, outputs, images=True)


def stop_warning(answer: Answer) -> tuple[str, ...]:
    """What is to be said of an answer that ended before its time."""
    return (f"OpenAI stopped ({answer.stopped}); what it had made by then is kept",) if answer.truncated else ()
