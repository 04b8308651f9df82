"""References to files that could lead anywhere else are refused, and counted."""

import pytest

from comfy_api_service.comfyui.files import (
    MAX_FILES,
    MAX_TEXT,
    MAX_TEXTS,
    MAX_VALUES,
    FileRef,
    file_ref,
    given,
    is_anothers,
    is_safe,
)


@pytest.mark.parametrize(
    ("filename", "subfolder"),
    [
        ("a.png", ""),
        ("rec_00001_.png", "cui/job_1/1"),
        ("ComfyUI_temp_pylij_00001_.png", "a/b"),
        ("..%2F..%2Ftmp%2Fevil.png", ""),
        ("a..b.png", "..c"),
        ("猫　絵.png", ""),
        ("x" * 255, ""),
    ],
)
def test_plain_references_pass(filename: str, subfolder: str) -> None:
    assert file_ref(filename, subfolder, "output") == FileRef(filename, subfolder, "output")


def test_folders_of_a_server_on_windows_are_read_as_folders() -> None:
    ref = file_ref("a.png", "cui\\job_1\\1", "output")
    assert ref == FileRef("a.png", "cui/job_1/1", "output")


TRICKS = [
    ("", ""),
    (".", ""),
    ("..", ""),
    ("../a.png", ""),
    ("/etc/passwd", ""),
    ("a/b.png", ""),
    ("a\\b.png", ""),
    ("C:a.png", ""),
    ("a\0.png", ""),
    ("a\n.png", ""),
    ("a\x7f.png", ""),
    ("a\u202egnp.exe", ""),
    ("a\ud800.png", ""),
    ("x" * 256, ""),
    ("é" * 200, ""),
    ("a.png", ".."),
    ("a.png", "../b"),
    ("a.png", "b/../../c"),
    ("a.png", "b\\..\\..\\c"),
    ("a.png", "/etc"),
    ("a.png", "\\\\host\\share"),
    ("a.png", "C:\\x"),
    ("a.png", "b//c"),
    ("a.png", "b/"),
    ("a.png", "b/\0"),
    ("a.png", "b/" * 600 + "c"),
]


@pytest.mark.parametrize(("filename", "subfolder"), TRICKS)
def test_tricks_are_refused_and_counted(filename: str, subfolder: str) -> None:
    assert file_ref(filename, subfolder, "output") is None
    assert not is_safe(FileRef(filename, subfolder, "output"))
    found = given({"images": [{"filename": filename, "subfolder": subfolder, "type": "output"}]})
    assert (found.files, found.invalid) == ((), 1)


@pytest.mark.parametrize("folder", ["", "models", "Output", None, 1, ["output"], {}])
def test_only_the_three_folders_are_known(folder: object) -> None:
    assert file_ref("a.png", "", folder) is None


def test_files_stand_under_any_key() -> None:
    ref = {"filename": "a.mp4", "subfolder": "", "type": "temp"}
    found = given({"gifs": [{**ref, "format": "video/h264-mp4", "fullpath": "/srv/a.mp4"}], "audio": [ref]})
    assert found.files == (FileRef("a.mp4", "", "temp"),) * 2


def test_values_are_texts_and_numbers() -> None:
    output = {"text": ["41", 2, 2.5], "animated": [True], "plain": "x", "other": [None, {"a": 1}, [1]]}
    assert given(output).values == ("41", 2, 2.5, "x")


def test_what_a_node_gives_is_bounded() -> None:
    assert len(given({"t": ["x"] * 1000}).values) == MAX_VALUES
    assert len(given({"t": ["x" * 100_000]}).values[0]) == MAX_TEXT
    assert sum(map(len, given({"t": ["x" * 60_000] * 100}).values)) <= MAX_TEXTS
    assert given({"t": [10**400]}).values == ()
    many = given({"i": [{"filename": "a.png"}] * (MAX_FILES + 3)})
    assert (len(many.files), many.invalid) == (MAX_FILES, 3)


@pytest.mark.parametrize("output", [None, [], "x", {"images": None}, {"images": [[]]}])
def test_anything_else_gives_nothing(output: object) -> None:
    found = given(output)
    assert (found.files, found.values, found.invalid) in [((), (), 0), ((), ("x",), 0)]


JOB = "job_01M802STBGTEY9T2T8S1GTA2WB"


@pytest.mark.parametrize("subfolder", ["", "a/b", f"cui/{JOB}/1", f"cui/{JOB}/1/deep", "cuiX", "a/cui/b"])
def test_files_of_the_attempt_and_of_nobody(subfolder: str) -> None:
    assert not is_anothers(FileRef("a.png", subfolder, "output"), JOB, 1)


@pytest.mark.parametrize(
    "ref",
    [
        FileRef("a.png", "cui", "output"),
        FileRef("a.png", "cui", "temp"),
        FileRef("a.png", f"cui/{JOB}/1", "temp"),
        FileRef("a.png", f"cui/{JOB}/1", "input"),
        FileRef("a.png", f"cui/{JOB}", "output"),
        FileRef("a.png", f"cui/{JOB}/2", "output"),
        FileRef("a.png", f"cui/{JOB}/11", "output"),
        FileRef("a.png", "cui/job_other/1", "output"),
        FileRef("a.png", "CUI/job_other/1", "output"),
        FileRef("a.png", "cui. /job_other/1", "output"),
    ],
    ids=lambda ref: f"{ref.type}:{ref.subfolder}",
)
def test_files_of_others_and_inputs(ref: FileRef) -> None:
    assert is_anothers(ref, JOB, 1)


def test_texts_keep_what_they_need_and_lose_what_a_terminal_would_obey() -> None:
    said = given({"text": ["a\tb\r\nc", "\x1b[2J\x00\x9b\x7f", "\ud800 ü"]}).values
    assert said == ("a\tb\r\nc", "\ufffd[2J\ufffd\ufffd\ufffd", "? ü")
