"""The maintainers' own tests of a video processor."""

import unittest

from fila_video.video_processing_fila_video import FilaVideoVideoProcessor
from helpers.official import suite

video_suite = suite("test_video_processing_common")


class FilaVideoVideoProcessingTester:
    """What the suite asks of a video processor: its settings, and videos of random sizes."""

    batch_size = 5
    num_frames = 8
    num_channels = 3

    def prepare_video_processor_dict(self):
        return {
            "do_resize": True,
            "size": {"height": 20, "width": 20},
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_convert_rgb": True,
        }

    def expected_output_video_shape(self, videos):
        return self.num_frames, 3, 20, 20

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return video_suite.prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class FilaVideoVideoProcessingTest(video_suite.VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = FilaVideoVideoProcessor
    test_cast_dtype = True

    def setUp(self) -> None:
        super().setUp()
        self.video_processor_tester = FilaVideoVideoProcessingTester()
        self.video_processor_dict = self.video_processor_tester.prepare_video_processor_dict()

    def test_video_processor_from_dict_with_kwargs(self) -> None:
        # The suite's own numbers are of a processor with a shortest edge and a crop.
        video_processor = self.fast_video_processing_class.from_dict(self.video_processor_dict)
        self.assertEqual(video_processor.size, {"height": 20, "width": 20})
        video_processor = self.fast_video_processing_class.from_dict(self.video_processor_dict, size=42)
        self.assertEqual(video_processor.size, {"height": 42, "width": 42})

    def test_override_instance_attributes_does_not_affect_other_instances(self) -> None:
        # The suite's own changes `size` as a dictionary and `image_mean` as a list: here they are neither.
        first, second = self.fast_video_processing_class(), self.fast_video_processing_class()
        first.size["height"] = -1
        self.assertEqual(second.size["height"], 384)
        self.assertEqual(self.fast_video_processing_class.size, {"height": 384, "width": 384})
        with self.assertRaises(TypeError):
            first.image_mean[0] = -1

    @unittest.skip(
        "The suite's test is of processors that filter or list the arguments of `preprocess`; this does not"
    )
    def test_video_processor_preprocess_arguments(self) -> None:
        pass

    @unittest.skip("The suite compiles on an accelerator only, and on demand: compiling takes a minute")
    def test_can_compile_fast_video_processor(self) -> None:
        pass
