"""Samplers and schedulers by their public names, and what ComfyUI calls them.

ComfyUI's own names stand beside the usual ones of other tools (`euler_a`, `dpm++_2m_karras`). Only what both
ComfyUI 0.3.64 and 0.8.0 have is here. PLMS and Restart are not: ComfyUI has no sampler that is the same.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Scheduler(StrEnum):
    """How the noise levels of the steps are spread; ComfyUI's names."""

    SIMPLE = "simple"
    SGM_UNIFORM = "sgm_uniform"
    KARRAS = "karras"
    EXPONENTIAL = "exponential"
    DDIM_UNIFORM = "ddim_uniform"
    BETA = "beta"
    NORMAL = "normal"
    LINEAR_QUADRATIC = "linear_quadratic"
    KL_OPTIMAL = "kl_optimal"

    @classmethod
    def _missing_(cls, value: object) -> "Scheduler | None":
        """Case, blanks and hyphens do not matter."""
        return cls._value2member_map_.get(_normal(value)) if isinstance(value, str) else None  # type: ignore[return-value]


class Sampler(StrEnum):
    """What a caller may name; names in other case, with blanks, or with `k_` before them are understood."""

    EULER_A = "euler_a"
    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    EULER_CFG_PP = "euler_cfg_pp"
    EULER_ANCESTRAL_CFG_PP = "euler_ancestral_cfg_pp"
    HEUN = "heun"
    HEUN_PP2 = "heunpp2"
    LMS = "lms"
    LMS_KARRAS = "lms_karras"
    DDIM = "ddim"
    DDPM = "ddpm"
    LCM = "lcm"
    UNI_PC = "uni_pc"
    UNI_PC_BH2 = "uni_pc_bh2"
    DPM2 = "dpm2"
    DPM2_KARRAS = "dpm2_karras"
    DPM2_A = "dpm2_a"
    DPM2_A_KARRAS = "dpm2_a_karras"
    DPM_2 = "dpm_2"
    DPM_2_ANCESTRAL = "dpm_2_ancestral"
    DPM_FAST = "dpm_fast"
    DPM_ADAPTIVE = "dpm_adaptive"
    DPM_PLUS_2S_A = "dpm++_2s_a"
    DPM_PLUS_2S_A_KARRAS = "dpm++_2s_a_karras"
    DPM_PLUS_SDE = "dpm++_sde"
    DPM_PLUS_SDE_KARRAS = "dpm++_sde_karras"
    DPM_PLUS_2M = "dpm++_2m"
    DPM_PLUS_2M_KARRAS = "dpm++_2m_karras"
    DPM_PLUS_2M_SDE = "dpm++_2m_sde"
    DPM_PLUS_2M_SDE_KARRAS = "dpm++_2m_sde_karras"
    DPM_PLUS_2M_SDE_EXPONENTIAL = "dpm++_2m_sde_exponential"
    DPM_PLUS_2M_SDE_HEUN = "dpm++_2m_sde_heun"
    DPM_PLUS_2M_SDE_HEUN_KARRAS = "dpm++_2m_sde_heun_karras"
    DPM_PLUS_2M_SDE_HEUN_EXPONENTIAL = "dpm++_2m_sde_heun_exponential"
    DPM_PLUS_3M_SDE = "dpm++_3m_sde"
    DPM_PLUS_3M_SDE_KARRAS = "dpm++_3m_sde_karras"
    DPM_PLUS_3M_SDE_EXPONENTIAL = "dpm++_3m_sde_exponential"
    DPMPP_2S_ANCESTRAL = "dpmpp_2s_ancestral"
    DPMPP_2S_ANCESTRAL_CFG_PP = "dpmpp_2s_ancestral_cfg_pp"
    DPMPP_SDE = "dpmpp_sde"
    DPMPP_SDE_GPU = "dpmpp_sde_gpu"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_CFG_PP = "dpmpp_2m_cfg_pp"
    DPMPP_2M_SDE = "dpmpp_2m_sde"
    DPMPP_2M_SDE_GPU = "dpmpp_2m_sde_gpu"
    DPMPP_2M_SDE_HEUN = "dpmpp_2m_sde_heun"
    DPMPP_2M_SDE_HEUN_GPU = "dpmpp_2m_sde_heun_gpu"
    DPMPP_3M_SDE = "dpmpp_3m_sde"
    DPMPP_3M_SDE_GPU = "dpmpp_3m_sde_gpu"
    IPNDM = "ipndm"
    IPNDM_V = "ipndm_v"
    DEIS = "deis"
    RES_MULTISTEP = "res_multistep"
    RES_MULTISTEP_CFG_PP = "res_multistep_cfg_pp"
    RES_MULTISTEP_ANCESTRAL = "res_multistep_ancestral"
    RES_MULTISTEP_ANCESTRAL_CFG_PP = "res_multistep_ancestral_cfg_pp"
    GRADIENT_ESTIMATION = "gradient_estimation"
    GRADIENT_ESTIMATION_CFG_PP = "gradient_estimation_cfg_pp"
    ER_SDE = "er_sde"
    SEEDS_2 = "seeds_2"
    SEEDS_3 = "seeds_3"
    SA_SOLVER = "sa_solver"
    SA_SOLVER_PECE = "sa_solver_pece"

    @classmethod
    def _missing_(cls, value: object) -> "Sampler | None":
        """`Euler a`, `DPM++ 2M Karras`, `k_lms`, `dpmpp_2m_karras`, `UniPC`."""
        if not isinstance(value, str):
            return None
        name = _normal(value).removeprefix("k_")
        for spelling in (name, name.replace("dpmpp", "dpm++"), name.replace("unipc", "uni_pc")):
            if (member := cls._value2member_map_.get(spelling)) is not None:
                return member  # type: ignore[return-value]
        return None


_ALIASES: Final[Mapping[Sampler, str]] = {
    Sampler.EULER_A: "euler_ancestral",
    Sampler.LMS_KARRAS: "lms",
    Sampler.DPM2: "dpm_2",
    Sampler.DPM2_KARRAS: "dpm_2",
    Sampler.DPM2_A: "dpm_2_ancestral",
    Sampler.DPM2_A_KARRAS: "dpm_2_ancestral",
    Sampler.DPM_PLUS_2S_A: "dpmpp_2s_ancestral",
    Sampler.DPM_PLUS_2S_A_KARRAS: "dpmpp_2s_ancestral",
    Sampler.DPM_PLUS_SDE: "dpmpp_sde",
    Sampler.DPM_PLUS_SDE_KARRAS: "dpmpp_sde",
    Sampler.DPM_PLUS_2M: "dpmpp_2m",
    Sampler.DPM_PLUS_2M_KARRAS: "dpmpp_2m",
    Sampler.DPM_PLUS_2M_SDE: "dpmpp_2m_sde",
    Sampler.DPM_PLUS_2M_SDE_KARRAS: "dpmpp_2m_sde",
    Sampler.DPM_PLUS_2M_SDE_EXPONENTIAL: "dpmpp_2m_sde",
    Sampler.DPM_PLUS_2M_SDE_HEUN: "dpmpp_2m_sde_heun",
    Sampler.DPM_PLUS_2M_SDE_HEUN_KARRAS: "dpmpp_2m_sde_heun",
    Sampler.DPM_PLUS_2M_SDE_HEUN_EXPONENTIAL: "dpmpp_2m_sde_heun",
    Sampler.DPM_PLUS_3M_SDE: "dpmpp_3m_sde",
    Sampler.DPM_PLUS_3M_SDE_KARRAS: "dpmpp_3m_sde",
    Sampler.DPM_PLUS_3M_SDE_EXPONENTIAL: "dpmpp_3m_sde",
}


def _scheduler_in(sampler: Sampler) -> Scheduler | None:
    """The scheduler that the name says; DDIM's own is the uniform one."""
    if sampler is Sampler.DDIM:
        return Scheduler.DDIM_UNIFORM
    for scheduler in (Scheduler.KARRAS, Scheduler.EXPONENTIAL):
        if sampler.endswith(f"_{scheduler}"):
            return scheduler
    return None


SAMPLERS: Final[Mapping[Sampler, tuple[str, Scheduler | None]]] = MappingProxyType(
    {sampler: (_ALIASES.get(sampler, sampler.value), _scheduler_in(sampler)) for sampler in Sampler}
)
"""Public name → (ComfyUI's `sampler_name`, the scheduler in the name or None)."""


def choose(
    sampler: Sampler, scheduler: Scheduler | None = None, fallback: Scheduler = Scheduler.NORMAL
) -> tuple[str, str]:
    """(sampler_name, scheduler) for ComfyUI: the explicit scheduler, else the name's, else the fallback."""
    name, named = SAMPLERS[sampler]
    return name, (scheduler or named or fallback).value


def _normal(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
