"""Nodes that make and change the conditioning: text in, notes on what else was asked for."""

import dataclasses

from comfy_api_service.simulator.values import Clip, Conditioning, Images, Named

from .base import Call, Outputs, node


@node("CLIPTextEncode")
def text_encode(call: Call) -> Outputs:
    skip = call.get("clip", Clip).skip
    notes = (f"clip skip {-skip}",) if skip < -1 else ()
    return (Conditioning(call.text("text"), notes),)


@node("FluxGuidance")
def flux_guidance(call: Call) -> Outputs:
    return (_noted(call.conditioning(), f"guidance {call.number('guidance', 3.5):g}"),)


@node("ConditioningCombine")
def combine(call: Call) -> Outputs:
    return (_joined(call.conditioning("conditioning_1"), call.conditioning("conditioning_2")),)


@node("ConditioningConcat")
def concat(call: Call) -> Outputs:
    return (_joined(call.conditioning("conditioning_to"), call.conditioning("conditioning_from")),)


@node("ConditioningSetMask")
def set_mask(call: Call) -> Outputs:
    return (_noted(call.conditioning(), "masked"),)


@node("ConditioningZeroOut")
def zero_out(call: Call) -> Outputs:
    return (Conditioning("", call.conditioning().notes),)


@node("ControlNetApply")
def control_net(call: Call) -> Outputs:
    return (_controlled(call, call.conditioning()),)


@node("ControlNetApplyAdvanced")
def control_net_advanced(call: Call) -> Outputs:
    return _controlled(call, call.conditioning("positive")), call.conditioning("negative")


def _controlled(call: Call, conditioning: Conditioning) -> Conditioning:
    strength = call.number("strength", 1.0)
    name = call.get("control_net", Named).name
    if strength == 0:
        return conditioning
    guide = call.get("image", Images).frames[0]
    return dataclasses.replace(_noted(conditioning, f"{name} {strength:g}"), guide=guide)


def _noted(conditioning: Conditioning, note: str) -> Conditioning:
    return dataclasses.replace(conditioning, notes=(*conditioning.notes, note))


def _joined(first: Conditioning, second: Conditioning) -> Conditioning:
    text = ", ".join(t for t in (first.text, second.text) if t)
    return Conditioning(text, (*first.notes, *second.notes), first.guide or second.guide)
