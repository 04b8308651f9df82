"""Uploads: files that jobs take as inputs."""

from typing import Annotated, Final

from pydantic import Field

from comfy_api_service.api.schemas.base import EXAMPLE_TIME, Answer, Time
from comfy_api_service.domain.ids import CROCKFORD

UPLOAD_ID_PATTERN: Final = "^upl_[0-9A-HJKMNP-TV-Z]{26}$"
EXAMPLE_UPLOAD: Final = f"upl_{CROCKFORD[:26]}"
UploadId = Annotated[str, Field(pattern=UPLOAD_ID_PATTERN, examples=[EXAMPLE_UPLOAD])]


class UploadAnswer(Answer):
    upload_id: UploadId
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="Of the file as it is kept.")]
    media_type: str
    width: int
    height: int
    bytes: int
    created_at: Time
    expires_at: Time


EXAMPLE: Final = {
    "upload_id": EXAMPLE_UPLOAD,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "media_type": "image/png",
    "width": 1024,
    "height": 768,
    "bytes": 1_482_113,
    "created_at": EXAMPLE_TIME,
    "expires_at": "2026-02-01T12:00:00.000Z",
}
