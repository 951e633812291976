"""
FiLA-Video: long-video understanding by scene selection and scene merging.

Names load when they are first touched, so that `import fila_video` costs nothing. The first one, or [`register`],
also tells transformers' auto classes about this package: they then build its classes without remote code.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_MODULES = {
    "ChatCollator": "training.chat_collator",
    "ContrastiveScorer": "other_models.contrastive_scorer",
    "EncodedVideo": "encoded_video_fila_video",
    "FilaVideoConfig": "configuration_fila_video",
    "FilaVideoForConditionalGeneration": "modeling_fila_video",
    "FilaVideoModel": "modeling_fila_video",
    "FilaVideoPreTrainedModel": "modeling_fila_video",
    "FilaVideoProcessor": "processing_fila_video",
    "FilaVideoVideoProcessor": "video_processing_fila_video",
    "VideoFrames": "video_reading_fila_video",
    "VideoLimits": "video_reading_fila_video",
    "VideoReadError": "video_reading_fila_video",
    "VideoSegment": "video_reading_fila_video",
    "VideoTextToTextPipeline": "pipeline_fila_video",
    "answer_all": "inference.answer_all",
    "describe_video": "inference.describe",
    "iter_frames": "video_reading_fila_video",
    "load_model": "commands.loading",
    "probe_video": "video_reading_fila_video",
    "read_frames": "video_reading_fila_video",
    "read_subtitles": "subtitles_fila_video",
    "select_frames": "other_models.frames",
    "select_scenes": "scene_selection_fila_video",
}

if TYPE_CHECKING:
    from .commands.loading import load_model
    from .configuration_fila_video import FilaVideoConfig
    from .encoded_video_fila_video import EncodedVideo
    from .inference.answer_all import answer_all
    from .inference.describe import describe_video
    from .modeling_fila_video import FilaVideoForConditionalGeneration, FilaVideoModel, FilaVideoPreTrainedModel
    from .other_models.contrastive_scorer import ContrastiveScorer
    from .other_models.frames import select_frames
    from .pipeline_fila_video import VideoTextToTextPipeline
    from .processing_fila_video import FilaVideoProcessor
    from .scene_selection_fila_video import select_scenes
    from .subtitles_fila_video import read_subtitles
    from .training.chat_collator import ChatCollator
    from .video_processing_fila_video import FilaVideoVideoProcessor
    from .video_reading_fila_video import (
        VideoFrames,
        VideoLimits,
        VideoReadError,
        VideoSegment,
        iter_frames,
        probe_video,
        read_frames,
    )


def register() -> None:
    """Lets `AutoModel`, `AutoProcessor`, `pipeline` and their like build this package's classes by `model_type`."""
    _register_auto_classes()
    importlib.import_module(".pipeline_fila_video", __name__).register_task()


def _register_auto_classes() -> None:
    # Without the pipeline, which imports the processor's module, where this is called.
    transformers = importlib.import_module("transformers")
    names = ("FilaVideoConfig", "FilaVideoForConditionalGeneration", "FilaVideoProcessor", "FilaVideoVideoProcessor")
    config, model, processor, video_processor = map(_load, names)
    transformers.AutoConfig.register("fila_video", config, exist_ok=True)
    for auto_class in ("AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM"):
        getattr(transformers, auto_class).register(config, model, exist_ok=True)
    transformers.AutoProcessor.register(config, processor, exist_ok=True)
    transformers.AutoVideoProcessor.register(config, video_processor, exist_ok=True)


def _load(name: str) -> Any:
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = _load(name)
    globals()[name] = value  # next time it is found at once
    register()
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "ChatCollator",
    "ContrastiveScorer",
    "EncodedVideo",
    "FilaVideoConfig",
    "FilaVideoForConditionalGeneration",
    "FilaVideoModel",
]
__all__ += ["FilaVideoPreTrainedModel", "FilaVideoProcessor", "FilaVideoVideoProcessor", "VideoFrames"]
__all__ += ["VideoLimits", "VideoReadError", "VideoSegment", "VideoTextToTextPipeline", "answer_all", "describe_video"]
__all__ += ["iter_frames", "load_model", "probe_video", "read_frames", "read_subtitles", "register", "select_frames"]
__all__ += ["select_scenes"]
