from typing import Any

import pytest
from tests.unit.domain.graph_check import VERSIONS, object_info

from comfy_api_service.domain.sampling import SAMPLERS, Sampler, Scheduler, choose


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_one_that_the_server_has(version: str) -> None:
    required = object_info(version)["KSampler"]["input"]["required"]
    assert {name for name, _ in SAMPLERS.values()} <= set(required["sampler_name"][0])
    assert {scheduler.value for scheduler in Scheduler} == set(required["scheduler"][0])


def test_every_sampler_that_both_servers_have_can_be_named_as_it_is() -> None:
    both = [set(object_info(v)["KSampler"]["input"]["required"]["sampler_name"][0]) for v in VERSIONS]
    assert both[0] & both[1] <= set(Sampler)
    assert all(SAMPLERS[Sampler(name)][0] == name for name in both[0] & both[1])


@pytest.mark.parametrize(
    ("public", "expected"),
    [
        ("euler_a", ("euler_ancestral", "normal")),
        ("dpm++_2m_karras", ("dpmpp_2m", "karras")),
        ("dpm++_2m", ("dpmpp_2m", "normal")),
        ("dpm++_sde_karras", ("dpmpp_sde", "karras")),
        ("dpm++_2m_sde_karras", ("dpmpp_2m_sde", "karras")),
        ("dpm++_3m_sde_exponential", ("dpmpp_3m_sde", "exponential")),
        ("dpm++_2s_a", ("dpmpp_2s_ancestral", "normal")),
        ("dpm2_a_karras", ("dpm_2_ancestral", "karras")),
        ("lms_karras", ("lms", "karras")),
        ("ddim", ("ddim", "ddim_uniform")),
        ("uni_pc", ("uni_pc", "normal")),
    ],
)
def test_usual_names(public: str, expected: tuple[str, str]) -> None:
    assert choose(Sampler(public)) == expected


def test_an_explicit_scheduler_wins_over_the_names_and_the_names_over_the_fallback() -> None:
    karras = Sampler.DPM_PLUS_2M_KARRAS
    assert choose(karras, Scheduler.BETA) == ("dpmpp_2m", "beta")
    assert choose(karras, None, Scheduler.SIMPLE) == ("dpmpp_2m", "karras")
    assert choose(Sampler.EULER, None, Scheduler.SIMPLE) == ("euler", "simple")


@pytest.mark.parametrize(
    ("variant", "sampler"),
    [
        ("Euler a", Sampler.EULER_A),
        ("DPM++ 2M Karras", Sampler.DPM_PLUS_2M_KARRAS),
        ("k_lms", Sampler.LMS),
        ("k_euler_ancestral", Sampler.EULER_ANCESTRAL),
        ("dpmpp_2m_karras", Sampler.DPM_PLUS_2M_KARRAS),
        ("UniPC", Sampler.UNI_PC),
        (" heun ", Sampler.HEUN),
    ],
)
def test_variants_of_spelling(variant: str, sampler: Sampler) -> None:
    assert Sampler(variant) is sampler


def test_scheduler_variants() -> None:
    assert Scheduler("SGM Uniform") is Scheduler.SGM_UNIFORM


@pytest.mark.parametrize("value", ["plms", "", "k_", None, 3])
def test_what_is_no_sampler_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        Sampler(value)
    with pytest.raises(ValueError, match="is not a valid"):
        Scheduler(value)
