"""Put a file into the result itself, for jobs with ``save_assets: false``. Pure."""

from __future__ import annotations

import base64
import hashlib

from emp_trio.assets.media import HEAD, media_type
from emp_trio.connector_context import GeneratedFile
from emp_trio.jobs import SavedAsset


def inline_asset(file: GeneratedFile, cap: int) -> SavedAsset | None:
    """Return a file as an asset with a data URL. Only small files, because results go through Redis.

    Args:
        file: generated file.
        cap: maximum bytes.

    Returns:
        the asset, or None for a larger file.
    """
    if len(file.data) > cap:
        return None
    kind = media_type(file.data[:HEAD], file.media_type)
    url = f"data:{kind};base64,{base64.b64encode(file.data).decode()}"
    return SavedAsset(
        file_path="",
        file_name="",
        file_url=url,
        cdn_url=url,
        media_type=kind,
        size=len(file.data),
        sha256=hashlib.sha256(file.data).hexdigest(),
    )
