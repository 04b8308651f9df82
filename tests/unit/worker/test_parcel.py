import pytest

from comfy_api_service.domain.job import Artifact, CacheUse
from comfy_api_service.worker.parcel import Parcel, ParcelDamaged, packed, unpacked

PARCEL = Parcel(
    job_id="job_1",
    worker_id="wrk_1",
    attempt=3,
    artifacts=(
        Artifact(0, "9", "image", "image/png", 123, "ab" * 32, "jobs/job_1/3/image_0.png", 64, 64, 2**64 - 1),
        Artifact(1, "9", "video", "video/mp4", 456, "cd" * 32, "jobs/job_1/3/video_1.mp4", meta={"x": [1]}),
    ),
    keys=frozenset({"jobs/job_1/3/video_1.mp4", "jobs/job_1/3/image_0.png"}),
    values={"12": ["words", 1.5, None]},
    cache=CacheUse.PARTIAL,
    produced=1,
    backend_seconds=1.25,
    measured={"unit": 0.5},
    images=2,
    made_at=1_700_000_000.25,
)


def test_a_parcel_comes_back_as_it_was() -> None:
    assert unpacked(packed(PARCEL)) == PARCEL


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        packed(PARCEL).replace(b'"attempt"', b'"number"'),
        packed(PARCEL).replace(b'"partial"', b'"some"'),
        packed(PARCEL).replace(b'"sha256"', b'"md5"'),
        packed(PARCEL)[:-20],
    ],
)
def test_what_is_no_parcel_is_refused(data: bytes) -> None:
    with pytest.raises(ParcelDamaged):
        unpacked(data)
