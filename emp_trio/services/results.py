"""Add saved assets to a result, under the names that the fleet reads (connector reference 11). Pure."""

from __future__ import annotations

from emp_trio.jobs import SavedAsset


def saved_asset(asset: SavedAsset) -> dict[str, str]:
    """An asset as ``metadata.saved_asset`` (queue protocol 5.3); ``fileUrl`` is the one that clients open, empty for a
    file that is in the result itself."""
    url = "" if asset.inline else asset.cdn_url
    return {
        "filePath": asset.file_path,
        "fileName": asset.file_name,
        "fileUrl": url,
        "cdnUrl": url,
        "mimeType": asset.media_type,
    }


def asset_data(asset: SavedAsset) -> dict[str, str]:
    """The fields of ``data`` by which consumers find a job's main asset (queue protocol 5.3, enrichment)."""
    return {
        "image_url": asset.cdn_url,
        "mime_type": asset.media_type,
        "content_type": asset.media_type.split("/", 1)[0],
    }
