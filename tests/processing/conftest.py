"""What the tests of the processor and the pipeline share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.processing_fila_video import FilaVideoProcessor
from helpers.tiny_processor import model_for, tiny_pipeline, tiny_processor
from helpers.video_files import UNEVEN_TIMES, make_video


@pytest.fixture(scope="module")
def processor() -> FilaVideoProcessor:
    return tiny_processor()


@pytest.fixture(scope="module")
def model(processor: FilaVideoProcessor) -> FilaVideoForConditionalGeneration:
    return model_for(processor)


@pytest.fixture
def bound(processor: FilaVideoProcessor, model: FilaVideoForConditionalGeneration) -> Iterator[FilaVideoProcessor]:
    """The processor with the model's frame encoder, for one test."""
    processor.frame_encoder = model.encode_frames
    yield processor
    processor.frame_encoder = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "steady.mp4", 100, fps=25)
    make_video(folder / "variable.mkv", len(UNEVEN_TIMES), times=UNEVEN_TIMES)
    make_video(folder / "short.mp4", 5, fps=5)
    return folder


@pytest.fixture(scope="module")
def pipe() -> VideoTextToTextPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("videos") / "video.mp4", 30, fps=10)


@pytest.fixture(scope="module")
def answer(pipe: VideoTextToTextPipeline, file: Path) -> str:
    """To the same question about the same video, whatever its form."""
    return pipe(file, text="What?", max_new_tokens=4, return_full_text=False)[0]["generated_text"]
