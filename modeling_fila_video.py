"""FiLA-Video model: vision tower, scene merger, projector, pooling, newline, language model."""

import inspect
from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.generation import utils as generation_utils
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring, logging, output_capturing, torch_compilable_check
from transformers.utils.generic import can_return_tuple

from .configuration_fila_video import VIDEO_INPUTS, FilaVideoConfig, check_head
from .cooperative_encoding_fila_video import (
    FilaVideoBackgroundEncoder,
    FilaVideoCooperativeEncoder,
    insert_background,
    split_frames,
)
from .layer_compression_fila_video import CACHE_ARGUMENT, CompressedCache, follow_kept_tokens, run_compressed
from .question_selection_fila_video import FrameScoringMixin
from .scene_merging_fila_video import (
    SCENE_MERGERS,
    FilaVideoAttentionMerger,
    FilaVideoMultiModalProjector,
    FilaVideoWeightedMerger,
    own_parameter,
    visual_tokens,
)

if TYPE_CHECKING:
    # The Hub's loader and `save_pretrained` take along what these lines name: the pipeline leads them to the processor
    # and the reader. It is not imported here, so that a server that encodes frames itself needs none of them.
    from .pipeline_fila_video import VideoTextToTextPipeline as VideoTextToTextPipeline

logger = logging.get_logger(__name__)

VIDEO_ARGS = r"""
    pixel_values_videos (`torch.Tensor`, *optional*):
        Pixels of the chosen frames, `(num_videos, num_scenes * scene_size, channels, height, width)`, the frames of a
        scene side by side in chronological order.
    frame_features (`torch.Tensor`, *optional*):
        What `encode_frames` gave for the chosen frames, `(num_videos, num_scenes * scene_size, num_patches,
        vision_hidden_size)`, instead of their pixels.
    video_num_scenes (`torch.LongTensor` of shape `(num_videos,)`, *optional*):
        Scenes of each video; rows beyond are padding. By default every row is a scene.
    video_background_places (`torch.LongTensor` of shape `(num_videos, num_background)`, *optional*):
        With `background_tokens`: the frames behind a video's scenes are its background, and this is how many scenes
        stand before each of them; -1 is padding. By default there are none.
    video_question_ids (`torch.LongTensor` of shape `(num_videos, num_tokens)`, *optional*):
        With `frame_encoding="cooperative"`: the token ids of the question about each video; -1 is padding. Without
        one, every patch of a frame counts the same.
"""
FORWARD_ARGS = rf"""{VIDEO_ARGS.rstrip()}
    mm_encoder_outputs (`dict`, *optional*):
        What `get_image_features` and `get_video_features` gave, under `"image"` and `"video"`, instead of pixels.
    cache (`Cache`, *optional*):
        Keys and values of the tokens that were read before.
    past_key_values (`Cache`, *optional*):
        The name of `cache` before transformers 5.24; either is taken under every version.
"""


@auto_docstring(custom_intro="Outputs of the base model.")
@dataclass
class FilaVideoModelOutputWithPast(BaseModelOutputWithPast):
    r"""
    image_hidden_states (`tuple[torch.FloatTensor]`, *optional*):
        What each image gave to the language model, `(num_tokens, hidden_size)`.
    video_hidden_states (`tuple[torch.FloatTensor]`, *optional*):
        What each video gave to the language model, `(num_tokens, hidden_size)`.
    kept_tokens (`torch.LongTensor` of shape `(batch_size, num_left)`, *optional*):
        With `layer_compression`, the places in the sequence of the tokens that reached the last layer, whose states
        these are; -1 at padding. `None` where none fell away.
    """

    image_hidden_states: tuple[torch.FloatTensor] | None = None
    video_hidden_states: tuple[torch.FloatTensor] | None = None
    kept_tokens: torch.LongTensor | None = None


@auto_docstring(custom_intro="Outputs of the model with its language modeling head.")
@dataclass
class FilaVideoCausalLMOutputWithPast(CausalLMOutputWithPast):
    r"""
    image_hidden_states (`tuple[torch.FloatTensor]`, *optional*):
        What each image gave to the language model, `(num_tokens, hidden_size)`.
    video_hidden_states (`tuple[torch.FloatTensor]`, *optional*):
        What each video gave to the language model, `(num_tokens, hidden_size)`.
    kept_tokens (`torch.LongTensor` of shape `(batch_size, num_left)`, *optional*):
        With `layer_compression`, the places in the sequence of the tokens that reached the last layer, whose states
        these are; -1 at padding. `None` where none fell away.
    """

    image_hidden_states: tuple[torch.FloatTensor] | None = None
    video_hidden_states: tuple[torch.FloatTensor] | None = None
    kept_tokens: torch.LongTensor | None = None


@auto_docstring
class FilaVideoPreTrainedModel(PreTrainedModel, FrameScoringMixin):
    config: FilaVideoConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @classmethod
    def is_custom_code(cls) -> bool:
        """
        Custom code is taken to overwrite weights that a checkpoint gave, so modules without parameters of their own
        are not initialized, SigLIP's attention among them. `_init_weights` here leaves loaded weights alone.
        """
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FilaVideoWeightedMerger):
            init.constant_(module.weight, 1 / module.weight.shape[0])  # equation 7
        elif isinstance(module, FilaVideoAttentionMerger):
            init.xavier_uniform_(module.query_weight)  # supplement C.1
            init.xavier_uniform_(module.key_weight)
        elif isinstance(module, FilaVideoBackgroundEncoder) and module.query is not None:
            init.zeros_(module.query)
        elif isinstance(module, FilaVideoModel) and module.image_newline is not None:
            init.normal_(module.image_newline, mean=0.0, std=module.image_newline.shape[0] ** -0.5)

    def encode_frames(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Patch features of frames, before merging and projection; a processor that is bound to the model selects
        scenes by them.

        Args:
            pixel_values (`torch.Tensor` of shape `(num_frames, channels, height, width)`):
                Normalized pixels at the vision tower's size, of any floating dtype.

        Returns:
            `torch.Tensor` of shape `(num_frames, num_patches, hidden_size)` in the vision tower's dtype. Their mean
            over the patches is the representative feature of equation 1.

        Raises:
            ValueError: If the tower gives another number of tokens than the grid has patches.
        """
        return self.base_model._encode_frames(pixel_values)[0]


@auto_docstring(custom_intro="FiLA-Video without its language modeling head.")
class FilaVideoModel(FilaVideoPreTrainedModel):
    def __init__(self, config: FilaVideoConfig) -> None:
        config.validate()  # again: a setting may have changed since it was made
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.scene_merger = self.background_encoder = self.cooperative_encoder = None
        # CODEPATH: DynFocus encodes every frame of the pool, FiLA-Video merges scenes, beside others if it has any.
        if config.frame_encoding == "cooperative":
            self.cooperative_encoder = FilaVideoCooperativeEncoder(config)
            self._keep_in_fp32_modules_strict = {"score_net"}  # scores of key frames are compared
            # Quantizers leave it alone too, and the weights of a few groups, which make no whole block.
            self._keep_in_fp32_modules = {"cooperative_encoder.score_net", "cooperative_encoder.group_weights"}
        else:
            self.scene_merger = SCENE_MERGERS[config.merger_type](config)
            self._keep_in_fp32_modules_strict = {"scene_merger"}  # which says why
            # CODEPATH: only models with background tokens have weights for them.
            self.background_encoder = FilaVideoBackgroundEncoder(config) if config.background_tokens else None
        self.multi_modal_projector = FilaVideoMultiModalProjector(config)
        self.image_newline = None
        # CODEPATH: LLaVA-Video checkpoints of the "no_token" kind have no newline embedding; all others have one.
        if config.newline_position != "none":
            self.image_newline = nn.Parameter(torch.empty(config.text_config.hidden_size))
        self.language_model = AutoModel.from_config(config.text_config)
        # A language model with code of its own may keep the old name.
        arguments = inspect.signature(self.language_model.forward).parameters
        self.cache_argument = "cache" if "cache" in arguments else "past_key_values"
        self.post_init()

    def _encode_frames(
        self, pixel_values: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, BaseModelOutputWithPooling]:
        """The patch features, and the tower's whole output for callers that asked for more of it."""
        num_layers = self.config.vision_config.num_hidden_layers
        layer = self.config.vision_feature_layer
        layer = layer if layer < 0 else layer - num_layers - 1
        # CODEPATH: SmolVLM and InternVL take what their towers give, LLaVA a state before the last norm.
        is_final = self.config.vision_final_norm
        # Whoever asks for some of them by number gets all, of which these numbers are true too.
        wants_all = bool(kwargs.get("output_hidden_states", self.config.vision_config.output_hidden_states))
        kwargs["output_hidden_states"] = wants_all
        if not (is_final or wants_all):
            # Of all hidden states only one is captured. Before `select_hidden_states` existed (transformers 5.23),
            # indices could not be negative and counted from the first layer's output.
            counts_all = hasattr(output_capturing, "select_hidden_states")
            kwargs["output_hidden_states"] = [layer if counts_all else num_layers + layer]

        outputs = self.vision_tower(pixel_values.to(dtype=self.vision_tower.dtype), return_dict=True, **kwargs)
        features = outputs.last_hidden_state if is_final else outputs.hidden_states[layer]
        if not wants_all:
            outputs.hidden_states = None
        if self.training:
            # What the tower computes behind the chosen state (SigLIP's last norm) has no gradient otherwise.
            for output in (outputs.last_hidden_state, outputs.pooler_output):
                features = features if output is None else features + output.mean() * 0
        # CODEPATH: CLIP's tower has a class token to drop, SigLIP's has none.
        if self.config.vision_feature_select_strategy == "default":
            features = features[:, 1:]
        if features.shape[1] != self.config.num_patches:
            raise ValueError(
                f"The vision tower gives {features.shape[1]} tokens a frame, but its grid has "
                f"{self.config.num_patches} patches. A tower with a class token needs "
                "`vision_feature_select_strategy='default'`, others 'full'."
            )
        return features, outputs

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        """The projector, as a function: accelerate would move a module that another one is given."""
        return self.multi_modal_projector(features)

    def _embed_frames(self, features: torch.Tensor, num_frames_each: list[int]) -> tuple[torch.Tensor, ...]:
        """Frames `(num_frames, num_patches, hidden_size)` to one `(num_tokens, hidden_size)` an image or video."""
        newline = own_parameter(self, "image_newline", features.device)
        return visual_tokens(features, num_frames_each, self.multi_modal_projector, newline, self.config)

    @can_return_tuple
    @auto_docstring(custom_intro="Encodes images as one-frame videos; the scene merger does not act on them.")
    def get_image_features(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | BaseModelOutputWithPooling:
        features, outputs = self._encode_frames(pixel_values, **kwargs)
        outputs.pooler_output = self._embed_frames(features, [1] * features.shape[0])
        return outputs

    @can_return_tuple
    @auto_docstring(
        custom_intro="Encodes videos, merges their scenes, projects and pools them.", custom_args=VIDEO_ARGS
    )
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
        video_num_scenes: torch.LongTensor | None = None,
        video_background_places: torch.LongTensor | None = None,
        video_question_ids: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        if (pixel_values_videos is None) == (frame_features is None):
            raise ValueError("Pass exactly one of `pixel_values_videos` and `frame_features`.")
        frames = pixel_values_videos if frame_features is None else frame_features
        scenes, num_scenes_each, background, places = split_frames(
            frames, video_num_scenes, video_background_places, self.config
        )
        if frame_features is None:
            features, outputs = self._encode_frames(torch.cat([scenes.flatten(0, 1), background]), **kwargs)
            features, background = features.split([len(features) - len(background), len(background)])
            scenes = features.unflatten(0, scenes.shape[:2])
        else:
            outputs = BaseModelOutputWithPooling()
        # CODEPATH: with DynFocus's cooperative encoding, a scene is a frame of the pool.
        if self.cooperative_encoder is not None:
            outputs.pooler_output = self.cooperative_encoder(
                scenes.flatten(0, 1),
                num_scenes_each,
                self._embed_questions(video_question_ids, len(num_scenes_each)),
                self._project,
                own_parameter(self, "image_newline", scenes.device),
            )
            return outputs
        videos = self._embed_frames(self.scene_merger(scenes), num_scenes_each)
        # CODEPATH: FiLA-Video drops the frames that are in no scene, DynFocus keeps a few tokens of each.
        if self.background_encoder is not None:
            tokens = self.background_encoder(background, self._project)
            tokens, has_end = tokens.split([len(row) for row in places]), self.config.newline_position == "video"
            parts = zip(videos, num_scenes_each, tokens, places, strict=True)
            videos = tuple(insert_background(*part, has_end) for part in parts)
        outputs.pooler_output = videos
        return outputs

    def _embed_questions(self, question_ids: torch.LongTensor | None, count: int) -> list[torch.Tensor | None]:
        """The embeddings of each video's question, `(num_tokens, hidden_size)`, where it has one."""
        if question_ids is None:
            return [None] * count
        if len(question_ids) != count:
            raise ValueError(f"`video_question_ids` has {len(question_ids)} questions, but there are {count} videos.")
        rows = [row[row >= 0] for row in question_ids]
        return [self.get_input_embeddings()(row) if len(row) else None for row in rows]

    def _is_placeholder(
        self, input_ids: torch.LongTensor | None, inputs_embeds: torch.FloatTensor | None, modality: str
    ) -> torch.BoolTensor:
        """Which tokens of `(batch_size, sequence_length)` stand for a visual; of embeddings, those of its token."""
        token_id = getattr(self.config, f"{modality}_token_id")
        if input_ids is not None:
            return input_ids == token_id
        token = torch.full((), token_id, dtype=torch.long, device=inputs_embeds.device)
        return (inputs_embeds == self.get_input_embeddings()(token)).all(-1)

    def refuse_missing_visuals(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor | None,
        given: Container[str],
        past_length: int | torch.Tensor = 0,
    ) -> None:
        """
        An answer about a video that never came would be invented, and so would a loss: refuses tokens, or embeddings
        where there are no `input_ids`, that hold placeholders of an `"image"` or `"video"` that is not `given`. With
        any tokens in the cache, `past_length`, the visuals are taken to be among them.
        """
        names = {"image": "`pixel_values`", "video": "`pixel_values_videos` (or `frame_features`)"}
        for modality, arguments in names.items():
            if modality in given:
                continue
            num_tokens = self._is_placeholder(input_ids, inputs_embeds, modality).sum()
            torch_compilable_check(
                (num_tokens == 0) | (past_length > 0),
                lambda num=num_tokens, modality=modality, arguments=arguments: (
                    f"The text holds {num} {modality} tokens, but no {modality} came with it. Pass {arguments} as the "
                    f"processor gives them for `{modality}s=...`. A trainer that keeps `input_ids` alone needs a "
                    "collator that makes the pixels: `fila_video.ChatCollator`."
                ),
            )

    def get_placeholder_mask(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor,
        features: torch.FloatTensor,
        modality: str,
    ) -> torch.BoolTensor:
        """
        Where in the embeddings the features go, `(batch_size, sequence_length, 1)`.

        Raises:
            ValueError: If the text has another number of `modality` tokens than there are features.
        """
        mask = self._is_placeholder(input_ids, inputs_embeds, modality)
        num_tokens = mask.sum()
        torch_compilable_check(
            num_tokens == features.shape[0],
            lambda: (
                f"{modality.capitalize()} features and {modality} tokens do not match, tokens: {num_tokens}, "
                f"features: {features.shape[0]}. Does the processor belong to this model, and was the text left "
                "whole? What a cache holds already is not passed again."
            ),
        )
        return mask.unsqueeze(-1)

    def _touch_unused(
        self, inputs_embeds: torch.Tensor, num_seen: int, has_image: bool, has_video: bool
    ) -> torch.Tensor:
        """
        Adds nothing, but keeps in the graph what a training batch does not use, where `num_seen` of images and videos
        came as pixels: DDP waits for every gradient, FSDP and ZeRO-3 for every process to run the tower as often.
        """
        encoders = [self.background_encoder]
        encoders += [] if has_video else [self.scene_merger, self.cooperative_encoder]
        unused = [parameter for part in encoders if part is not None for parameter in part.parameters()]
        if is_deepspeed_zero3_enabled() or any(hasattr(part, "unshard") for part in self.vision_tower.modules()):
            blank = inputs_embeds.new_zeros(1, 3, self.config.frame_side, self.config.frame_side)
            unused += [self.encode_frames(blank) for _ in range(2 - num_seen)]
        else:  # DINOv2 has a token for masks, which nothing uses
            unused += [each for name, each in self.vision_tower.named_parameters() if not num_seen or "mask_" in name]
        if not (has_image or has_video):
            unused += self.multi_modal_projector.parameters()
            unused += [] if self.image_newline is None else [self.image_newline]
        for values in unused:
            if values.requires_grad:
                inputs_embeds = inputs_embeds + (values.sum() * 0).to(inputs_embeds)
        return inputs_embeds

    @can_return_tuple
    @auto_docstring(custom_args=FORWARD_ARGS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        frame_features: torch.FloatTensor | None = None,
        video_num_scenes: torch.LongTensor | None = None,
        video_background_places: torch.LongTensor | None = None,
        video_question_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | FilaVideoModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if cache is not None and past_key_values is not None:
            raise ValueError("`cache` and `past_key_values` are two names of one argument: pass one.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        text_embeds = inputs_embeds
        encoded = {
            name: given.pooler_output for name, given in (mm_encoder_outputs or {}).items() if given is not None
        }
        images, videos = encoded.get("image"), encoded.get("video")
        if pixel_values is not None:
            if images is not None:
                raise ValueError("The images are given twice, encoded and not: leave out one.")
            images = self.get_image_features(pixel_values, return_dict=True).pooler_output
        if pixel_values_videos is not None or frame_features is not None:
            if videos is not None:
                raise ValueError("The videos are given twice, encoded and not: leave out one.")
            chosen = (pixel_values_videos, frame_features, video_num_scenes, video_background_places)
            videos = self.get_video_features(*chosen, video_question_ids, return_dict=True).pooler_output
        visuals = {name: each for name, each in (("image", images), ("video", videos)) if each is not None}
        for modality, each in visuals.items():
            features = torch.cat(each).to(inputs_embeds.device, inputs_embeds.dtype)
            mask = self.get_placeholder_mask(input_ids, inputs_embeds, features, modality)
            inputs_embeds = inputs_embeds.masked_scatter(mask.to(inputs_embeds.device), features)
        # Of embeddings alone a server has replaced the placeholders already; `generate` and training look at them too.
        # A single token, a step of decoding, is not looked at: on an accelerator looking means waiting.
        cached = past_key_values if cache is None else cache
        past_length = 0 if cached is None else cached.get_seq_length()
        is_prompt = self.training or (input_ids is not None and input_ids.shape[1] > 1)
        if is_prompt and not (isinstance(past_length, int) and past_length > 0):
            self.refuse_missing_visuals(input_ids, text_embeds, visuals, past_length)
        if self.training and torch.is_grad_enabled():
            is_given = frame_features is not None and not frame_features.requires_grad
            if is_given and any(parameter.requires_grad for parameter in self.vision_tower.parameters()):
                logger.warning_once(
                    "Videos came as features that are computed already, of which the vision tower learns nothing. To "
                    "train it too, set `processor.frame_encoder = None`."
                )
            num_seen = sum(pixels is not None for pixels in (pixel_values, pixel_values_videos))
            inputs_embeds = self._touch_unused(inputs_embeds, num_seen, images is not None, videos is not None)

        kept_tokens = None
        # CODEPATH: XComp's LP-Comp runs the layers itself, since tokens fall away between them.
        if self.config.layer_compression is None:
            outputs = self.language_model(
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                use_cache=use_cache,
                return_dict=True,
                **{self.cache_argument: cached},
                **kwargs,
            )
        else:
            is_video = self._is_placeholder(input_ids, text_embeds, "video")
            read = (inputs_embeds, videos, is_video, attention_mask, position_ids, cached, use_cache)
            outputs, kept_tokens = run_compressed(self.language_model, self.config, *read, **kwargs)
        return FilaVideoModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=images,
            video_hidden_states=videos,
            kept_tokens=kept_tokens,
            **{CACHE_ARGUMENT: outputs.get(CACHE_ARGUMENT)},
        )


@auto_docstring(custom_intro="FiLA-Video with its language modeling head: videos, images and text in, text out.")
class FilaVideoForConditionalGeneration(FilaVideoPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: FilaVideoConfig) -> None:
        super().__init__(config)
        # Under ZeRO-3 every module is made in full and shared out, also those on the meta device.
        if not is_deepspeed_zero3_enabled():
            check_head(config.text_config)
        self.model = FilaVideoModel(config)
        # CODEPATH: only DynFocus's cooperative encoding has a score net, whose scores stay in float32.
        if config.frame_encoding == "cooperative":
            self._keep_in_fp32_modules = {f"model.{name}" for name in self.model._keep_in_fp32_modules}
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @auto_docstring
    def get_image_features(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | BaseModelOutputWithPooling:
        return self.model.get_image_features(pixel_values, **kwargs)

    @auto_docstring(custom_args=VIDEO_ARGS)
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
        video_num_scenes: torch.LongTensor | None = None,
        video_background_places: torch.LongTensor | None = None,
        video_question_ids: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        chosen = (pixel_values_videos, frame_features, video_num_scenes, video_background_places)
        return self.model.get_video_features(*chosen, video_question_ids, **kwargs)

    @can_return_tuple
    @auto_docstring(custom_args=FORWARD_ARGS)
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        frame_features: torch.FloatTensor | None = None,
        video_num_scenes: torch.LongTensor | None = None,
        video_background_places: torch.LongTensor | None = None,
        video_question_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | FilaVideoCausalLMOutputWithPast:
        r"""
        logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
            Of the last so many positions, 0 for all; or of the positions in a 1-D tensor; or of those that are true in
            a `(batch_size, sequence_length)` one, whose logits are then `(num_true, vocab_size)` and go with
            `shift_labels` of `(num_true,)`.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            frame_features=frame_features,
            video_num_scenes=video_num_scenes,
            video_background_places=video_background_places,
            video_question_ids=video_question_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **kwargs,
        )
        if outputs.kept_tokens is not None:
            shifted = kwargs.get("shift_labels")
            whole = labels is not None and shifted is not None and shifted.shape == labels.shape
            labels, followed, logits_to_keep = follow_kept_tokens(
                outputs.kept_tokens, labels, shifted if whole else None, logits_to_keep
            )
            if whole:
                kwargs["shift_labels"] = followed
        if isinstance(logits_to_keep, int):
            kept = (slice(None), slice(-logits_to_keep, None))
        else:
            kept = logits_to_keep if logits_to_keep.ndim == 2 else (slice(None), logits_to_keep)
        logits = self.lm_head(outputs.last_hidden_state[kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return FilaVideoCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
            video_hidden_states=outputs.video_hidden_states,
            kept_tokens=outputs.kept_tokens,
            **{CACHE_ARGUMENT: getattr(outputs, CACHE_ARGUMENT)},
        )

    # What `generate` needs beside the forward: visuals encoded once, and a cache that fits.
    def _maybe_prepare_encoder_kwargs_for_generation(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config: GenerationConfig,
    ) -> dict[str, Any]:
        """Before the first step the whole prompt is known, in chunks or not: the place to refuse a blind answer."""
        model_kwargs = super()._maybe_prepare_encoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )
        encoded = model_kwargs.get("mm_encoder_outputs") or {}
        given = {name for name, outputs in encoded.items() if outputs is not None}
        cache = model_kwargs.get("cache", model_kwargs.get("past_key_values"))
        past_length = 0 if cache is None else int(cache.get_seq_length())
        # With a cache the prompt is the whole text or what is new in it.
        new = inputs_tensor[:, past_length:] if inputs_tensor.shape[1] > past_length else inputs_tensor
        ids, embeds = (None, new) if model_input_name == "inputs_embeds" else (new, None)
        self.model.refuse_missing_visuals(ids, embeds, given)
        has_slices = hasattr(generation_utils, "_slice_mm_encoder_output")
        if given and generation_config.prefill_chunk_size and not has_slices:
            raise ValueError(
                "This version of transformers drops images and videos where it reads a prompt in chunks: leave out "
                "`prefill_chunk_size`, or use transformers 5.23 or newer."
            )
        return model_kwargs

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        # CODEPATH: with XComp's LP-Comp, the layers of a model hold unequally many tokens, and so does the cache.
        if self.config.layer_compression is not None:
            for name in ("cache_implementation", "prefill_chunk_size"):
                value = getattr(generation_config, name, None)
                if value not in (None, "dynamic"):
                    raise ValueError(f"With `layer_compression`, `generate` knows no {name}={value!r}: leave it out.")
            if generation_config.use_cache is not False and model_kwargs.get(CACHE_ARGUMENT) is None:
                model_kwargs[CACHE_ARGUMENT] = CompressedCache(self.config.text_config)
                return
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> dict:
        for name in ("pixel_values", *VIDEO_INPUTS):
            if name in model_kwargs and model_kwargs[name] is None:
                model_kwargs.pop(name)
        # A copy, since what is encoded here is written into it, and the caller may use it once more.
        encoded = model_kwargs["mm_encoder_outputs"] = dict(model_kwargs.get("mm_encoder_outputs") or {})
        if "frame_features" in model_kwargs:
            if encoded.get("video") is not None:
                raise ValueError("The videos are given twice, encoded and not: leave out one.")
            # The library looks for pixels only.
            video = {name: model_kwargs.pop(name) for name in VIDEO_INPUTS if name in model_kwargs}
            encoded["video"] = self.get_video_features(**video, return_dict=True)
        return super()._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What one step reads. A drafting model's first step is not called the first, and would lose the visuals."""
        if not is_first_iteration and next_sequence_length != 1 and kwargs.get("mm_encoder_outputs"):
            cache = kwargs.get(CACHE_ARGUMENT)
            is_first_iteration = cache is not None and int(cache.get_seq_length()) == 0
        return super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )

    def _expand_multimodal_outputs(
        self,
        input_ids: torch.LongTensor | None,
        mm_encoder_output: dict,
        expand_size: int = 1,
        inputs_embeds: torch.FloatTensor | None = None,
    ) -> dict:
        """
        Beams and several answers: each copy of a prompt gets the prompt's own images and videos, in their order.
        (transformers 5.18 repeats each one in place, so that a prompt's first video takes the place of its second.)
        """
        if input_ids is not None and input_ids.numel() == 0:
            input_ids = None
        for modality in ("image", "video"):
            outputs = mm_encoder_output.get(modality)
            if outputs is None:
                continue
            visuals = list(outputs.pooler_output)
            mask = self.model.get_placeholder_mask(input_ids, inputs_embeds, torch.cat(visuals), modality)
            expanded = []
            # Which visuals are a prompt's only its placeholders tell: as many, from the first left, as fill them.
            for num_tokens in mask.flatten(1).sum(-1).tolist():
                sizes = [len(visual) for visual in visuals]
                count = next((n for n in range(len(sizes) + 1) if sum(sizes[:n]) == num_tokens), None)
                if count is None:
                    raise ValueError(
                        f"A prompt has {num_tokens} {modality} tokens, but the {modality}s from its first one on give "
                        f"{sizes}: no number of them fills it."
                    )
                expanded += visuals[:count] * expand_size
                visuals = visuals[count:]
            # The caller may use what was passed once more.
            copies = type(outputs)(**{**outputs, "pooler_output": tuple(expanded)})
            mm_encoder_output = {**mm_encoder_output, modality: copies}
        return mm_encoder_output


FilaVideoForConditionalGeneration.register_for_auto_class("AutoModel")

__all__ = ["FilaVideoForConditionalGeneration", "FilaVideoModel", "FilaVideoPreTrainedModel"]
