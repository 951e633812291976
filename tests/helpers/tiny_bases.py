"""Models of a few thousand random parameters of the other bases, with their processors, as transformers saves them."""

from dataclasses import dataclass
from pathlib import Path

from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaNextImageProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2Config,
    Qwen3Config,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    set_seed,
)
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

from helpers.tiny_checkpoints import TEXT, randomise, tiny_tokenizer

SIDE = 24  # pixels, six patches
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 4,
}
MEAN, STD = [0.4, 0.5, 0.6], [0.3, 0.5, 0.7]
SQUARE = {"size": {"height": SIDE, "width": SIDE}, "image_mean": MEAN, "image_std": STD}
# Of SmolVLM2's repositories, which knows no videos; and as those of InternVL and LLaVA-NeXT-Video write chats.
SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
INTERN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}"
    "{{ '<video>\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VICUNA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<image>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif message['role'] == 'assistant' %}{% generation %}{{ content['text'] + ' ' }}{% endgeneration %}"
    "{% elif content['type'] == 'text' %}{{ content['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass
class Base:
    """A source: its model, its processor, and how it is asked for frames that are given as they are."""

    model: PreTrainedModel
    processor: ProcessorMixin

    def save(self, folder: Path) -> Path:
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        return folder

    @property
    def placeholder(self) -> str:
        """What it writes for an embedding of a video."""
        return getattr(
            self.processor, "video_token" if hasattr(self.model.config, "video_token_id") else "image_token"
        )


def smolvlm(tie: bool = False, spare_rows: int = 0) -> Base:
    tokenizer = tiny_tokenizer("<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>")
    set_seed(0)
    config = SmolVLMConfig(
        vision_config=SmolVLMVisionConfig(**VISION),
        text_config=LlamaConfig(
            **TEXT | {"vocab_size": len(tokenizer) + spare_rows}, pad_token_id=256, tie_word_embeddings=tie
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=256,
        scale_factor=2,
        tie_word_embeddings=tie,
    )
    model = SmolVLMForConditionalGeneration(config).eval()
    end = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=256)
    randomise(model)
    pixels = {"max_image_size": {"longest_edge": SIDE}, "image_mean": MEAN, "image_std": STD}
    video_size = {"longest_edge": SIDE}
    sampling = {"fps": 1, "max_frames": 12, "video_size": video_size}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**pixels, size=video_size, do_image_splitting=False),
        tokenizer,
        SmolVLMVideoProcessor(**pixels, video_sampling=sampling),
        image_seq_len=9,
        chat_template=SMOL_TEMPLATE,
    )
    return Base(model, processor)


def internvl(tie: bool = False, qwen3: bool = False, as_pairs: bool = True) -> Base:
    names = {"start_image": "<img>", "end_image": "</img>", "context_image": "<IMG_CONTEXT>", "video": "<video>"}
    tokenizer = tiny_tokenizer(*names.values(), **{f"{name}_token": token for name, token in names.items()})
    set_seed(0)
    text = TEXT | {"vocab_size": len(tokenizer) + 1, "tie_word_embeddings": tie}
    vision = VISION | ({"image_size": (SIDE, SIDE), "patch_size": (4, 4)} if as_pairs else {})
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**vision),
        text_config=Qwen3Config(**text, head_dim=8) if qwen3 else Qwen2Config(**text),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=9,
        tie_word_embeddings=tie,
    )
    model = InternVLForConditionalGeneration(config).eval()
    randomise(model)
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(**SQUARE, crop_to_patches=False),
        tokenizer,
        InternVLVideoProcessor(**SQUARE),
        image_seq_length=9,
        chat_template=INTERN_TEMPLATE,
    )
    return Base(model, processor)


def llava_next_video(tie: bool = False, mode: str = "average") -> Base:
    tokenizer = tiny_tokenizer("<image>", "<video>")
    set_seed(0)
    config = LlavaNextVideoConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT, tie_word_embeddings=tie),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[SIDE, SIDE]],
        spatial_pool_mode=mode,
        tie_word_embeddings=tie,
    )
    model = LlavaNextVideoForConditionalGeneration(config).eval()
    randomise(model)
    processor = LlavaNextVideoProcessor(
        LlavaNextVideoVideoProcessor(
            **SQUARE | {"size": {"shortest_edge": SIDE}}, crop_size={"height": SIDE, "width": SIDE}
        ),
        LlavaNextImageProcessor(**SQUARE),
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        chat_template=VICUNA_TEMPLATE,
        num_additional_image_tokens=1,
    )
    return Base(model, processor)
