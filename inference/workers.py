"""What answers: a model in this process, or vLLM's engine. Made once a worker, then called with videos' questions."""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .options import check_options
from .output import Answered
from .questions import Asked, VideoQuestions

VLLM_FRAMES = 512  # that its loader hands over of each video, for scenes to be selected from


@dataclass(frozen=True)
class MakeWorker:
    """
    Makes the task of a worker: a class, since processes pickle it.

    Args:
        engine (`str`): `"vllm"`, or another for a model of this package.
        model (`str`): Folder or Hub name.
        device (`str`, *optional*): By default each worker takes the next GPU, or the best device there is.
        dtype (`str`, *optional*): Of the weights, as in `load_model`.
        batch_size (`int`): Answers that are generated side by side.
        threads (`int`, *optional*): Of a worker on the CPU.
        options (`dict`): Of the processor and of `generate`, as the pipeline takes them.
    """

    engine: str
    model: str
    device: str | None
    dtype: str | None
    batch_size: int
    threads: int | None
    options: dict

    def __call__(self, number: int) -> "PipelineWorker | VllmWorker":
        if self.engine == "vllm":
            return VllmWorker(self.model, self.options)
        import torch

        from ..commands.loading import find_device, load_pipeline, quiet

        quiet()
        device = self.device
        if device is None and torch.cuda.is_available():
            device = f"cuda:{number % torch.cuda.device_count()}"
        if self.threads is not None and find_device(device).type == "cpu":
            torch.set_num_threads(self.threads)
        return PipelineWorker(load_pipeline(self.model, device, self.dtype), self.batch_size, self.options)


class PipelineWorker:
    """Answers with a `video-text-to-text` pipeline; each video is read and encoded once for all its questions."""

    def __init__(self, pipe: Any, batch_size: int, options: dict) -> None:
        check_options(options, pipe)  # of a model that was loaded here, they could not be before
        self.pipe, self.batch_size = pipe, batch_size
        preprocess, self.forward, _ = pipe._sanitize_parameters(**options)
        self.reading = preprocess.get("processor_kwargs", {})

    def __call__(self, videos: list[VideoQuestions]) -> list[Answered]:
        answers, batch = {}, []
        for video in videos:
            for asked, inputs, error in self._prepare(video):
                if error is not None:
                    answers[asked.id] = Answered(asked.id, asked.question, error=error)
                    continue
                batch.append((asked, *inputs))
                if len(batch) == self.batch_size:  # no more inputs than that are held: each may take 100 MB
                    answers |= self._answer(batch)
                    batch = []
        if batch:
            answers |= self._answer(batch)
        return [answers[asked.id] for video in videos for asked in video.asked]

    def _answer(self, batch: list[tuple[Asked, Any, int]]) -> dict[str, Answered]:
        return {
            asked.id: Answered(asked.id, asked.question, answer, error, left_out)
            for (asked, _, left_out), (answer, error) in zip(batch, self._generate(batch), strict=True)
        }

    def _prepare(self, video: VideoQuestions) -> Iterator[tuple[Asked, Any, str | None]]:
        """The model's inputs for each question, with the lines of subtitles left out; or what is wrong."""
        from ..encoded_video_fila_video import HANDLING, PIXEL_SETTINGS, POOL_SETTINGS
        from ..frame_selector_fila_video import SceneSettings
        from ..subtitles_fila_video import read_subtitles
        from ..video_inputs_fila_video import clip_of

        processor = self.pipe.processor
        yield from ((asked, None, asked.error) for asked in video.asked if asked.error is not None)
        good = [asked for asked in video.asked if asked.error is None]
        if not good:
            return
        settings, reading = dict(video.settings), {**self.reading, "return_scenes": True}
        words = settings.pop("subtitles", reading.get("subtitles"))
        try:
            source = clip_of({"video": video.video, **settings})
            if words is not None:
                access = processor.video_processor.access(**reading)
                reading["subtitles"] = read_subtitles(words, source, **access)
            if len(good) > 1:  # one question is asked of the video itself, which need not be kept
                names = {*PIXEL_SETTINGS, *POOL_SETTINGS, *HANDLING, *SceneSettings.__dataclass_fields__}
                source = processor.encode_video(source, **{name: reading[name] for name in names & reading.keys()})
        except Exception as error:
            message = _message(error)
            yield from ((asked, None, message) for asked in good)
            return
        for asked in good:
            try:
                inputs = self.pipe.preprocess({"videos": source, "text": asked.question}, processor_kwargs=reading)
                left_out = inputs["scenes"][0].get("subtitles_left_out", 0)
                row = (asked, (inputs["model_inputs"], left_out), None)
            except Exception as error:
                row = (asked, None, _message(error))
            yield row

    def _generate(self, batch: list[tuple[Asked, Any, int]]) -> list[tuple[str | None, str | None]]:
        import torch

        # With sampling, an answer depends on its question, not on what was answered before a run was broken off.
        torch.manual_seed(zlib.crc32(batch[0][0].id.encode()))
        columns = {name: [None] * len(batch) for name in ("scenes", "error")}
        columns |= {"model_inputs": [row[1] for row in batch], "text": [row[0].question for row in batch]}
        try:
            outputs = self.pipe.forward(columns, **self.forward)
        except Exception as error:
            message = _message(error)
            if len(batch) == 1:
                return [(None, message)]
            return [answer for row in batch for answer in self._generate([row])]
        answers = []
        for generated, prompt in zip(outputs["generated_sequence"], outputs["input_ids"], strict=True):
            new = generated[0, prompt.shape[-1] :]
            answers.append((self.pipe.processor.tokenizer.decode(new, skip_special_tokens=True), None))
        return answers


def _message(error: Exception) -> str:
    """
    What a row says of its error.

    Raises:
        RuntimeError: Where the device is lost: no later row can be answered, and none shall be blamed.
    """
    if "CUDA error" in str(error):
        raise RuntimeError(f"The device failed, start again: {error}") from error
    expected = isinstance(error, (ValueError, OSError))
    return str(error) if expected and str(error) else f"{type(error).__name__}: {error}"


class VllmWorker:
    """
    Answers with vLLM's offline engine. Its loader reads the videos, and scenes are selected by thumbnails.

    Raises:
        ValueError: If vLLM is not installed, or an option is none that it knows.
    """

    def __init__(self, model: str, options: dict) -> None:
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise ValueError("The engine 'vllm' takes vLLM: pip install vllm in an environment of its own.") from error
        options = dict(options)
        limit = options.pop("max_new_tokens", None)
        limit = _saved_limit(model) if limit is None else int(limit)
        known = {"num_scenes", "selection", "candidate_fps", "min_candidates", "max_candidates", "seed"}
        if unknown := options.keys() - known:
            raise ValueError(f"With the engine 'vllm' there is no option {', '.join(sorted(unknown))}.")
        self.sampling = SamplingParams(temperature=0.0, max_tokens=limit)
        self.llm = LLM(
            model,
            trust_remote_code=True,
            model_impl="transformers",
            hf_overrides={"auto_map": {"AutoModel": "modeling_fila_video.FilaVideoModel"}},
            limit_mm_per_prompt={"video": 1, "image": 0},
            media_io_kwargs={"video": {"num_frames": VLLM_FRAMES}},
            mm_processor_kwargs=options or None,
            allowed_local_media_path="/",
            max_num_batched_tokens=8192,
            seed=0,
        )

    def __call__(self, videos: list[VideoQuestions]) -> list[Answered]:
        chats, rows = [], []
        for video in videos:
            for asked in video.asked:
                error = asked.error
                if error is None and video.settings:
                    error = f"The engine 'vllm' knows no {', '.join(video.settings)}: cut the clip, or use another."
                if error is None:
                    try:
                        url = _url(video.video)
                    except Exception as problem:  # no file can have this name, or links go in a circle
                        error = _message(problem)
                rows.append([asked.id, asked.question, None, error])
                if error is None:
                    content = [
                        {"type": "video_url", "video_url": {"url": url}},
                        {"type": "text", "text": asked.question},
                    ]
                    chats.append((rows[-1], [{"role": "user", "content": content}]))
        self._answer(chats)
        return [Answered(*row) for row in rows]

    def _answer(self, chats: list[tuple[list, list[dict]]]) -> None:
        if not chats:
            return
        try:
            outputs = self.llm.chat([chat for _, chat in chats], self.sampling, use_tqdm=False)
        except Exception as error:
            # One bad video fails the call: each alone shows which it was. An engine that is dead answers none.
            if type(error).__name__ == "EngineDeadError":
                raise RuntimeError(f"vLLM's engine failed, start again: {error}") from error
            if len(chats) == 1:
                chats[0][0][3] = _message(error)
            else:
                for chat in chats:
                    self._answer([chat])
            return
        for (row, _), output in zip(chats, outputs, strict=True):
            row[2] = output.outputs[0].text

    def close(self) -> None:
        """Ends the engine's processes."""
        self.llm.llm_engine.engine_core.shutdown()


def _url(video: str) -> str:
    if "://" in video or video[:5].lower() == "data:":
        return video
    return "file://" + quote(os.fsencode(Path(video).resolve()))  # also of a name that is not UTF-8


def _saved_limit(model: str) -> int | None:
    """The length of an answer that the model's own settings give, also of a name of the Hub."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(model).max_new_tokens
    except OSError:  # it has none
        return None


__all__ = ["MakeWorker", "PipelineWorker", "VllmWorker"]
