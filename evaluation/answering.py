"""Answers many questions about each medium: a video's frames are read and encoded once, whatever is asked of them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..processing_fila_video import FilaVideoProcessor
from ..question_selection_fila_video import relevance, relevant_frames
from ..scene_selection_fila_video import (
    background_places,
    frame_weights,
    scenes_of,
    thin_pool,
    unselected_frames,
)
from ..video_pool_fila_video import thumbnails
from ..video_prompt_fila_video import VideoPrompt, prompt_of_question
from .records import Record
from .selections import AnySelection, ByQuestion, Precomputed, Recall, Selection, event_recall

BATCH_TOKENS = 32768  # of prompts that are answered at once
BY_TIME = ("uniform", "bsm")  # selections of the processor that read other frames than those that look at them


@dataclass
class Pool:
    """A video's candidate frames, uint8 `(num_frames, 3, height, width)`, and the reader's metadata."""

    frames: torch.Tensor
    metadata: object


@dataclass
class Prompt:
    """The text with its placeholders filled in; `visual` `(num_tokens, hidden_size)` goes in their place."""

    text: str
    visual: torch.Tensor | None = None
    modality: str = "video"
    is_long: bool = False  # of its answer: short ones need not wait for it


class Answerer:
    """
    A model with its processor. The prompts are those of the `video-text-to-text` pipeline and the answers those of the
    model's own `generate`, without sampling.

    Args:
        num_scenes (`int`, *optional*): By default the processor's, as are the pool's settings and the seed.
        max_new_tokens (`int`, *optional*): By default the model's.
        encoded_candidates (`int`, *optional*):
            Frames to which pools are thinned before scenes are selected from them; by default the processor's.
    """

    def __init__(
        self,
        model: FilaVideoForConditionalGeneration,
        processor: FilaVideoProcessor,
        num_scenes: int | None = None,
        max_new_tokens: int | None = None,
        encoded_candidates: int | None = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.encoded_candidates = processor.encoded_candidates if encoded_candidates is None else encoded_candidates
        self.num_scenes = processor.num_scenes if num_scenes is None else num_scenes
        self.options = {"do_sample": False, "num_beams": 1}
        if max_new_tokens is not None:
            self.options["max_new_tokens"] = max_new_tokens
        processor.bind(model)  # checks that they fit
        processor.video_processor.scene_settings(
            num_scenes=self.num_scenes, encoded_candidates=self.encoded_candidates
        )  # checks the numbers before anything is read
        self._blind: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """Tells a model from another of its name: of its configuration and the first 64 values of each weight."""
        config = {**self.model.config.to_dict(), "transformers_version": None, "_name_or_path": None}
        digest = hashlib.sha256(json.dumps(config, default=str).encode())
        for weight in self.model.state_dict().values():
            digest.update(weight.flatten()[:64].float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def settings(self) -> dict:
        """What answers depend on beside the model: how videos are read, scenes selected and prompts written."""
        videos = self.processor.video_processor
        scenes = videos.scene_settings(num_scenes=self.num_scenes, encoded_candidates=self.encoded_candidates)
        prompt = {field.name: getattr(self.processor, field.name) for field in fields(VideoPrompt)}
        reading = {name: getattr(videos, name) for name in ("size", "do_resize", "num_frames", "fps")}
        chat = hashlib.sha256(str(self.processor.chat_template).encode()).hexdigest()[:16]
        generation = {**self.model.generation_config.to_diff_dict(), "transformers_version": None}
        settings = {**asdict(scenes), **prompt, **reading, **self.options}
        settings |= {"chat_template": chat, "generation": generation}
        return json.loads(json.dumps(settings, default=dict))  # as they are read from a file

    def read(self, record: Record, selection: AnySelection | None = None) -> Pool:
        """
        The video's pool that the pipeline reads for a `selection`, by default the processor's own; see `load_video` of
        the video processor for its errors.
        """
        settings = {"num_scenes": self.num_scenes, "selection": self._reads_as(selection)}
        return Pool(*self.processor.video_processor.load_video(record.path, **settings))

    def pool_settings(self, selection: AnySelection, duration: float | None) -> str:
        """
        What decides the pool that [`read`] gives of a video of `duration` seconds: where it is the same, selections,
        and models whose videos are read alike, share the pool.
        """
        videos, method = self.processor.video_processor, self._reads_as(selection)
        pool = videos.scene_settings(num_scenes=self.num_scenes, selection=method)
        reading = [videos.size, videos.do_resize, videos.num_frames, videos.fps, pool.seek_mode]
        if videos.num_frames is None and videos.fps is None:
            reading += [pool.num_candidates(duration), pool.num_dense(duration)]
            other = method == "uniform" and pool.even_frames != "ends"
            reading += [pool.even_frames, pool.candidate_fps] if other else []
        return repr(reading)

    def _reads_as(self, selection: AnySelection | None) -> str:
        """The selection of the processor for which a pool is read: those that look at frames share one."""
        method = self.processor.video_processor.selection if selection is None else selection.method
        return method if method in BY_TIME else "kmeans"

    @torch.no_grad()
    def encode(self, pool: Pool) -> torch.Tensor:
        """Patch features `(num_frames, num_patches, hidden_size)` of a pool."""
        batches = pool.frames.split(self.processor.video_processor.frame_batch_size)
        pixels = (self.processor.video_processor.pixels(batch, self.model.device) for batch in batches)
        return torch.cat([self.model.encode_frames(batch) for batch in pixels])

    @torch.no_grad()
    def about_video(
        self,
        record: Record,
        pool: Pool,
        features: torch.Tensor,
        selection: AnySelection,
    ) -> tuple[list[Prompt], Recall]:
        """
        The prompts of all questions about a video with one selection, and what this finds of the events; where each
        question chooses its scenes, what all of them find together of what each might.
        """
        scene_size = self.processor.scene_size
        representatives = features.float().mean(dim=1)
        kept = torch.arange(len(representatives))
        wanted = self.num_scenes * scene_size
        if self.encoded_candidates is not None and selection.method not in (*BY_TIME, "precomputed"):
            kept = thin_pool(thumbnails(pool.frames), max(self.encoded_candidates, wanted))
        counted = len(record.questions) if isinstance(selection, ByQuestion) else 1
        if len(kept) <= wanted and not (isinstance(selection, Precomputed) or getattr(selection, "single", False)):
            selection = Selection("uniform")  # all of them, as the processor does
        if self.processor.frame_encoding == "cooperative":
            return self._about_frames(record, pool, features, kept)
        if isinstance(selection, ByQuestion):
            scenes = self._asked_scenes(record, pool, features[kept.to(features.device)], kept, selection)
            asked = zip(record.questions, scenes, strict=True)
            each = [
                self._about_scenes(replace(record, questions=[question]), pool, features, kept, chosen)
                for question, chosen in asked
            ]
            return [prompts[0] for prompts, _ in each], sum((recall for _, recall in each), Recall())
        weights = frame_weights(thumbnails(pool.frames[kept])) if "farthest" in selection.method else None
        chosen = selection.scenes(representatives[kept], self.num_scenes, scene_size, self.processor.seed, weights)
        prompts, recall = self._about_scenes(record, pool, features, kept, chosen)
        return prompts, sum([recall] * counted, Recall())  # as often as where each question chooses

    def _asked_scenes(
        self, record: Record, pool: Pool, features: torch.Tensor, kept: torch.Tensor, selection: ByQuestion
    ) -> list[torch.Tensor]:
        """The scenes that each question chooses among the frames `kept`, whose features these are."""
        processor, means = self.processor, features.float().mean(dim=1)
        times = torch.tensor(pool.metadata.timestamps, dtype=torch.float64)[kept]
        tokens = self.model.tokens_for_scoring(features, selection.question_tokens or processor.question_tokens)

        def scores(text: str) -> torch.Tensor:
            prompt = prompt_of_question(
                text, processor.tokenizer, processor.video_token, processor.apply_chat_template
            )
            return self.model.score_tokens(tokens, *prompt, layers=selection.question_layers)

        neutral = [scores(selection.neutral_question)] if selection.neutral_question else []
        chosen = []
        for question in record.questions:
            found = relevance(scores(question.text), *neutral)
            frames = relevant_frames(
                found,
                times,
                means,
                self.num_scenes,
                diversity=selection.question_diversity,
                spacing=selection.question_spacing,
                context=selection.question_context,
                min_rise=selection.question_min_rise,
                seed=processor.seed,
            )
            chosen.append(scenes_of(means, frames, processor.scene_size))
        return chosen

    def _about_scenes(
        self, record: Record, pool: Pool, features: torch.Tensor, kept: torch.Tensor, chosen: torch.Tensor
    ) -> tuple[list[Prompt], Recall]:
        """The same with the scenes `chosen` among the frames `kept`."""
        settings = self.processor.video_processor.scene_settings(num_scenes=self.num_scenes)
        indices, others = kept[chosen], unselected_frames(chosen, len(kept), settings.num_background_frames(len(kept)))
        frames = torch.cat([indices.flatten(), kept[others]]).to(features.device)
        return self.about_scenes(record, pool.metadata, features[frames], indices, kept[others])

    @torch.no_grad()
    def about_scenes(
        self, record: Record, metadata: object, features: torch.Tensor, indices: torch.Tensor, background: torch.Tensor
    ) -> tuple[list[Prompt], Recall]:
        """
        [`about_video`] with scenes that the processor's selector has chosen.

        Args:
            record (`Record`): The video and its questions.
            metadata (`TimedVideoMetadata`): Of the pool.
            features (`torch.Tensor` of shape `(num_frames, num_patches, hidden_size)`):
                Patch features of the scenes' frames, and behind them of the background's.
            indices (`torch.Tensor` of shape `(num_scenes, scene_size)`): The scenes' frames in the pool.
            background (`torch.Tensor` of shape `(num_background,)`): The background's.
        """
        times = torch.tensor(metadata.timestamps, dtype=torch.float64)[indices]
        scenes = {"indices": indices, "timestamps": times, "duration": float(metadata.duration)}
        layout = {"video_background_places": background_places(indices, background)[None]} if len(background) else {}
        outputs = self.model.get_video_features(frame_features=features[None], **layout, return_dict=True)
        filling = self.processor.replace_video_token({"scenes": [scenes], **layout}, 0)
        visuals = [outputs.pooler_output[0]] * len(record.questions)
        return self._prompts(record, filling, visuals, "video"), event_recall(record.events, times)

    def _about_frames(
        self, record: Record, pool: Pool, features: torch.Tensor, kept: torch.Tensor
    ) -> tuple[list[Prompt], Recall]:
        """The same with cooperative encoding: every question has visual tokens of its own, of all frames `kept`."""
        features = features[kept.to(features.device)]
        times = torch.tensor(pool.metadata.timestamps, dtype=torch.float64)[kept, None]
        frames = {"indices": kept[:, None], "timestamps": times}
        scenes = {**frames, "duration": float(pool.metadata.duration)}
        visuals = []
        for question in record.questions:
            ids = self.processor.tokenizer(question.text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            outputs = self.model.get_video_features(
                frame_features=features[None], video_question_ids=ids.to(features.device), return_dict=True
            )
            visuals.append(outputs.pooler_output[0])
        filling = self.processor.replace_video_token({"scenes": [scenes]}, 0)
        prototypes, chosen, _ = self.model.model.cooperative_encoder.choose_key_frames(features)
        seen = event_recall(record.events, times[prototypes[chosen].cpu()])
        return self._prompts(record, filling, visuals, "video"), seen

    @torch.no_grad()
    def about_image(self, record: Record) -> list[Prompt]:
        """The prompts of all questions about an image."""
        pixels = self.processor(images=[str(record.path)], return_tensors="pt")["pixel_values"]
        outputs = self.model.get_image_features(pixels.to(self.model.device), return_dict=True)
        visuals = [outputs.pooler_output[0]] * len(record.questions)
        return self._prompts(record, self.processor.replace_image_token({}, 0), visuals, "image")

    def _prompts(self, record: Record, filling: str, visuals: list[torch.Tensor], modality: str) -> list[Prompt]:
        token = self.processor.video_token if modality == "video" else self.processor.image_token
        texts = [self._chat([{"type": modality}, {"type": "text", "text": q.text}]) for q in record.questions]
        long = [question.kind == "caption" for question in record.questions]
        return [
            Prompt(text.replace(token, filling, 1), visual, modality, is_long)
            for text, visual, is_long in zip(texts, visuals, long, strict=True)
        ]

    def _chat(self, content: list[dict]) -> str:
        chat = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def blind(self, questions: Iterable[str]) -> list[str]:
        """The answers to the questions alone, without their media."""
        questions = list(questions)
        new = [question for question in dict.fromkeys(questions) if question not in self._blind]
        prompts = [Prompt(self._chat([{"type": "text", "text": question}])) for question in new]
        self._blind |= dict(zip(new, self.answer(prompts), strict=True))
        return [self._blind[question] for question in questions]

    def answer(self, prompts: list[Prompt]) -> list[str]:
        """The answers; prompts of one kind go through the model side by side, as many as `BATCH_TOKENS` allow."""
        texts = [prompt.text for prompt in prompts]
        lengths = [len(ids) for ids in self.processor.tokenizer(texts)["input_ids"]] if texts else []
        context = min(self.processor.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
        if max(lengths, default=0) > context:
            raise ValueError(
                f"A prompt takes {max(lengths)} tokens with its video, but the model's context has {context}: lower "
                "the number of scenes."
            )
        batches: dict[tuple, list[list[int]]] = {}
        for place, prompt in enumerate(prompts):
            batch = batches.setdefault((prompt.visual is None, prompt.modality, prompt.is_long), [[]])
            if (len(batch[-1]) + 1) * max(lengths[other] for other in [*batch[-1], place]) > BATCH_TOKENS and batch[
                -1
            ]:
                batch.append([])
            batch[-1].append(place)
        answers = [""] * len(prompts)
        for places in (places for batch in batches.values() for places in batch):
            for place, answer in zip(places, self._generate([prompts[place] for place in places]), strict=True):
                answers[place] = answer
        return answers

    @torch.no_grad()
    def _generate(self, prompts: list[Prompt]) -> list[str]:
        inputs = self.processor.tokenizer(
            [prompt.text for prompt in prompts], padding=True, padding_side="left", return_tensors="pt"
        ).to(self.model.device)
        visuals = {}
        if prompts[0].visual is not None:
            outputs = BaseModelOutputWithPooling(pooler_output=tuple(prompt.visual for prompt in prompts))
            visuals["mm_encoder_outputs"] = {prompts[0].modality: outputs}
        generated = self.model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **visuals, **self.options
        )
        new = generated[:, inputs["input_ids"].shape[1] :]
        return self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)


__all__ = ["Answerer", "Pool", "Prompt"]
