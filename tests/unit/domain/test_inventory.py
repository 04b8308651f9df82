import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.generation_pools import FORMS, inventory, resolved
from tests.unit.domain.graph_check import VERSIONS, object_info

from comfy_api_service.comfyui import inventory as reading
from comfy_api_service.comfyui.inventory import NotObjectInfoError, parse
from comfy_api_service.domain.graph import ANY_REQUIREMENT, ModelRef, Requirement, canonical, requirement_of
from comfy_api_service.domain.inventory import Catalogue, InputSpec, Inventory, Lacking, nearest


def node(**inputs: Any) -> dict[str, Any]:
    return {"input": {"required": inputs}, "output": ["MODEL"], "output_node": False}


def need(*models: tuple[str, str], nodes: tuple[str, ...] = ()) -> Requirement:
    return Requirement("x", nodes, tuple(ModelRef(*model) for model in models), None)


class TestParse:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_real_server(self, version: str) -> None:
        info = object_info(version)
        read = parse(info)
        assert read.classes.keys() == info.keys()
        assert read.models == {
            "checkpoints": ("tiny_sd15.safetensors",),
            "clip_vision": (),
            "controlnet": (),
            "diffusion_models": (),
            "loras": (),
            "style_models": (),
            "text_encoders": (),
            "upscale_models": (),
            "vae": ("pixel_space",),
        }
        sampler = read.classes["KSampler"]
        assert sampler.outputs == ("LATENT",)
        assert sampler.inputs["seed"] == InputSpec("INT", True, None, 0, 2**64 - 1, 0, control=True)
        assert sampler.inputs["model"] == InputSpec("MODEL", True)
        assert sampler.inputs["scheduler"].options is not None
        assert "karras" in sampler.inputs["scheduler"].options
        assert read.classes["SaveImage"].output_node
        hidden = {"prompt", "extra_pnginfo", "unique_id"}
        assert not any(one.inputs.keys() & hidden for one in read.classes.values())
        assert not read.classes["ControlNetApplyAdvanced"].inputs["vae"].required

    @pytest.mark.parametrize(
        ("name", "described", "expected"),
        [
            ("seed", ["INT", {}], True),
            ("noise_seed", ["INT", {"control_after_generate": None}], True),
            ("seed", ["INT", {"control_after_generate": False}], False),
            ("seed", ["FLOAT", {}], False),
            ("steps", ["INT", {}], False),
            ("steps", ["INT", {"control_after_generate": True}], True),
            ("mode", [["a"], {"control_after_generate": "fixed"}], True),
        ],
    )
    def test_what_has_a_control_behind_it(self, name: str, described: Any, expected: bool) -> None:
        assert parse({"A": node(**{name: described})}).classes["A"].inputs[name].control is expected

    @pytest.mark.parametrize(
        ("described", "expected"),
        [
            (["INT", {}], None),
            (["INT", {"step": 1}], None),
            (["INT", {"step": 8}], 8),
            (["FLOAT", {}], 0.1),
            (["FLOAT", {"step": 0.05}], 0.01),
            (["FLOAT", {"step": 0.1, "round": 0.01}], 0.1),
            (["FLOAT", {"step": 0.01, "round": 0.001}], 0.01),
            (["FLOAT", {"step": 0.001, "round": False}], 0.001),
            (["FLOAT", {"step": 1.0}], None),
            (["FLOAT", {"step": 1.0, "round": 0.5}], 1.0),
            (["FLOAT", {"step": -1.0, "round": -1.0}], 0.1),
            (["STRING", {"step": 8}], None),
        ],
    )
    def test_what_the_page_rounds_to(self, described: Any, expected: float | None) -> None:
        assert parse({"A": node(x=described)}).classes["A"].inputs["x"].grid == expected

    def test_texts_that_the_page_rewrites(self) -> None:
        read = (
            parse({"A": node(x=["STRING", {"dynamicPrompts": True}], y=["STRING", {}])}).classes["A"].inputs
        )
        assert (read["x"].dynamic, read["y"].dynamic) == (True, False)

    def test_both_forms_of_enumerations(self) -> None:
        read = parse(
            {
                "LoraLoader": node(lora_name=[["b.pt", "a.pt"], {"default": "a.pt"}]),
                "UpscaleModelLoader": node(model_name=["COMBO", {"options": ["x.pth"]}]),
            }
        )
        assert read.models == {"loras": ("a.pt", "b.pt"), "upscale_models": ("x.pth",)}
        assert read.classes["LoraLoader"].inputs["lora_name"] == InputSpec(
            "COMBO", True, ("b.pt", "a.pt"), default="a.pt"
        )
        assert read.classes["UpscaleModelLoader"].inputs["model_name"] == InputSpec("COMBO", True, ("x.pth",))

    def test_an_enumeration_whose_values_are_not_told_is_unknown_not_empty(self) -> None:
        read = parse({"A": node(a=["COMBO", {"remote": {}}], b=["COMBO", {"options": [{"key": 1}]}], c=[[]])})
        assert [read.classes["A"].inputs[key].options for key in "abc"] == [None, None, ()]

    def test_a_custom_loader_gives_kinds_of_its_own(self) -> None:
        read = parse({"My Loader": node(ckpt_name=[["None", "a.gguf"]], dtype=[["fp8"]], path=["STRING"])})
        assert read.models == {"My Loader.ckpt_name": ("a.gguf",)}

    @pytest.mark.parametrize(
        "document", [{}, {"error": "no"}, {"error": {"type": "x"}}, {"A": {"input": []}}, [], None, "text"]
    )
    def test_what_is_no_object_info_is_named(self, document: Any) -> None:
        with pytest.raises(NotObjectInfoError, match="the answer"):
            parse(document)

    def test_what_makes_no_sense_is_left_out(self) -> None:
        broken = node(
            ok=["INT", {"min": float("nan"), "max": 10**30, "default": [1]}], bad=[], worse={"a": 1}
        )
        broken |= {"output": ["A", ["x"], 7, "\ud800"], "output_node": "yes"}
        broken["input"]["optional"] = 3
        read = parse(
            {"A": broken, "B": None, "\ud800": node(), "C" * 513: node(), "D": {"input": {"required": []}}}
        )
        assert read.classes.keys() == {"A", "D"}
        assert read.classes["A"].inputs == {"ok": InputSpec("INT", True)}
        assert read.classes["A"].outputs == ("A", "COMBO", "*", "*")
        assert not read.classes["A"].output_node

    def test_sizes_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for bound in ("MAX_CLASSES", "MAX_INPUTS", "MAX_OUTPUTS", "MAX_OPTIONS"):
            monkeypatch.setattr(reading, bound, 3)
        many = node(**{f"i{n}": ["INT"] for n in range(9)}) | {"output": ["A"] * 9}
        loader = node(lora_name=[[f"{n}.pt" for n in range(9)]])
        read = parse({"A": many, "LoraLoader": loader, "B": many, "C": many})
        assert len(read.classes) == 3
        assert len(read.classes["A"].inputs) == 3
        assert len(read.classes["A"].outputs) == 3
        assert read.models["loras"] == ("0.pt", "1.pt", "2.pt")
        assert read.classes["LoraLoader"].inputs["lora_name"].options is None

    @given(
        st.dictionaries(
            st.sampled_from(["LoraLoader", "X Loader", "\ud800", ""]) | st.text(max_size=4),
            st.fixed_dictionaries(
                {"input": st.recursive(
                    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
                    | st.sampled_from(["COMBO", "a.pt", "INT"]),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(["required", "optional", "lora_name", "options", "min", "default"])
                        | st.text(max_size=4),
                        inner,
                        max_size=3,
                    ),
                    max_leaves=12,
                )},
            ) | st.none(),
            max_size=3,
        )
    )  # fmt: skip
    def test_hostile_answers_raise_nothing_else_and_can_be_stored(self, document: dict[str, Any]) -> None:
        try:
            read = parse(document)
        except NotObjectInfoError:
            return
        stored = json.loads(canonical(read.document()))
        assert Inventory.from_document(stored) == read


class TestInventory:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_document_and_back(self, version: str) -> None:
        read = parse(object_info(version))
        stored = json.loads(json.dumps(read.document()))
        again = Inventory.from_document(stored)
        assert again == read
        assert again.hash == read.hash
        assert hash(again) == hash(read)

    @pytest.mark.parametrize("version", VERSIONS)
    def test_inputs_keep_the_order_of_the_page_and_what_is_said_of_them(self, version: str) -> None:
        stored = json.loads(canonical(parse(object_info(version)).document()))
        classes = Inventory.from_document(stored).classes
        assert list(classes["KSampler"].inputs) == [
            "model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image",
            "denoise",
        ]  # fmt: skip
        assert classes["LoadImage"].inputs["image"].upload == "image"
        assert classes["LoadVideo"].inputs["file"].upload == "video"
        assert classes["SaveImage"].inputs["images"].upload is None

    def test_the_order_that_is_told_goes_before_that_of_the_object(self) -> None:
        raw = node(c=["INT", {"forceInput": True}], a=["INT"], b=["INT"])
        raw["input_order"] = {"required": ["b", "nothing", "a", 7]}
        read = parse({"A": raw}).classes["A"]
        assert list(read.inputs) == ["b", "a", "c"]
        assert read.inputs["c"].link_only

    def test_a_document_of_the_version_before_is_read(self) -> None:
        stored = json.loads(canonical(parse(object_info("0.8.0")).document()))
        for raw in stored["classes"].values():
            del raw["order"]
            for entry in raw["inputs"].values():
                for word in ("upload", "control", "link_only"):
                    entry.pop(word, None)
        read = Inventory.from_document(stored)
        assert list(read.classes["KSampler"].inputs) == sorted(read.classes["KSampler"].inputs)
        assert not read.classes["KSampler"].inputs["seed"].control

    def test_the_hash_is_of_the_content_whatever_its_order(self) -> None:
        info = object_info("0.8.0")
        turned = {name: info[name] for name in reversed(info)}
        for raw in turned.values():
            raw["input"] = {
                key: dict(reversed(value.items())) for key, value in reversed(raw["input"].items())
            }
        assert parse(turned).hash == parse(object_info("0.8.0")).hash
        assert parse(object_info("0.3.64")).hash != parse(object_info("0.8.0")).hash
        del turned["VAELoader"]
        assert parse(turned).hash != parse(object_info("0.8.0")).hash

    def test_options_keep_their_types(self) -> None:
        read = parse({"A": node(a=[[1, True, "1"]], b=[[1.0, 1]], c=[[1, 1]])})
        again = Inventory.from_document(json.loads(canonical(read.document())))
        kept = [again.classes["A"].inputs[key].options for key in "abc"]
        assert [list(map(repr, options or ())) for options in kept] == [
            ["1", "True", "'1'"],
            ["1.0", "1"],
            ["1", "1"],
        ]

    def test_repeated_lists_are_stored_once(self) -> None:
        names = [f"a_rather_long_name_{n}.pt" for n in range(1000)]
        few = parse({"Loader 1": node(lora_name=[names])})
        many = parse({f"Loader {n}": node(lora_name=[list(names)]) for n in range(10)})
        assert len(many.document()["lists"]) == len(few.document()["lists"]) == 1
        specs = [many.classes[f"Loader {n}"].inputs["lora_name"].options for n in range(10)]
        assert all(options is specs[0] for options in specs)

    def test_lacking_nothing_is_false_and_satisfies(self) -> None:
        read = parse(object_info("0.3.64"))
        graph = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny_sd15.safetensors"}}
        }
        assert read.satisfies(requirement_of(graph))
        assert not read.lacks(requirement_of(graph))
        assert read.satisfies(ANY_REQUIREMENT)
        assert Inventory({}, {}).satisfies(ANY_REQUIREMENT)

    def test_what_lacks_is_named(self) -> None:
        read = parse(object_info("0.3.64"))
        wish = need(
            ("checkpoints", "tiny_sd15.safetensors"),
            ("checkpoints", "other.ckpt"),
            ("loras", "l.pt"),
            ("gligen", "g.pt"),
            nodes=("KSampler", "NoSuchNode"),
        )
        assert read.lacks(wish) == Lacking(("NoSuchNode",), wish.models[1:])
        assert read.lacks(wish)
        assert not read.satisfies(wish)
        assert not read.satisfies(need(nodes=("NoSuchNode",)))
        assert not read.satisfies(need(("loras", "tiny_sd15.safetensors")))

    def test_a_path_in_a_text_field_cannot_be_judged(self) -> None:
        read = parse({"X Loader": node(path=["STRING"], listed=[[]], file=[["a.pt"]])})
        assert read.satisfies(need(("X Loader.path", "/any/where.pt")))
        assert read.satisfies(need(("X Loader.file", "a.pt")))
        for absent in ("X Loader.listed", "X Loader.file", "X Loader.none", "Y Loader.path"):
            assert not read.satisfies(need((absent, "b.pt"))), absent

    @pytest.mark.parametrize("form", FORMS)
    def test_every_recipe_is_satisfied_by_a_server_with_the_models(self, form: str) -> None:
        graph = resolved(FORMS[form]).graph
        assert graph is not None
        wish = requirement_of(graph)
        server = parse(object_info("0.3.64"))
        assert {model.name for model in server.lacks(wish).models} == {model.name for model in wish.models}
        assert not server.lacks(wish).nodes


class TestCatalogue:
    def test_knows_who_has_what(self) -> None:
        pool = Catalogue.of(
            {
                "b": inventory({"checkpoints": ("x", "y"), "vae": ()}),
                "a": inventory({"checkpoints": ("x",)}),
            }
        )
        assert pool.models == {"checkpoints": {"x": ("a", "b"), "y": ("b",)}, "vae": {}}
        assert pool.backends == ("a", "b")
        assert pool.having("checkpoints", "y") == ("b",)
        assert pool.having("loras", "y") == pool.having("checkpoints", "z") == ()
        assert pool.known

    def test_knows_who_has_which_node(self) -> None:
        pool = Catalogue.of({"a": parse({"A": node()}), "b": parse({"A": node(), "B": node()})})
        assert pool.nodes == {"A": ("a", "b"), "B": ("b",)}

    def test_the_empty_one_knows_nothing(self) -> None:
        assert not Catalogue.empty().known
        assert Catalogue.empty().nearest("checkpoints", "x") == ()
        assert Catalogue.of({"a": Inventory({}, {})}).known

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("dreamshaper", "SD15/DreamShaper_8.safetensors"),
            ("dreamshaper_8.ckpt", "SD15/DreamShaper_8.safetensors"),
            ("sd_xl_base", "sd_xl_base_1.0.safetensors"),
            ("JUGGERNAUT.safetensors", "juggernautXL_v9.safetensors"),
        ],
    )
    def test_the_nearest_name_comes_first(self, name: str, expected: str) -> None:
        names = (
            "SD15/DreamShaper_8.safetensors",
            "juggernautXL_v9.safetensors",
            "sd_xl_base_1.0.safetensors",
            "v1-5-pruned.safetensors",
        )
        pool = Catalogue.of({"a": inventory({"checkpoints": names})})
        assert pool.nearest("checkpoints", name)[0] == expected

    def test_at_most_three_and_none_when_nothing_is_near(self) -> None:
        names = [f"model_{n}.pt" for n in range(500)]
        assert len(nearest("model_123", names)) == 3
        assert nearest("model_123", names)[0] == "model_123.pt"
        assert nearest("zzzzzzz", names) == ()
        assert nearest("", names) == ()

    @given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=6))
    def test_nearest_is_always_of_the_candidates(self, name: str, names: list[str]) -> None:
        close = nearest(name, names)
        assert set(close) <= set(names)
        assert len(close) <= 3
