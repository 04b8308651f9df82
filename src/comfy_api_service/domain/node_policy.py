"""Which node classes callers may use.

A graph is a program, and a node of it is whatever Python its class holds: custom nodes have run code and opened
files for anybody who asked. `CORE` holds classes of ComfyUI itself (0.3.64 to 0.8.0) of which this is known:

- they read model files by the names of ComfyUI's lists, and pictures that callers brought, nothing else;
- they write by the Save and Preview nodes alone, whose place this service decides;
- they call no network, run no code that came with the graph, and know no account of anybody.

Left out, with the reason:

- LoadLatent, LoadVideo, LoadAudio, Load3D, LoadImageOutput, WebcamCapture, RecordAudio: they open files that
  callers cannot bring yet, or those of other people's jobs;
- everything of data sets and training: it reads and writes whole folders;
- CheckpointSave, ModelSave, CLIPSave, VAESave, LoraSave, ImageOnlyCheckpointSave, SaveLatent: they fill the
  backend's disk with what no caller ever gets;
- SaveSVGNode (its files may carry scripts), SaveGLB, Preview3D and the rest of 3D: no result of this service;
- RegexMatch, RegexExtract, RegexReplace: one expression can keep a backend busy for ever;
- TorchCompileModel (compiles code), DiffusersLoader and CheckpointLoader (folders and configurations by path);
- ModelMerge…, CLIPMerge…, hooks: several whole models in memory, and their weights by the block;
- the switches and test nodes of `nodes_logic`, and Batch…Node, ResizeImageMaskNode: their types and inputs are
  decided while they run, so a graph with them cannot be judged before.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

_LISTS: Final = {
    "models and their parts": """
    AudioEncoderLoader CheckpointLoaderSimple CLIPLoader CLIPVisionLoader ControlNetLoader
    DiffControlNetLoader DualCLIPLoader GLIGENLoader HypernetworkLoader ImageOnlyCheckpointLoader
    LatentUpscaleModelLoader LoraLoader LoraLoaderModelOnly LTXAVTextEncoderLoader LTXVAudioVAELoader
    ModelPatchLoader PhotoMakerLoader QuadrupleCLIPLoader StyleModelLoader TripleCLIPLoader
    unCLIPCheckpointLoader UNETLoader UpscaleModelLoader VAELoader
    """,
    "what is asked for": """
    AudioEncoderEncode CLIPSetLastLayer CLIPTextEncode CLIPTextEncodeControlnet CLIPTextEncodeFlux
    CLIPTextEncodeHiDream CLIPTextEncodeHunyuanDiT CLIPTextEncodeKandinsky5 CLIPTextEncodeLumina2
    CLIPTextEncodePixArtAlpha CLIPTextEncodeSD3 CLIPTextEncodeSDXL CLIPTextEncodeSDXLRefiner
    CLIPVisionEncode ConditioningAverage ConditioningCombine ConditioningConcat ConditioningSetArea
    ConditioningSetAreaPercentage ConditioningSetAreaPercentageVideo ConditioningSetAreaStrength
    ConditioningSetMask ConditioningSetTimestepRange ConditioningStableAudio ConditioningZeroOut
    ControlNetApply ControlNetApplyAdvanced ControlNetApplySD3 ControlNetInpaintingAliMamaApply
    FluxDisableGuidance FluxGuidance FluxKontextMultiReferenceLatentMethod GLIGENTextBoxApply
    InpaintModelConditioning InstructPixToPixConditioning LotusConditioning PhotoMakerEncode ReferenceLatent
    SD_4XUpscale_Conditioning SetUnionControlNetType StableCascade_StageB_Conditioning
    StableCascade_SuperResolutionControlnet StableZero123_Conditioning StableZero123_Conditioning_Batched
    StyleModelApply SV3D_Conditioning SVD_img2vid_Conditioning T5TokenizerOptions TextEncodeAceStepAudio
    TextEncodeHunyuanVideo_ImageToVideo TextEncodeQwenImageEdit TextEncodeQwenImageEditPlus
    unCLIPConditioning
    """,
    "how a model samples": """
    AddNoise AlignYourStepsScheduler APG BasicGuider BasicScheduler BetaSamplingScheduler CFGGuider CFGNorm
    CFGZeroStar ChromaRadianceOptions CLIPAttentionMultiply ContextWindowsManual DifferentialDiffusion
    DisableNoise DualCFGGuider EasyCache Epsilon ExponentialScheduler ExtendIntermediateSigmas FlipSigmas
    Flux2Scheduler FreeU FreeU_V2 FreSca GITSScheduler HyperTile KarrasScheduler KSampler KSamplerAdvanced
    KSamplerSelect LaplaceScheduler LatentApplyOperationCFG LazyCache LTXVScheduler Mahiro ManualSigmas
    ModelComputeDtype ModelSamplingAuraFlow ModelSamplingContinuousEDM ModelSamplingContinuousV
    ModelSamplingDiscrete ModelSamplingFlux ModelSamplingLTXV ModelSamplingSD3 ModelSamplingStableCascade
    OptimalStepsScheduler PatchModelAddDownscale PerpNeg PerpNegGuider PerturbedAttentionGuidance
    PolyexponentialScheduler QwenImageDiffsynthControlnet RandomNoise RenormCFG RescaleCFG SamplerCustom
    SamplerCustomAdvanced SamplerDPMAdaptative SamplerDPMPP_2M_SDE SamplerDPMPP_2S_Ancestral
    SamplerDPMPP_3M_SDE SamplerDPMPP_SDE SamplerER_SDE SamplerEulerAncestral SamplerEulerAncestralCFGPP
    SamplerEulerCFGpp SamplerLCMUpscale SamplerLMS SamplerSASolver SamplerSEEDS2 SamplingPercentToSigma
    ScaleROPE SDTurboScheduler SelfAttentionGuidance SetFirstSigma SkipLayerGuidanceDiT
    SkipLayerGuidanceDiTSimple SkipLayerGuidanceSD3 SplitSigmas SplitSigmasDenoise TCFG
    TemporalScoreRescaling TomePatchModel UNetCrossAttentionMultiply UNetSelfAttentionMultiply
    UNetTemporalAttentionMultiply USOStyleReference VideoLinearCFGGuidance VideoTriangleCFGGuidance
    VPScheduler WanContextWindowsManual ZImageFunControlnet
    """,
    "latents": """
    EmptyAceStepLatentAudio EmptyChromaRadianceLatentImage EmptyCosmosLatentVideo EmptyFlux2LatentImage
    EmptyHunyuanImageLatent EmptyHunyuanLatentVideo EmptyHunyuanVideo15Latent EmptyLatentAudio
    EmptyLatentImage EmptyLTXVLatentVideo EmptyMochiLatentVideo EmptyQwenImageLayeredLatentImage
    EmptySD3LatentImage HunyuanRefinerLatent LatentAdd LatentApplyOperation LatentBatch
    LatentBatchSeedBehavior LatentBlend LatentComposite LatentCompositeMasked LatentConcat LatentCrop
    LatentCut LatentCutToBatch LatentFlip LatentFromBatch LatentInterpolate LatentMultiply
    LatentOperationSharpen LatentOperationTonemapReinhard LatentRotate LatentSubtract LatentUpscale
    LatentUpscaleBy LTXVEmptyLatentAudio NormalizeVideoLatentStart RebatchLatents RepeatLatentBatch
    ReplaceVideoLatentFrames SetLatentNoiseMask StableCascade_EmptyLatentImage
    StableCascade_StageC_VAEEncode TrimVideoLatent VAEDecode VAEDecodeAudio VAEDecodeTiled VAEEncode
    VAEEncodeAudio VAEEncodeForInpaint VAEEncodeTiled
    """,
    "pictures and masks": """
    Canny CropMask EmptyImage FeatherMask FluxKontextImageScale GetImageSize GrowMask ImageAddNoise
    ImageBatch ImageBlend ImageBlur ImageColorToMask ImageCompositeMasked ImageCrop ImageFlip ImageFromBatch
    ImageInvert ImagePadForOutpaint ImageQuantize ImageRGBToYUV ImageRotate ImageScale ImageScaleBy
    ImageScaleToMaxDimension ImageScaleToTotalPixels ImageSharpen ImageStitch ImageToMask
    ImageUpscaleWithModel ImageYUVToRGB InvertMask JoinImageWithAlpha LoadImage LoadImageMask MaskComposite
    MaskToImage Morphology PorterDuffImageComposite RebatchImages RepeatImageBatch ResizeAndPadImage
    SolidMask SplitImageWithAlpha ThresholdMask
    """,
    "video and sound": """
    AudioAdjustVolume AudioConcat AudioMerge CosmosImageToVideoLatent CosmosPredict2ImageToVideoLatent
    CreateVideo EmptyAudio GetVideoComponents HunyuanImageToVideo HunyuanVideo15ImageToVideo
    HunyuanVideo15LatentUpscaleWithModel HunyuanVideo15SuperResolution Kandinsky5ImageToVideo LTXVAddGuide
    LTXVAudioVAEDecode LTXVAudioVAEEncode LTXVConcatAVLatent LTXVConditioning LTXVCropGuides LTXVImgToVideo
    LTXVImgToVideoInplace LTXVLatentUpsampler LTXVPreprocess LTXVSeparateAVLatent SplitAudioChannels
    TrimAudioDuration Wan22FunControlToVideo Wan22ImageToVideoLatent WanAnimateToVideo WanCameraEmbedding
    WanCameraImageToVideo WanFirstLastFrameToVideo WanFunControlToVideo WanFunInpaintToVideo
    WanHuMoImageToVideo WanImageToVideo WanPhantomSubjectToVideo WanSoundImageToVideo
    WanSoundImageToVideoExtend WanTrackToVideo WanVaceToVideo
    """,
    "values": """
    CaseConverter PrimitiveBoolean PrimitiveFloat PrimitiveInt PrimitiveString PrimitiveStringMultiline
    StringCompare StringConcatenate StringContains StringLength StringReplace StringSubstring StringTrim
    """,
    "results": """
    MaskPreview PreviewAny PreviewAudio PreviewImage SaveAnimatedPNG SaveAnimatedWEBP SaveAudio SaveAudioMP3
    SaveAudioOpus SaveImage SaveImageWebsocket SaveVideo SaveWEBM
    """,
}

GROUPS: Final[Mapping[str, Sequence[str]]] = {title: names.split() for title, names in _LISTS.items()}
"""What they are for → the classes of ComfyUI itself that are known harmless."""

CORE: Final = frozenset(name for names in GROUPS.values() for name in names)


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """What a caller may use; made by `open` or `core`."""

    classes: frozenset[str] | None
    """None: all that the backends have."""

    @classmethod
    def open(cls) -> Self:
        """Everything: for a service with one caller, who owns the backends."""
        return cls(None)

    @classmethod
    def core(cls, extra: Collection[str] = ()) -> Self:
        """`CORE` and the classes that the operator lists."""
        return cls(CORE | frozenset(extra))

    @property
    def is_open(self) -> bool:
        return self.classes is None

    def allows(self, class_name: str) -> bool:
        return self.classes is None or class_name in self.classes
