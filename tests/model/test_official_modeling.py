"""The maintainers' own tests of a model and of its configuration, with videos and images as input."""

import unittest
from typing import ClassVar
from unittest.mock import patch

import pytest
from fila_video.configuration_fila_video import FilaVideoConfig
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration, FilaVideoModel
from helpers.official import suite
from helpers.tiny_models import (
    left_padded,
    prompt,
    random_frames,
    random_videos,
    tiny_config,
    tiny_text_config,
    tiny_vision_config,
    tokens_of,
    video_tokens_of,
)
from transformers.models.auto import modeling_auto

configuration_suite = suite("test_configuration_common")
modeling_suite = suite("test_modeling_common")


class FilaVideoModelTester:
    """What the suite asks of a model: sizes, and one batch. Every question has a video of two scenes and an image."""

    batch_size = 3
    is_training = True
    num_scenes = 2
    settings: ClassVar[dict] = {}

    def __init__(self, parent) -> None:
        self.parent = parent
        self.vision_config = tiny_vision_config().to_dict()
        self.text_config = tiny_text_config().to_dict()
        config = self.get_config()
        self.num_hidden_layers = config.text_config.num_hidden_layers
        self.num_attention_heads = config.text_config.num_attention_heads
        self.hidden_size = config.text_config.hidden_size
        self.image_size = config.vision_config.image_size
        self.seq_length = 7 + video_tokens_of(config, self.num_scenes) + tokens_of(config, 1)
        self.encoder_seq_length = self.key_length = self.seq_length

    def get_config(self):
        return tiny_config(vision_config=dict(self.vision_config), text_config=dict(self.text_config), **self.settings)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        rows = [prompt("ab", self.num_scenes, "cd", "image", f"ef{row}", config=config) for row in range(3)]
        inputs = left_padded(rows) | random_videos([self.num_scenes] * self.batch_size, config)
        return config, inputs | {"pixel_values": random_frames(self.batch_size, config, seed=5)}


class FilaVideoModelTest(modeling_suite.ModelTesterMixin, unittest.TestCase):
    model_tester_class = FilaVideoModelTester
    base_model_class = FilaVideoModel
    all_model_classes = (FilaVideoModel, FilaVideoForConditionalGeneration)
    _is_composite = True
    test_torch_exportable = False
    # `last_hidden_state` is the vision tower's: it has a row a frame, not a row a video.
    skip_test_video_features_output_shape = True

    def setUp(self) -> None:
        # The suite asks these tables which models take labels and which have no loss.
        for table, name in (
            (modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, "FilaVideoForConditionalGeneration"),
            (modeling_auto.MODEL_MAPPING_NAMES, "FilaVideoModel"),
        ):
            entry = patch.dict(table, {"fila_video": name})
            entry.start()
            self.addCleanup(entry.stop)
        # The suite draws token ids from the whole vocabulary, placeholders included, and leaves out the pixels.
        blind = patch.object(FilaVideoModel, "refuse_missing_visuals")
        blind.start()
        self.addCleanup(blind.stop)
        self.model_tester = self.model_tester_class(self)
        self.config_tester = configuration_suite.ConfigTester(
            self, config_class=FilaVideoConfig, has_text_modality=False, common_properties=["scene_size"]
        )

    @unittest.skip("the source distribution lacks the tests of generation; test_generation.py stands in their place")
    def test_generation_tester_mixin_inheritance(self) -> None:
        pass

    @unittest.skip("outputs hold the visuals' tokens (`image_hidden_states`), not the whole output of the encoder")
    def test_multimodal_outputs_are_returned(self) -> None:
        pass

    @unittest.skip("both names of the cache are taken under every version, the old one without a warning")
    def test_bc_cache_name_forward(self) -> None:
        pass

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class CooperativeModelTester(FilaVideoModelTester):
    settings: ClassVar[dict] = {"frame_encoding": "cooperative", "scene_size": 1, "key_frames": 1.0}


@pytest.mark.slow
class CooperativeModelTest(FilaVideoModelTest):
    model_tester_class = CooperativeModelTester
