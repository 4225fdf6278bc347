"""What becomes what: names, sizes, formats and collisions, found before anything is touched."""

from pathlib import Path

import pytest
import torch
from conftest import photo
from PIL import Image

from dreamsr.engine import planning
from dreamsr.engine.outputs import Naming, Sizing
from dreamsr.engine.planning import Task, plan
from dreamsr.errors import DreamSRError, UsageError
from dreamsr.files import images
from dreamsr.files.images import Picture


def picture(path: Path, height: int = 20, width: int = 30, alpha: bool = False) -> Path:
    color = photo("chelsea").tile(1, 1, 10)[:, :height, :width]
    images.write(path, Picture(color, torch.zeros(1, height, width) if alpha else None))
    return path


def made(tasks: list[Task]) -> list[str]:
    return [task.output for task in tasks]


@pytest.mark.parametrize(
    ("sizing", "size", "expected"),
    [
        (Sizing(), (20, 30), (80, 120)),
        (Sizing(scale=1.5), (20, 30), (30, 45)),
        (Sizing(max_side=90), (20, 30), (60, 90)),
        (Sizing(max_side=90), (30, 20), (90, 60)),
        (Sizing(max_side=9000), (20, 30), (80, 120)),
        (Sizing(max_side=30), (20, 30), (20, 30)),
        (Sizing(width=100), (20, 30), (67, 100)),
        (Sizing(height=50), (20, 30), (50, 75)),
        (Sizing(width=100, height=50), (20, 30), (50, 75)),
        (Sizing(width=60, height=80), (20, 30), (40, 60)),
        (Sizing(max_side=1), (1, 1), (1, 1)),
    ],
)
def test_sizes(sizing: Sizing, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert sizing.output(size, 4) == expected


@pytest.mark.parametrize(
    ("sizing", "words"),
    [
        (Sizing(width=121), r"30x20 would need x4.03 for --width 121; this model makes up to x4"),
        (Sizing(height=19), r"30x20 is larger than --height 19"),
        (Sizing(max_side=29), r"30x20 is larger than --max-side 29"),
    ],
)
def test_sizes_that_cannot_be_made(sizing: Sizing, words: str) -> None:
    with pytest.raises(DreamSRError, match=words):
        sizing.output((20, 30), 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 2, "width": 5}, "--scale and --width exclude each other"),
        ({"max_side": 2, "height": 5}, "--max-side and --height exclude each other"),
        ({"max_side": 0}, "--max-side is 0"),
        ({"width": -5}, "--width is -5"),
    ],
)
def test_wrong_sizes(options: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Sizing(**options)


def test_the_suffix_is_appended_to_the_stem(tmp_path: Path) -> None:
    for name in ("a.png", "b.c.jpg", "sub/d.webp"):
        picture(tmp_path / "in" / name)
    tasks = plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4, Naming(suffix="_x4"))
    assert made(tasks) == ["a_x4.png", "b.c_x4.jpg", "sub/d_x4.webp"]


@pytest.mark.parametrize(
    ("sizing", "naming", "expected"),
    [
        (Sizing(), Naming(), "cat_x4.png"),
        (Sizing(scale=1.5), Naming(), "cat_x1.5.png"),
        (Sizing(max_side=60), Naming(), "cat_60x40.png"),
        (Sizing(), Naming(suffix="-big", format="webp"), "cat-big.webp"),
    ],
)
def test_names_beside_a_single_picture(sizing: Sizing, naming: Naming, expected: str, tmp_path: Path) -> None:
    source = picture(tmp_path / "cat.jpg")
    assert [task.target for task in plan([source], None, sizing, 4, naming)] == [tmp_path / expected]


def test_a_format_that_cannot_hold_the_picture_gives_way_to_png(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "clear.png", alpha=True)
    picture(tmp_path / "in" / "solid.png")
    picture(tmp_path / "in" / "wide.webp", 1, 4096)
    jpg, same, wide = plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4, Naming(format="jpg"))
    assert made([jpg, same, wide]) == ["clear.png", "solid.jpg", "wide.jpg"]
    assert jpg.remarks == ("written as PNG: JPEG has no transparency",)
    auto = plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4)[2]
    assert (auto.output, len(auto.remarks)) == ("wide.png", 1)
    assert "16383" in auto.remarks[0]
    (exact,) = plan([tmp_path / "in" / "clear.png"], tmp_path / "b.jpg", Sizing(), 4)
    assert (exact.target.name, exact.remarks) == ("b.jpg", ())
    assert "JPEG has no transparency" in exact.problem


def test_what_changes_its_format_beside_its_like_keeps_its_whole_name(tmp_path: Path) -> None:
    """A folder of a phone has pictures of one name in two formats; that of one must not depend on their order."""
    picture(tmp_path / "in" / "a.webp", 1, 4096)
    for name in ("a.png", "b.jpg", "b.webp", "c.png", "sub/a.bmp"):
        picture(tmp_path / "in" / name)

    def outputs(naming: Naming) -> list[str]:
        tasks = plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4, naming)
        assert [task.target for task in tasks] == [tmp_path / "out" / task.output for task in tasks]
        return made(tasks)

    assert outputs(Naming()) == ["a.png", "a.webp.png", "b.jpg", "b.webp", "c.png", "sub/a.bmp"]
    assert outputs(Naming("png", suffix="_4k")) == [
        *("a_4k.png", "a.webp_4k.png", "b.jpg_4k.png", "b.webp_4k.png", "c_4k.png", "sub/a_4k.png")
    ]
    tasks = plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4, Naming("png", compare=True, uncertainty=True))
    assert [path.name for path in tasks[1].files] == [
        *("a.webp.png", "a.webp_compare.png", "a.webp_uncertainty.png", "a.webp_uncertainty_preview.png")
    ]


def test_what_a_whole_name_does_not_tell_apart(tmp_path: Path) -> None:
    """The same names in two places, and a whole name that a picture has already."""
    pictures = [picture(tmp_path / folder / "a.webp") for folder in ("one", "two")]
    with pytest.raises(UsageError, match=r"one/a\.webp and .*two/a\.webp would both become .*out/a\.webp\.png"):
        plan(pictures, tmp_path / "out", Sizing(), 4, Naming("png"))
    for name in ("a.png", "a.webp.png"):
        picture(tmp_path / "one" / name)
    with pytest.raises(UsageError, match=r"a\.webp and .*a\.webp\.png would both become .*a\.webp\.png"):
        plan([tmp_path / "one"], tmp_path / "out", Sizing(), 4, Naming("png"))


def test_names_that_differ_in_case_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [
        Task(tmp_path / "in" / name, tmp_path / "out" / name, name, name) for name in ("B.png", "b.png", "\u00e4.png")
    ]
    planning._check(tasks, ignores_case=False)
    with pytest.raises(UsageError, match=r"B\.png and .*b\.png, one and the same file here"):
        planning._check(tasks, ignores_case=True)
    decomposed = Task(tmp_path / "in" / "a\u0308.png", tmp_path / "out" / "a\u0308.png", "", "")
    with pytest.raises(UsageError, match="one and the same"):
        planning._check([tasks[2], decomposed], ignores_case=True)
    beside = Task(tmp_path / "in" / "a.png", tmp_path / "in" / "A.png", "a.png", "A.png")
    with pytest.raises(UsageError, match="overwrite an original"):
        planning._check([beside], ignores_case=True)


def test_whether_a_file_system_ignores_case(tmp_path: Path) -> None:
    folder = tmp_path / "Folder"
    folder.mkdir()
    assert planning._ignores_case(folder / "not" / "yet") == (tmp_path / "fOLDER").exists()


def test_a_link_to_the_folder_of_a_picture_hides_no_original(tmp_path: Path) -> None:
    source = picture(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(UsageError, match="would overwrite an original"):
        plan([source], tmp_path / "link", Sizing(), 4)


def test_sheets_count_as_outputs(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    (task,) = plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4, Naming(compare=True))
    assert task.files == [tmp_path / "out" / "a.png", tmp_path / "out" / "a_compare.png"]
    picture(tmp_path / "in" / "a_compare.png")
    with pytest.raises(UsageError, match=r"a\.png and .*a_compare\.png would both become"):
        plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4, Naming(compare=True))


def test_sheets_and_maps_of_pictures_of_one_name(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png"):
        picture(tmp_path / "in" / name)
    tasks = plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4, Naming(compare=True, uncertainty=True))
    kinds = ("compare", "uncertainty", "uncertainty_preview")
    assert [[path.name for path in task.files] for task in tasks] == [
        [name, *(f"{stem}_{kind}.png" for kind in kinds)]
        for name, stem in (("a.jpg", "a.jpg"), ("a.png", "a.png"), ("b.png", "b"))
    ]


def test_the_size_of_a_turned_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    images.to_pil(Picture(photo("chelsea")[:, :20, :30])).save(tmp_path / "a.jpg", exif=exif)
    (task,) = plan([tmp_path / "a.jpg"], None, Sizing(width=40), 4)
    assert (task.input_size, task.size) == ((30, 20), (60, 40))


def test_quality_needs_a_lossy_output(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    with pytest.raises(UsageError, match="no output is JPEG, WebP or AVIF"):
        plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4, Naming(quality=80))
    with pytest.raises(UsageError, match="--quality does not apply to tiff"):
        Naming(format="tiff", quality=80)
    with pytest.raises(UsageError, match="--quality is 101"):
        Naming(quality=101)


@pytest.mark.parametrize("suffix", ["/x", "a/b"])
def test_a_suffix_is_a_part_of_a_name(suffix: str) -> None:
    with pytest.raises(UsageError, match="--suffix is"):
        Naming(suffix=suffix)


def test_unicode_and_long_names(tmp_path: Path) -> None:
    names = ["\u65e5\u672c\u8a9e.png", "\u00fcber \u2603.png", "x" * 250 + ".png"]
    for name in names:
        picture(tmp_path / "in" / name)
    assert sorted(made(plan([tmp_path / "in"], tmp_path / "out", Sizing(), 4))) == sorted(names)


def test_several_sources_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "in/b.png", "in/sub/c.png"):
        picture(tmp_path / name)
    (tmp_path / "in" / "sub" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "in" / "sub" / "deep")
    tasks = plan([Path("..", "..", "..", "a.png"), Path("..", ".."), Path("..")], tmp_path / "out", Sizing(), 4)
    names = ["a.png", "in/b.png", "in/sub/c.png", "sub/c.png"]
    assert [task.input for task in tasks] == made(tasks) == names
    assert [task.target for task in tasks] == [tmp_path / "out" / name for name in names]


def test_several_sources_of_one_name(tmp_path: Path) -> None:
    pictures = [picture(tmp_path / folder / "a.png") for folder in ("one", "two")]
    with pytest.raises(UsageError, match=r"one/a.png and .*two/a.png would both become .*out/a.png"):
        plan(pictures, tmp_path / "out", Sizing(), 4)
    assert made(plan([p.parent for p in pictures], tmp_path / "out", Sizing(), 4)) == ["one/a.png", "two/a.png"]
