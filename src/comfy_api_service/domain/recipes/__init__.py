"""Recipes: the graph of a simple generation, one file for each family of models.

A recipe is a pure function of its plan: the same plan gives the same graph, byte for byte.
"""

from comfy_api_service.domain.families import Family
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.recipes import flux, sd, sd3
from comfy_api_service.domain.recipes.plan import Parts, Plan

__all__ = ["Parts", "Plan", "compile_graph"]

_RECIPES = {Family.SD15: sd.build, Family.SDXL: sd.build, Family.SD3: sd3.build, Family.FLUX: flux.build}


def compile_graph(plan: Plan) -> Graph:
    """The plan's graph; node ids are the decimal numbers from 1, in order of making."""
    return _RECIPES[plan.family](plan)
