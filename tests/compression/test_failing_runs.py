"""What goes wrong in a run is told, and nothing that was finished is lost."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import pytest

from lathe.errors import BadPicture, BadVariant, DiskFull, InvalidInput, LatheError, NotFound
from lathe.repository import Repository
from tests.compression.small_recipe import TRAINED, recipe, write_recipe
from tests.compression.small_runs import (
    DISTILL,
    chain,
    files,
    models,
    run,
    workshop,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("old", "new", "error", "told"),
    [
        ('"frames/*.png"', '"empty/*.png"', NotFound, "no file matches empty"),
        (
            '"frames/*.png"',
            '"broken/*.png"',
            InvalidInput,
            "group 1 of the training frames holds no picture that can be read",
        ),
        ('"frames/*.png"', '"$UNKNOWN_FOLDER/*.png"', InvalidInput, "names an environment variable that is not set"),
        ('"frames/*.png"', '"evaluation/*.png"', InvalidInput, "0.png both makes a variant and judges it"),
        ("tiny_detector", "branching_detector", BadVariant, "must not branch on the values"),
        pytest.param(
            '"frames/*.png"',
            '"frames"',
            LatheError,
            "frames",
        ),
    ],
)
def test_bad_input_is_told_and_nothing_is_published(
    old: str, new: str, error: type[LatheError], told: str, tmp_path: Path
) -> None:
    text = recipe(DISTILL)
    assert old in text
    write_recipe(tmp_path, text.replace(old, new))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for number in range(3):
        (tmp_path / f"broken/{number}.png").write_bytes(b"no picture")
    with pytest.raises(error, match=told):
        run(tmp_path)
    assert not (tmp_path / "models").exists()


def test_unreadable_frames_are_left_out_counted_and_named(tmp_path: Path) -> None:
    write_recipe(tmp_path, recipe(DISTILL))
    (tmp_path / "frames/2.png").write_bytes(b"no picture")
    (tmp_path / "frames/7.png").touch()
    (tmp_path / "frames/4.png").write_bytes((tmp_path / "frames/4.png").read_bytes()[:100])
    for _ in "twice":  # also when the frames come from the store
        output = StringIO()
        run(tmp_path, output=output)
        assert "3 training pictures cannot be read and are left out: 2.png, 4.png, 7.png" in output.getvalue()
    assert [ref.version for ref in run(tmp_path)] == [1, 1]


@pytest.mark.parametrize("purpose", ["calibration", "evaluation"])
def test_other_unreadable_pictures_are_left_out_too(purpose: str, tmp_path: Path) -> None:
    write_recipe(tmp_path)
    (tmp_path / f"{purpose}/1.png").write_bytes(b"no picture")
    output = StringIO()
    run(tmp_path, output=output)
    assert f"1 {purpose} pictures cannot be read and are left out: 1.png" in output.getvalue()
    for path in (tmp_path / purpose).iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(BadPicture, match=f"none of the {purpose} pictures can be decoded"):
        run(tmp_path)


def test_unreadable_frame_is_named_whatever_its_name(tmp_path: Path) -> None:
    write_recipe(tmp_path, recipe(DISTILL))
    (tmp_path / "frames/face [copy].png").write_bytes(b"no picture")
    output = StringIO()
    run(tmp_path, output=output)
    assert "face [copy].png" in output.getvalue()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("frames", "frames.bin"),
        pytest.param(
            "steps",
            "state.pt.new",
        ),
        ("quantized", "model.onnx.new"),
        ("steps", "facts.json.new"),
    ],
)
def test_full_disk_is_told_and_a_later_run_completes(place: str, name: str, whole: Path, tmp_path: Path) -> None:
    """The file that fills it is a link to a device that is always full."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no /dev/full")
    write_recipe(tmp_path, TRAINED)
    if place == "frames":
        shop = workshop(tmp_path)
        assert shop.frames
        (entry,) = (tmp_path / "cache/frames").iterdir()
        shutil.rmtree(entry)
    else:
        run(tmp_path, "int8")
        variant = {"steps": "student", "quantized": "student-int8"}[place]
        entry = tmp_path / "cache/steps" / chain(tmp_path, variant)[-1].key
    part = entry.with_name(entry.name + ".part")
    part.mkdir(parents=True)
    (part / name).symlink_to("/dev/full")
    before = files(tmp_path / "models") if (tmp_path / "models").exists() else {}
    finished = set((tmp_path / "cache/steps").glob("*")) if (tmp_path / "cache/steps").exists() else set()
    with pytest.raises(DiskFull, match="no space left"):
        run(tmp_path, "student-int8")
    assert (files(tmp_path / "models") if (tmp_path / "models").exists() else {}) == before
    assert finished <= set((tmp_path / "cache/steps").glob("*")) | {part}
    (part / name).unlink()
    run(tmp_path, "student-int8")
    assert models(tmp_path)["student-int8"] == models(whole)["student-int8"]


def test_target_that_cannot_be_met_says_how_far_it_came(whole: Path) -> None:
    """A fifth was asked for; the only hidden channels of the narrow student are at their least already."""
    repository = Repository(whole / "models")
    card = repository.card(repository.newest("spots", "student-int8"))
    (sentence,) = [step for step in card.lineage.steps if step.startswith("prune:")]
    said = float(sentence.rpartition("; ")[2].removesuffix("% are left"))
    assert "to 20% of macs" in sentence
    teacher = repository.card(repository.newest("spots", "fp32"))
    assert said / 100 == pytest.approx(card.macs / teacher.macs, abs=0.001)
    assert said > 25


def test_target_that_is_met_says_so_too(whole: Path) -> None:
    repository = Repository(whole / "models")
    cards = [repository.card(repository.newest("spots", name)) for name in ("fp32", "pruned")]
    assert cards[1].macs <= 0.7 * cards[0].macs
    assert f"; {cards[1].macs / cards[0].macs:.1%} are left" in " ".join(cards[1].lineage.steps)


def test_training_that_diverges_is_told_and_publishes_nothing(tmp_path: Path) -> None:
    write_recipe(tmp_path, recipe("{ distill = { pictures = 16, rate = 0.5 } }", teacher="unsteady_detector"))
    with pytest.raises(BadVariant, match=r"training went astray at step 2: the loss is nan; lower the rate"):
        run(tmp_path)
    assert not (tmp_path / "models").exists()
