"""Settings: defaults, what is refused, saving, and the one place that counts visual tokens."""

import json

import pytest
import torch
from fila_video.configuration_fila_video import (
    AUTO_MAP,
    CUSTOM_PIPELINES,
    FilaVideoConfig,
    num_visual_tokens,
    pooled_grid_size,
)
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from helpers.tiny_models import (
    IMAGE,
    VIDEO,
    tiny_clip_llama_config,
    tiny_config,
    tiny_model,
    tiny_text_config,
    tiny_vision_config,
)
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    CohereConfig,
    CTRLConfig,
    FalconH1Config,
    Gemma2Config,
    GraniteConfig,
    InternVLVisionConfig,
    LlamaConfig,
    PhiConfig,
    PhimoeConfig,
    RecurrentGemmaConfig,
)


def test_the_defaults_are_the_papers_model() -> None:
    config = FilaVideoConfig()
    vision, text = config.vision_config, config.text_config
    assert (vision.model_type, vision.hidden_size, vision.num_hidden_layers) == ("siglip_vision_model", 1152, 26)
    assert (vision.image_size, vision.patch_size, vision.vision_use_head) == (384, 14, False)
    assert (text.model_type, text.hidden_size, text.num_hidden_layers) == ("qwen2", 3584, 28)
    assert (text.num_key_value_heads, text.vocab_size, text.max_position_embeddings) == (4, 152064, 32768)
    assert (config.scene_size, config.merger_type, config.num_patches, config.patches_per_side) == (
        3,
        "weighted",
        729,
        27,
    )
    assert num_visual_tokens(32, 27, "bilinear", 2, "video") == 32 * 14 * 14 + 1


@pytest.mark.parametrize(
    ("mode", "stride", "side"),
    [
        ("bilinear", 2, 14),
        ("average", 2, 13),
        ("max", 2, 13),
        ("none", 2, 27),
        ("bilinear", 1, 27),
        ("average", 3, 9),
        ("bilinear", 4, 7),
        ("max", 27, 1),
        ("bilinear", 100, 1),
    ],
)
def test_the_side_of_a_pooled_grid(mode, stride, side) -> None:
    assert pooled_grid_size(27, mode, stride) == side


@pytest.mark.parametrize(
    ("newline", "tokens"), [("video", 3 * 196 + 1), ("grid", 3 * (196 + 14)), ("frame", 3 * 197), ("none", 3 * 196)]
)
def test_newlines_are_counted(newline, tokens) -> None:
    assert num_visual_tokens(3, 27, "bilinear", 2, newline) == tokens


@pytest.mark.parametrize(
    ("text_config", "name"),
    [
        (CohereConfig(), "logit_scale"),
        (Gemma2Config(), "final_logit_softcapping"),
        (GraniteConfig(logits_scaling=8.0), "logits_scaling"),
        (FalconH1Config(lm_head_multiplier=0.5), "lm_head_multiplier"),
        (RecurrentGemmaConfig(), "logits_soft_cap"),
    ],
)
def test_a_language_model_that_works_on_its_logits_is_refused(text_config, name) -> None:
    with pytest.raises(StrictDataclassError, match=f"changes its logits by `{name}`"):
        FilaVideoConfig(text_config=text_config)
    FilaVideoConfig(text_config=GraniteConfig())


@pytest.mark.parametrize("config_class", [CTRLConfig, PhiConfig, PhimoeConfig])
def test_a_language_model_whose_head_is_more_than_a_matrix_is_refused(config_class) -> None:
    sizes = {"vocab_size": 99, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1}
    head = {"lm_head_bias": True} if config_class is PhimoeConfig else {}
    text_config = config_class(**sizes, num_attention_heads=4, num_local_experts=2, **head)
    with pytest.raises(ValueError, match=f"{text_config.model_type}.* is a Linear with a bias"):
        FilaVideoForConditionalGeneration(tiny_config(text_config=text_config))


def test_sub_configurations_come_as_objects_dictionaries_or_nothing() -> None:
    text = tiny_text_config()
    as_dictionary = FilaVideoConfig(text_config=text.to_dict(), vision_config=tiny_vision_config().to_dict())
    assert as_dictionary.text_config.to_dict() == text.to_dict()
    assert type(as_dictionary.text_config) is type(text)
    llama = FilaVideoConfig(text_config={"model_type": "llama", "hidden_size": 64})
    assert isinstance(llama.text_config, LlamaConfig) and llama.text_config.hidden_size == 64
    given = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14}
    assert isinstance(FilaVideoConfig(vision_config=given).vision_config, CLIPVisionConfig)
    assert given["model_type"] == "clip_vision_model"  # left as it was
    assert FilaVideoConfig().text_config is not FilaVideoConfig().text_config


@pytest.mark.parametrize("make", [tiny_config, tiny_clip_llama_config, FilaVideoConfig])
def test_a_configuration_survives_saving_twice(make, tmp_path) -> None:
    config = make()
    config.save_pretrained(tmp_path / "once")
    once = FilaVideoConfig.from_pretrained(tmp_path / "once")
    once.save_pretrained(tmp_path / "twice")
    texts = [(tmp_path / name / "config.json").read_text() for name in ("once", "twice")]
    assert texts[0] == texts[1]
    saved = json.loads(texts[0])
    assert saved["auto_map"] == AUTO_MAP and saved["model_type"] == "fila_video"
    assert saved["custom_pipelines"] == {
        name: entry | {"pt": list(entry["pt"])} for name, entry in CUSTOM_PIPELINES.items()
    }


def test_every_setting_is_saved(tmp_path) -> None:
    changed = {
        "scene_size": 4,
        "merger_type": "bsm",
        "pooling_mode": "average",
        "pooling_stride": 3,
        "newline_position": "grid",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "pooling_position": "before_projector",
        "projector_type": "norm_mlp",
        "projector_hidden_act": "relu",
        "image_token_id": 7,
        "video_token_id": 8,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
    }
    tiny_config(**changed).save_pretrained(tmp_path)
    loaded = FilaVideoConfig.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in changed} == changed


def test_an_overridden_auto_map_entry_stays(tmp_path) -> None:
    config = tiny_config(auto_map={"AutoModel": "modeling_fila_video.FilaVideoModel"})
    config.save_pretrained(tmp_path)
    loaded = FilaVideoConfig.from_pretrained(tmp_path)
    assert loaded.auto_map == AUTO_MAP | {"AutoModel": "modeling_fila_video.FilaVideoModel"}
    assert AUTO_MAP["AutoModel"] == "modeling_fila_video.FilaVideoForConditionalGeneration"


def test_entries_that_name_another_repository_are_saved_without_it() -> None:
    config = tiny_config(auto_map={"AutoConfig": "someone/else--configuration_fila_video.FilaVideoConfig"})
    assert config.to_dict()["auto_map"] == AUTO_MAP


def test_a_tied_language_model_ties_the_whole() -> None:
    assert tiny_config(text_config=tiny_text_config(tie_word_embeddings=True)).tie_word_embeddings
    assert not tiny_config().tie_word_embeddings


def test_the_text_configuration_is_found_by_generation() -> None:
    config = tiny_config()
    assert config.get_text_config(decoder=True) is config.text_config
    assert (config.image_token_id, config.video_token_id) == (IMAGE, VIDEO)


def test_parts_of_a_saved_configuration_can_be_overridden(tmp_path) -> None:
    tiny_config().save_pretrained(tmp_path)
    loaded = FilaVideoConfig.from_pretrained(tmp_path, scene_size=5, text_config={"vocab_size": 20})
    assert loaded.scene_size == 5 and loaded.text_config.vocab_size == 20 and loaded.text_config.hidden_size == 48
    assert AutoConfig.for_model(**loaded.text_config.to_dict()).vocab_size == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scene_size": 0}, r"`scene_size` must be at least 1, got 0"),
        ({"pooling_stride": 0}, r"`pooling_stride` must be at least 1, got 0"),
        ({"pooling_stride": -2}, r"got -2"),
        ({"pooling_stride": 6, "pooling_mode": "average"}, r"`pooling_stride` \(6\).*5 patches"),
        ({"vision_feature_layer": 3}, r"`vision_feature_layer` is 3.*2 layers"),
        ({"vision_feature_layer": -3}, r"`vision_feature_layer` is -3.*2 layers"),
        ({"vision_feature_layer": 0}, r"`vision_feature_layer` is 0"),
        ({"image_token_id": VIDEO}, rf"both {VIDEO}"),
        ({"merger_type": "sum"}, r"merger_type"),
        ({"pooling_mode": "median"}, r"pooling_mode"),
        ({"pooling_mode": "pixel_shuffle"}, r"set `pooling_position='before_projector'`"),
        (
            {"pooling_mode": "pixel_shuffle", "pooling_position": "before_projector"},
            r"5 patches a side, which a pixel shuffle by `pooling_stride` \(2\) does not divide",
        ),
        (
            {"vision_final_norm": True, "vision_feature_layer": -2},
            r"`vision_final_norm`.*`vision_feature_layer` is -2",
        ),
        (
            {"vision_config": InternVLVisionConfig(image_size=(28, 42), patch_size=(14, 14))},
            r"`image_size` is \(28, 42\), but its grid of patches must be a square",
        ),
        ({"projector_type": "resampler"}, r"projector_type"),
        ({"newline_position": "end"}, r"newline_position"),
        ({"vision_feature_select_strategy": "cls"}, r"vision_feature_select_strategy"),
        ({"scene_size": "three"}, r"scene_size"),
    ],
)
def test_impossible_settings_are_refused(settings, message) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**settings)


def test_settings_that_were_refused_can_still_be_printed() -> None:
    """A debugger prints the half-built object."""
    config = FilaVideoConfig.__new__(FilaVideoConfig)
    config.scene_size = 2
    assert "fila_video" in str(config.to_dict())


def test_settings_given_over_saved_ones_are_checked_with_them(tmp_path) -> None:
    tiny_model().save_pretrained(tmp_path)
    for settings, message in (
        ({"scene_size": 0}, "`scene_size` must be at least 1, got 0"),
        ({"frame_encoding": "cooperative"}, "`scene_size` is 3: set it to 1"),
        ({"image_token_id": VIDEO}, f"both {VIDEO}"),
    ):
        for load in (FilaVideoConfig.from_pretrained, FilaVideoForConditionalGeneration.from_pretrained):
            with pytest.raises(StrictDataclassError, match=message):
                load(tmp_path, **settings)
    with pytest.raises(StrictDataclassError, match=r"`vision_feature_layer` is -2.*1 layers"):
        FilaVideoForConditionalGeneration.from_pretrained(
            tmp_path, vision_feature_layer=-2, vision_config={"num_hidden_layers": 1}
        )
    config = tiny_config()
    config.scene_size = -1
    with pytest.raises(StrictDataclassError, match="`scene_size` must be at least 1, got -1"):
        FilaVideoForConditionalGeneration(config)


def test_no_part_given_over_a_saved_one_leaves_it(tmp_path) -> None:
    saved = tiny_config()
    saved.save_pretrained(tmp_path)
    loaded = FilaVideoConfig.from_pretrained(tmp_path, text_config=None, vision_config=None, scene_size=2)
    assert (loaded.text_config.to_dict(), loaded.scene_size) == (saved.text_config.to_dict(), 2)


def test_another_frame_encoding_over_a_saved_one_has_its_own_default_of_background_tokens(tmp_path) -> None:
    tiny_config(scene_size=1).save_pretrained(tmp_path)
    config, unused = FilaVideoConfig.from_pretrained(
        tmp_path, frame_encoding="cooperative", later=1, return_unused_kwargs=True
    )
    assert config.background_tokens == 2 and unused == {"later": 1}
    given = FilaVideoConfig.from_pretrained(tmp_path, frame_encoding="cooperative", background_tokens=1)
    assert given.background_tokens == 1
    tiny_config(background_tokens=2).save_pretrained(tmp_path)
    assert FilaVideoConfig.from_pretrained(tmp_path, frame_encoding="scenes").background_tokens == 2


def test_a_head_of_its_own_can_be_asked_for_beside_a_tied_language_model(tmp_path) -> None:
    text_config = tiny_text_config(tie_word_embeddings=True)
    model = FilaVideoForConditionalGeneration(tiny_config(text_config=text_config, tie_word_embeddings=False))
    model.save_pretrained(tmp_path)
    for each in (model, FilaVideoForConditionalGeneration.from_pretrained(tmp_path)):
        assert each.config.tie_word_embeddings is False
        assert each.lm_head.weight is not each.get_input_embeddings().weight
        assert torch.equal(each.lm_head.weight, model.lm_head.weight)
    assert FilaVideoConfig.from_pretrained(tmp_path, tie_word_embeddings=None).tie_word_embeddings is True
