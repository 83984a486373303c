"""Embedding spaces: the same name for the same vectors only."""

from __future__ import annotations

from lathe.embedding_space import space_id

FILE, OTHER = "ab" * 32, "cd" * 32


def test_the_space_follows_from_the_file_and_the_alignment() -> None:
    assert space_id("face-embed", FILE, "dlib") == space_id("face-embed", FILE, "dlib")
    named = {space_id("face-embed", sha256, name) for sha256 in (FILE, OTHER) for name in ("dlib", "arcface")}
    assert len(named) == 4


def test_its_name_begins_with_the_models_and_stays_as_it_is() -> None:
    """Galleries keep it: another way to make it would make strangers of all that are enrolled."""
    assert space_id("face-embed", FILE, "dlib") == "face-embed/8d88c2856a6ec95c"
