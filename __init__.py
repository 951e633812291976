"""FiLA-Video: long-video understanding by scene selection and scene merging."""

import importlib
from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoVideoProcessor,
)

from .configuration_fila_video import FilaVideoConfig
from .modeling_fila_video import FilaVideoForConditionalGeneration, FilaVideoModel, FilaVideoPreTrainedModel
from .pipeline_fila_video import VideoTextToTextPipeline
from .processing_fila_video import FilaVideoProcessor
from .scene_selection_fila_video import select_scenes
from .video_processing_fila_video import FilaVideoVideoProcessor
from .video_reading_fila_video import VideoFrames, VideoReadError, VideoSegment, iter_frames, probe_video, read_frames

__version__ = "0.1.0"

# Where the package is installed and imported, the auto classes build its classes without any remote code.
AutoConfig.register("fila_video", FilaVideoConfig, exist_ok=True)
for _auto_class in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
    _auto_class.register(FilaVideoConfig, FilaVideoForConditionalGeneration, exist_ok=True)
AutoProcessor.register(FilaVideoConfig, FilaVideoProcessor, exist_ok=True)
AutoVideoProcessor.register(FilaVideoConfig, FilaVideoVideoProcessor, exist_ok=True)


def __getattr__(name: str) -> Any:
    """What only training needs is imported when it is asked for."""
    if name == "ChatCollator":
        return importlib.import_module(".training.chat_collator", __name__).ChatCollator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ChatCollator",
    "FilaVideoConfig",
    "FilaVideoForConditionalGeneration",
    "FilaVideoModel",
    "FilaVideoPreTrainedModel",
    "FilaVideoProcessor",
    "FilaVideoVideoProcessor",
    "VideoFrames",
    "VideoReadError",
    "VideoSegment",
    "VideoTextToTextPipeline",
    "iter_frames",
    "probe_video",
    "read_frames",
    "select_scenes",
]
