import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.graph_check import VERSIONS, object_info

from comfy_api_service.comfyui.inventory import parse
from comfy_api_service.domain.graph import (
    ANY_REQUIREMENT,
    KINDS,
    OUTPUT_CLASSES,
    Link,
    ModelRef,
    canonical,
    for_attempt,
    is_link,
    links,
    model_of,
    output_nodes,
    pictures_in,
    pixel_steps,
    requirement_of,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
node_ids = st.sampled_from(["1", "2", "3", "x"])
values = json_values | st.tuples(node_ids, st.integers(0, 3) | st.floats()).map(list)
input_names = st.sampled_from(
    [
        "batch_size", "width", "height", "steps", "amount", "length", "scale_by", "samples", "images", "image1",
        "image2", "latent_image", "sigmas", "value", "filename_prefix", "ckpt_name", "start_at_step", "end_at_step",
    ]
)  # fmt: skip
class_types = st.sampled_from(
    [
        "KSampler", "SamplerCustom", "EmptyLatentImage", "ImageBatch", "RepeatLatentBatch", "LatentFromBatch",
        "SaveImage", "PreviewImage", "SaveVideo", "PrimitiveInt", "CheckpointLoaderSimple", "EmptyVideoLatent",
    ]
)  # fmt: skip
odd_nodes = st.fixed_dictionaries(
    {}, optional={"class_type": class_types | json_values, "inputs": st.dictionaries(input_names, values) | values}
)  # fmt: skip
odd_graphs: st.SearchStrategy[dict[str, Any]] = st.dictionaries(node_ids, odd_nodes | json_values, max_size=4)


def txt2img(**changes: Any) -> dict[str, Any]:
    latent = {"width": 512, "height": 768, "batch_size": 3} | changes.pop("latent", {})
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": latent},
        "3": {
            "class_type": "KSampler",
            "inputs": {"model": ["4", 0], "latent_image": ["5", 0], "steps": 10} | changes,
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "rec"}},
    }


class TestCanonical:
    def test_is_compact_sorted_utf8(self) -> None:
        assert (
            canonical({"b": [1, 1.0, None], "a": {"é": "☂"}}) == '{"a":{"é":"☂"},"b":[1,1.0,null]}'.encode()
        )

    @given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers()))
    def test_does_not_depend_on_the_order_of_keys(self, document: dict[str, int]) -> None:
        turned = dict(reversed(document.items()))
        assert canonical(document) == canonical(turned)
        assert json.loads(canonical(document)) == document

    def test_keeps_64_bit_seeds(self) -> None:
        assert canonical({"seed": 2**64 - 1}) == b'{"seed":18446744073709551615}'

    def test_what_json_cannot_hold_is_a_value_error(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (math.nan, math.inf, "\ud800", object(), {1, 2}, deep):
            with pytest.raises(ValueError, match=r"."):
                canonical({"x": value})


class TestLinks:
    def test_a_link_is_a_list_of_a_string_and_a_number(self) -> None:
        assert is_link(["4", 0])
        assert is_link(["4", 0.0])
        for value in (
            ["4"],
            ["4", "0"],
            [4, 0],
            ["4", True],
            ("4", 0),
            "4",
            ["4", 0, 0],
            ["4", math.inf],
            None,
        ):
            assert not is_link(value)

    def test_links_of_a_node(self) -> None:
        node = {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "n": 1, "vae": ["4", 2.0]}}
        assert list(links(node)) == [Link("samples", "3", 0), Link("vae", "4", 2)]


class TestRequirement:
    def test_names_classes_and_models_sorted_and_once(self) -> None:
        graph = txt2img() | {
            "1": {"class_type": "LoraLoader", "inputs": {"lora_name": "l.pt", "model": ["4", 0]}},
            "2": {"class_type": "LoraLoader", "inputs": {"lora_name": "l.pt", "strength_model": 1.0}},
        }
        need = requirement_of(graph)
        assert need.nodes == (
            "CheckpointLoaderSimple", "EmptyLatentImage", "KSampler", "LoraLoader", "SaveImage", "VAEDecode",
        )  # fmt: skip
        assert need.models == (ModelRef("checkpoints", "a.safetensors"), ModelRef("loras", "l.pt"))
        assert need.primary == "checkpoints/a.safetensors"
        assert len(need.id) == 32

    def test_depends_on_nothing_but_classes_and_models(self) -> None:
        turned = {f"n{key}": node for key, node in reversed(txt2img(steps=3).items())}
        assert requirement_of(turned) == requirement_of(txt2img())
        other = txt2img()
        other["4"]["inputs"]["ckpt_name"] = "b.safetensors"
        assert requirement_of(other).id != requirement_of(txt2img()).id

    def test_the_id_is_stable_between_processes(self) -> None:
        assert requirement_of({}) == ANY_REQUIREMENT
        assert ANY_REQUIREMENT.id == "9cfdcabb5da867dc4c7b0aab519ba48f"

    def test_of_several_big_models_one_is_always_the_primary(self) -> None:
        graph = txt2img() | {
            "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "u.sft"}},
            "2": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "0.ckpt"}},
        }
        assert requirement_of(graph).primary == "checkpoints/0.ckpt"
        assert requirement_of({"1": graph["1"]}).primary == "diffusion_models/u.sft"
        assert requirement_of({"9": txt2img()["9"]}).primary is None

    def test_a_custom_loader_has_kinds_of_its_own(self) -> None:
        node = {
            "class_type": "Fancy Loader",
            "inputs": {"ckpt_name": "a.gguf", "dtype": "fp8", "x": ["1", 0]},
        }
        need = requirement_of({"1": node})
        assert need.models == (ModelRef("Fancy Loader.ckpt_name", "a.gguf"),)
        assert need.primary == "Fancy Loader.ckpt_name/a.gguf"

    def test_a_data_type_of_a_core_loader_is_no_model(self) -> None:
        assert model_of("UNETLoader", "weight_dtype", "default") is None
        assert model_of("LoadImage", "image", "a.png") is None
        assert model_of("VAELoader", "vae_name", "pixel_space") == ("vae", "pixel_space")

    def test_loaders_that_the_recorded_servers_have_beyond_the_recorded_classes(self) -> None:
        assert model_of("LTXVAudioVAELoader", "ckpt_name", "a") == ("checkpoints", "a")
        assert model_of("LTXAVTextEncoderLoader", "ckpt_name", "a") == ("checkpoints", "a")
        assert model_of("LTXAVTextEncoderLoader", "text_encoder", "a") == ("text_encoders", "a")

    @pytest.mark.parametrize("version", VERSIONS)
    def test_every_loader_of_a_real_server_is_in_the_table(self, version: str) -> None:
        for name, raw in object_info(version).items():
            if "Loader" not in name:
                continue
            for key in raw["input"]["required"]:
                listed = key in ("weight_dtype", "type") or (name, key) in KINDS
                assert listed or raw["input"]["required"][key][0] in ("MODEL", "CLIP", "FLOAT"), (name, key)


class TestOutputs:
    def test_in_the_order_of_their_numbers(self) -> None:
        save = {"class_type": "SaveImage", "inputs": {}}
        graph: dict[str, dict[str, Any]] = {
            "b": save,
            "10": save,
            "9": save,
            "3": {"class_type": "KSampler"},
            "a": save,
            "07": save,
        }
        assert output_nodes(graph, None) == ("07", "9", "10", "a", "b")

    def test_the_inventory_decides_for_the_classes_that_it_knows(self) -> None:
        raw = {
            "Mine": {"input": {}, "output_node": True},
            "SaveImage": {"input": {}, "output_node": False},
        }
        graph: dict[str, Any] = {
            str(n): {"class_type": name} for n, name in enumerate(("Mine", "SaveImage", "SaveVideo"))
        }
        assert output_nodes(graph, parse(raw)) == ("0", "2")
        assert output_nodes(graph, None) == ("1", "2")

    @pytest.mark.parametrize("version", VERSIONS)
    def test_the_built_in_set_agrees_with_real_servers(self, version: str) -> None:
        info = object_info(version)
        assert {name for name in info if info[name]["output_node"]} == OUTPUT_CLASSES & info.keys()


class TestAttempt:
    def test_prefixes_are_the_attempts_own(self) -> None:
        graph = txt2img()
        before = canonical(graph)
        sent = for_attempt(graph, "job_1", 1)
        assert sent["9"]["inputs"] == {"images": ["8", 0], "filename_prefix": "cui/job_1/1/rec"}
        assert for_attempt(graph, "job_1", 2)["9"]["inputs"]["filename_prefix"] == "cui/job_1/2/rec"
        assert canonical(graph) == before
        assert all(sent[key] is graph[key] for key in graph if key != "9")

    @pytest.mark.parametrize(
        ("prefix", "plain"),
        [
            ("ComfyUI", "ComfyUI"),
            ("a/b/final", "final"),
            ("video\\x", "x"),
            ("../../etc/passwd", "passwd"),
            ("/", "output"),
            ("..", "output"),
            ("", "output"),
            ("%date:yyyy% é", "date_yyyy"),
            ("x" * 300, "x" * 40),
            (["4", 0], "output"),
            (7, "output"),
        ],
    )
    def test_only_a_plain_part_of_a_prefix_stays(self, prefix: object, plain: str) -> None:
        graph = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": prefix}}}
        assert for_attempt(graph, "j", 1)["1"]["inputs"]["filename_prefix"] == f"cui/j/1/{plain}"

    def test_pictures_for_the_socket_become_files(self) -> None:
        graph = {"1": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["0", 0]}}}
        assert for_attempt(graph, "j", 1) == {
            "1": {"class_type": "PreviewImage", "inputs": {"images": ["0", 0]}}
        }
        assert for_attempt(graph, "j", 2) == {
            "1": {
                "class_type": "SaveImage",
                "inputs": {"images": ["0", 0], "filename_prefix": "cui/j/2/preview"},
            }
        }

    def test_from_the_second_attempt_previews_are_saved(self) -> None:
        graph = {"1": {"class_type": "PreviewImage", "inputs": {"images": ["0", 0]}, "_meta": {"title": "t"}}}
        assert for_attempt(graph, "j", 1) == graph
        assert for_attempt(graph, "j", 2) == {
            "1": {
                "class_type": "SaveImage",
                "inputs": {"images": ["0", 0], "filename_prefix": "cui/j/2/preview"},
                "_meta": {"title": "t"},
            }
        }


class TestWork:
    def test_pictures_are_those_that_reach_the_savers(self) -> None:
        assert pictures_in(txt2img()) == 3
        two = txt2img() | {"10": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}}
        assert pictures_in(two) == 6

    @pytest.mark.parametrize(
        ("node", "pictures"),
        [
            ({"class_type": "RepeatLatentBatch", "inputs": {"samples": ["5", 0], "amount": 4}}, 12),
            ({"class_type": "LatentFromBatch", "inputs": {"samples": ["5", 0], "length": 2}}, 2),
            ({"class_type": "LatentFromBatch", "inputs": {"samples": ["5", 0], "length": 9}}, 3),
            ({"class_type": "LatentUpscaleBy", "inputs": {"samples": ["5", 0], "scale_by": 2}}, 3),
            ({"class_type": "Custom", "inputs": {"any": ["5", 0], "model": ["4", 0]}}, 3),
            ({"class_type": "Chunked", "inputs": {"samples": ["5", 0], "batch_size": 64}}, 3),
        ],
    )
    def test_batches_are_followed(self, node: dict[str, Any], pictures: int) -> None:
        assert pictures_in(txt2img(latent_image=["6", 0]) | {"6": node}) == pictures

    def test_joined_batches_add_up(self) -> None:
        batch = {"class_type": "ImageBatch", "inputs": {"image1": ["8", 0], "image2": ["8", 0]}}
        graph = txt2img() | {"10": batch, "9": {"class_type": "SaveImage", "inputs": {"images": ["10", 0]}}}
        assert pictures_in(graph) == 6

    def test_a_reference_picture_does_not_count(self) -> None:
        graph = txt2img(positive=["6", 0]) | {
            "6": {"class_type": "ControlNetApply", "inputs": {"image": ["7", 0]}},
            "7": {"class_type": "EmptyImage", "inputs": {"batch_size": 64}},
        }
        assert pictures_in(graph) == 3

    def test_an_animation_is_one_and_text_is_none(self) -> None:
        animated = {"class_type": "SaveAnimatedWEBP", "inputs": {"images": ["8", 0]}}
        text = {"class_type": "PreviewAny", "inputs": {"source": ["8", 0]}}
        assert pictures_in(txt2img() | {"9": animated}) == 1
        assert pictures_in(txt2img() | {"10": animated, "11": text}) == 4

    def test_a_linked_size_is_taken_from_its_primitive(self) -> None:
        graph = txt2img(latent={"batch_size": ["6", 0], "width": "1024"}, steps=["7", 0]) | {
            "6": {"class_type": "PrimitiveInt", "inputs": {"value": 2}},
            "7": {"class_type": "Calculated", "inputs": {}},
        }
        assert pictures_in(graph) == 2
        assert pixel_steps(graph) == 1024 * 768 * 2 * 20

    @pytest.mark.parametrize("name", ["steps", "end_at_step", "start_at_step"])
    def test_steps_that_cannot_be_told_are_the_most(self, name: str) -> None:
        graph = txt2img() | {"6": {"class_type": "StringLength", "inputs": {"string": "x"}}}
        told = pixel_steps(graph)
        graph["3"]["inputs"][name] = ["6", 0]
        assert pixel_steps(graph) == (1e15 if name == "steps" else told)

    def test_a_size_is_that_of_the_picture_that_is_measured(self) -> None:
        graph = txt2img(latent={"width": ["7", 0], "height": ["7", 1], "batch_size": 1}) | {
            "6": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
            "7": {"class_type": "GetImageSize", "inputs": {"image": ["6", 0]}},
        }
        assert pixel_steps(graph) == 512 * 512 * 10
        assert pixel_steps(graph, {"6": (4096, 3072)}) == 4096 * 3072 * 10

    @pytest.mark.parametrize(
        ("size", "became"),
        [((1024, 0), 1024 * 1536), ((0, 1536), 1024 * 1536), ((0, 0), 512 * 768), ((64, 96), 64 * 96)],
    )
    def test_a_side_of_0_keeps_the_proportions(self, size: tuple[int, int], became: int) -> None:
        scaled = {"samples": ["5", 0], "width": size[0], "height": size[1], "crop": "disabled"}
        graph = txt2img(latent={"batch_size": 1}, latent_image=["6", 0])
        graph |= {"6": {"class_type": "LatentUpscale", "inputs": scaled}}
        assert pixel_steps(graph) == became * 10

    def test_what_is_cut_from_each_of_many_batches_stays(self) -> None:
        graph = txt2img(latent={"batch_size": 256}, latent_image=["7", 0]) | {
            "6": {"class_type": "RebatchLatents", "inputs": {"latents": ["5", 0], "batch_size": 1}},
            "7": {"class_type": "LatentFromBatch", "inputs": {"samples": ["6", 0], "length": 1}},
        }
        assert pictures_in(graph) == 256

    def test_a_latent_beside_itself_is_twice_the_work(self) -> None:
        both = {"samples1": ["5", 0], "samples2": ["5", 0], "dim": "x"}
        graph = txt2img(latent_image=["6", 0]) | {"6": {"class_type": "LatentConcat", "inputs": both}}
        assert pixel_steps(graph) == 2 * pixel_steps(txt2img())

    def test_work_is_summed_over_the_samplers(self) -> None:
        graph = txt2img() | {
            "6": {"class_type": "LatentUpscaleBy", "inputs": {"samples": ["3", 0], "scale_by": 1.5}},
            "7": {
                "class_type": "KSamplerAdvanced",
                "inputs": {"latent_image": ["6", 0], "steps": 20, "start_at_step": 12, "end_at_step": 10000},
            },
        }
        first = 512 * 768 * 3 * 10
        assert pixel_steps(graph) == first + 1.5 * 1.5 * 512 * 768 * 3 * 8

    def test_steps_come_from_the_sigmas_scheduler(self) -> None:
        graph = txt2img() | {
            "3": {
                "class_type": "SamplerCustomAdvanced",
                "inputs": {"latent_image": ["5", 0], "sigmas": ["6", 0], "sampler": ["7", 0]},
            },
            "6": {"class_type": "BasicScheduler", "inputs": {"steps": 4}},
            "7": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        }
        assert pixel_steps(graph) == 512 * 768 * 3 * 4

    def test_frames_of_a_video_are_work_but_one_file(self) -> None:
        latent = {
            "class_type": "EmptyHunyuanLatentVideo",
            "inputs": {"width": 512, "height": 512, "length": 25, "batch_size": 1},
        }
        save = {"class_type": "SaveVideo", "inputs": {"video": ["8", 0]}}
        graph = txt2img() | {"5": latent, "9": save}
        assert pictures_in(graph) == 1
        assert pixel_steps(graph) == 512 * 512 * 25 * 10

    def test_there_is_a_bound_and_no_sampler_is_no_work(self) -> None:
        huge = txt2img(latent={"width": 10**400, "height": 1e300, "batch_size": "1e9"}, steps=10**9)
        huge["10"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["8", 0], "amount": 4096}}
        huge["9"]["inputs"]["images"] = ["10", 0]
        assert pixel_steps(huge) == 1e15
        assert pictures_in(huge) == 100_000
        assert pixel_steps({}) == 0
        assert pictures_in({}) == 1

    def test_depth_and_cycles_do_not_matter(self) -> None:
        deep = txt2img()
        for n in range(100, 20_100):
            source = "8" if n == 100 else str(n - 1)
            deep[str(n)] = {"class_type": "ImageInvert", "inputs": {"image": [source, 0]}}
        deep["9"]["inputs"]["images"] = ["20099", 0]
        turned = dict(reversed(deep.items()))
        assert pictures_in(deep) == pictures_in(turned) == 3
        circle = txt2img(latent_image=["8", 0])
        assert pictures_in(circle) == 1
        assert pixel_steps(circle) > 0

    @given(odd_graphs)
    def test_nonsense_is_estimated_too(self, graph: dict[str, Any]) -> None:
        assert 1 <= pictures_in(graph) <= 100_000
        assert 0 <= pixel_steps(graph) <= 1e15
        assert set(output_nodes(graph, None)) <= graph.keys()
        assert for_attempt(graph, "j", 2).keys() == graph.keys()
        for node in graph.values():
            assert all(isinstance(link.output, int) for link in links(node))
        requirement_of(graph)
