"""The maintainers' own tests of a processor, with local files in the place of the Hub's."""

import shutil
import tempfile
import unittest
from pathlib import Path
from unittest.mock import patch

import numpy as np
from fila_video.processing_fila_video import FilaVideoProcessor
from helpers.official import suite
from helpers.tiny_processor import (
    PATCHES_PER_SIDE,
    SIZE,
    chat_template,
    tiny_tokenizer,
    tiny_video_processor,
)
from helpers.video_files import make_video, picture
from PIL import Image
from transformers import SiglipImageProcessor

processing_suite = suite("test_processing_common")

# The file on the Hub that the suite asks for, and the number of frames of the one that stands for it.
VIDEOS = {"tiny_video_320x240.mp4": 11, "big_buck_bunny_320x240_10s.mp4": 30, "sample_demo_1_320x240.mp4": 20}
PICTURES = ("coco_sample.png", "australia.jpg")


class FilaVideoProcessorTest(processing_suite.ProcessorTesterMixin, unittest.TestCase):
    processor_class = FilaVideoProcessor
    # A video of 8 frames takes 4 scenes x 9 tokens, a newline and the sentence with its times.
    videos_unstructured_max_length = 176

    @classmethod
    def setUpClass(cls) -> None:
        cls.media = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.media)
        for name, num_frames in VIDEOS.items():
            make_video(cls.media / name, num_frames, fps=25)
        for name in PICTURES:
            Image.fromarray(picture(1)).save(cls.media / name)

        def local(url: str) -> str:
            return str(cls.media / url.rsplit("/", 1)[-1])

        data = {
            modality: [local(url) for url in urls] for modality, urls in processing_suite.MODALITY_INPUT_DATA.items()
        }
        cls.enterClassContext(patch.object(processing_suite, "url_to_local_path", local))
        cls.enterClassContext(patch.dict(processing_suite.MODALITY_INPUT_DATA, data))
        super().setUpClass()

    @classmethod
    def _setup_image_processor(cls):
        return SiglipImageProcessor(size=SIZE)

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer()

    @classmethod
    def _setup_video_processor(cls):
        return tiny_video_processor()

    @staticmethod
    def prepare_processor_dict():
        return {"chat_template": chat_template(), "patches_per_side": PATCHES_PER_SIDE}

    @property
    def video_sampling_expectations(self):
        # The file has 11 frames, so the pool has all of them, and 4 scenes of 3 frames go to the model. A pool of 3
        # makes 3 scenes. A rate of 10 frames a second in 0.44 seconds is a pool of 5.
        return [
            {"num_frames": 3, "fps": None, "expected_dim": 1, "output_length": 9},
            {"num_frames": None, "fps": 10, "expected_dim": 1, "output_length": 12},
            {"do_sample_frames": False, "fps": 10, "expected_dim": 1, "output_length": 12},
            {"do_sample_frames": False, "expected_dim": 1, "output_length": 12},
            {"expected_dim": 1, "output_length": 12},
        ]

    def test_subprocessor_defaults_2_videos(self) -> None:
        # The processor puts scenes together from the frames that the video processor gives: with eight scenes of one
        # frame each they are the same.
        get_component = self.get_component
        settings = {"video_processor": {"num_scenes": 8, "scene_size": 1}}

        def with_single_frames(attribute, **kwargs):
            return get_component(attribute, **kwargs, **settings.get(attribute, {}))

        with patch.object(self, "get_component", with_single_frames):
            super().test_subprocessor_defaults_2_videos()

    @unittest.skip("The chat template knows no tools, as Qwen2's, which the paper's model has")
    def test_apply_chat_template_tool_calls_no_content(self) -> None:
        pass

    # The suite asks for torchcodec here, which the reader of videos has no need of.
    def test_apply_chat_template_video_0(self) -> None:
        self._test_apply_chat_template(
            "video", 1, "pt", "videos_input_name", "video_processor", processing_suite.MODALITY_INPUT_DATA["videos"]
        )

    def test_apply_chat_template_video_1(self) -> None:
        self._test_apply_chat_template(
            "video", 2, "pt", "videos_input_name", "video_processor", processing_suite.MODALITY_INPUT_DATA["videos"]
        )

    def test_apply_chat_template_decoded_video_0(self) -> None:
        frames = np.array(self.prepare_videos_inputs())
        self._test_apply_chat_template("video", 1, "pt", "videos_input_name", "video_processor", [frames])


for name in dir(processing_suite.ProcessorTesterMixin):
    if name.startswith("test") and "audio" in name:
        setattr(FilaVideoProcessorTest, name, unittest.skip("FiLA-Video takes no sound")(lambda self: None))
    elif name in ("test_apply_chat_template_video", "test_apply_chat_template_decoded_video"):
        # What the suite leaves behind of a test with parameters; those with a number are above.
        setattr(FilaVideoProcessorTest, name, None)
