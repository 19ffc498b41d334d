"""What a power cut leaves of a SQLite store, at many moments and in four ways, still holds all that was acknowledged."""

from pathlib import Path

from tests.soak.images import crash_images

SEED, MOMENTS = 20261125, 60


def test_every_image_of_a_cut_holds_what_was_acknowledged(tmp_path: Path) -> None:
    verdict = crash_images(tmp_path, SEED, MOMENTS)
    assert verdict.broken == []
    assert verdict.figures["images"] == 4 * MOMENTS
    assert verdict.figures["syncs"] > 20


def test_without_syncs_images_lose_what_was_acknowledged(tmp_path: Path) -> None:
    """The control: the same with synchronous=OFF, so the test above can fail."""
    verdict = crash_images(tmp_path, SEED, MOMENTS // 4, synced=False)
    assert any("a 202 was given for a message that is not there" in each for each in verdict.broken)
    assert verdict.figures["syncs"] == 0
