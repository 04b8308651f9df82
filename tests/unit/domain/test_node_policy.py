import pytest
from tests.unit.domain.graph_check import VERSIONS, object_info

from comfy_api_service.domain.checking.file_names import BRINGABLE, FILE_INPUTS
from comfy_api_service.domain.node_policy import CORE, GROUPS, NodePolicy

LEFT_OUT = {
    "LoadLatent": "opens a file that callers cannot bring",
    "LoadVideo": "opens a file that callers cannot bring",
    "SaveLatent": "writes what no caller gets",
}
"""Recorded classes that are not of the core list → the reason."""


@pytest.mark.parametrize("version", VERSIONS)
def test_of_the_recorded_classes_all_are_core_but_these(version: str) -> None:
    assert object_info(version).keys() - CORE == LEFT_OUT.keys()


def test_each_class_is_listed_once_and_each_list_is_sorted() -> None:
    assert len(CORE) == sum(map(len, GROUPS.values()))
    for names in GROUPS.values():
        assert names == sorted(names, key=str.lower)


@pytest.mark.parametrize(
    "word",
    ["Train", "Dataset", "DataSet", "Folder", "Regex", "Webcam", "3D", "SVG", "GLB", "Merge", "Hook", "Compile",
     "Switch", "API", "Http", "Url", "Exec", "Eval"],
)  # fmt: skip
def test_no_class_of_a_forbidden_kind_slipped_in(word: str) -> None:
    harmless = {"AudioMerge", "SV3D_Conditioning"}
    assert [name for name in CORE - harmless if word in name] == []


def test_save_nodes_are_those_whose_place_the_service_decides() -> None:
    assert {name for name in CORE if "Save" in name} == {
        "SaveAnimatedPNG", "SaveAnimatedWEBP", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "SaveImage",
        "SaveImageWebsocket", "SaveVideo", "SaveWEBM",
    }  # fmt: skip


def test_core_opens_only_files_that_callers_can_bring() -> None:
    assert {kind for (name, _), kind in FILE_INPUTS.items() if name in CORE} <= BRINGABLE


def test_policies() -> None:
    assert NodePolicy.open().is_open
    assert NodePolicy.open().allows("Anything At All")
    core = NodePolicy.core()
    assert not core.is_open
    assert core.allows("KSampler")
    assert not core.allows("LoadLatent")
    assert not core.allows("ksampler")
    more = NodePolicy.core(["LoadLatent", "My Node"])
    assert more.allows("My Node")
    assert more.allows("LoadLatent")
    assert more.allows("KSampler")
    assert not more.allows("SaveLatent")
