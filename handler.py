"""Answers requests of Hugging Face's Inference Endpoints, which find this file in a repository by its name."""

import base64
import re
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

MEDIA_KEYS = ("video", "videos", "video_url", "image", "image_url", "url", "base64")
# What a request may not decide, since it could reach into the server or needs an object of Python.
SERVICE_SETTINGS = {"limits", "allow_private_hosts", "progress", "device", "return_tensors", "return_metadata"}
# Nor what a video may cost in memory and time: which frames are decoded, and how long the text about each is.
SERVICE_SETTINGS |= {"max_candidates", "num_frames", "fps", "do_sample_frames", "size", "do_resize", "crop_size"}
SERVICE_SETTINGS |= {"frame_batch_size", "max_feature_bytes", "hwaccel"}
SERVICE_SETTINGS |= {"candidate_fps", "min_candidates", "seek_mode", "time_template"}
# What it may decide of `generate`: how an answer is chosen, not how it is computed.
CHOOSING = {"max_new_tokens", "max_length", "min_new_tokens", "min_length", "max_time", "stop_strings"}
CHOOSING |= {"num_beams", "num_return_sequences", "early_stopping", "length_penalty", "do_sample", "temperature"}
CHOOSING |= {"top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty"}
CHOOSING |= {"no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias"}
CHOOSING |= {"exponential_decay_length_penalty"}
MOST_INPUTS = MOST_MEDIA = 32
# By its head or ending, or as base64 the first bytes of PNG, JPEG or WebP: of a list of these, each is a frame of one
# video. Of a film of any length, no more pictures are read than there are candidates.
PICTURE = re.compile(
    r"(?i:data:image/(?!gif)|https?://[^?#]+\.(?:png|jpe?g|webp|bmp)(?:[?#]|$))|"
    "iVBORw0KGgo|/9j/|UklGR.{6}XRUJQ"
)
# `max_length` counts the prompt too, so that no answer is longer than by `max_new_tokens`.
LARGEST = {"max_new_tokens": 4096, "max_length": 4096, "num_beams": 8, "num_return_sequences": 8}
# transformers makes a table of all tokens by all letters of all of these.
MOST_STOPS, LONGEST_STOP = 16, 64
MORE_SCENES = 2  # times those of the saved settings: a pool has at least as many frames as all scenes need


class EndpointHandler:
    """
    The `video-text-to-text` pipeline behind a web server. Media come as `http` or `https` URLs or as base64, with or
    without a `data:` head; files of the server are never read, and URLs may not lead into its private network.

    Args:
        path (`str`, *optional*): The repository's folder, by default the one of this file.
    """

    def __init__(self, path: str = "") -> None:
        self.pipeline = pipeline(
            "video-text-to-text",
            model=path or str(Path(__file__).parent),
            trust_remote_code=True,  # the code beside this file
            device=0 if torch.cuda.is_available() else -1,
            # Many CPUs compute in two bytes several times more slowly.
            dtype="auto" if torch.cuda.is_available() else "float32",
        )
        processor = self.pipeline.processor
        videos_kwargs = processor.valid_processor_kwargs.__annotations__["videos_kwargs"].__annotations__
        self.options = CHOOSING | (set(videos_kwargs) - SERVICE_SETTINGS)
        self.largest = {**LARGEST, "num_scenes": MORE_SCENES * processor.num_scenes}
        saved = {name: getattr(processor, name) for name in ("question_tokens", "encoded_candidates")}
        self.largest |= {name: value for name, value in saved.items() if value is not None}
        # One compares all candidates, whatever `encoded_candidates` is, and the other takes XComp's 16 tokens.
        self.refused = {"selection": "bsm"} if saved["encoded_candidates"] else {}
        self.refused |= {"question_diversity": "xcomp"} if saved["question_tokens"] < 16 else {}

    def __call__(self, data: dict[str, Any]) -> list:
        """
        Args:
            data (`dict`):
                `inputs`: a chat, also as `messages` of a dictionary, a dictionary with `video` (or `videos`) and
                `text`, or a list of them; pictures listed as `video` are one. And `parameters`, *optional*: options of
                `generate` (`max_new_tokens`, ...) and of the processor (`num_scenes`, `selection`, `return_scenes`,
                ...). `subtitles` are a parameter: of several inputs a list with those of each, or a track for all; or
                stand beside an input's `text`.

        Returns:
            `list[dict]`: For each answer its `generated_text`, and with `return_scenes` its `scenes`, whose `indices`
            and `timestamps` are lists; of several inputs, a list of such lists.

        Raises:
            ValueError: If the request has no input, or parts that nothing reads, a medium is neither a URL nor base64,
            or an option is unknown or not the request's to decide; as `VideoReadError` where a video cannot be read.
        """
        if not isinstance(data, dict) or not data.get("inputs"):
            raise ValueError('A request needs `inputs`, such as {"inputs": {"video": URL, "text": QUESTION}}.')
        if unknown := data.keys() - {"inputs", "parameters"}:
            raise ValueError(
                f"A request has `inputs` and `parameters`, but this one also has {', '.join(sorted(unknown))}: "
                "options go into `parameters`."
            )
        parameters = {} if data.get("parameters") is None else data["parameters"]
        if not isinstance(parameters, dict):
            raise ValueError(f"`parameters` is a dictionary of options, got {type(parameters).__name__}.")
        refused = [name for name in parameters if name not in self.options]
        if refused:
            raise ValueError(f"`parameters` may not have {', '.join(sorted(refused))}: no option of a request.")
        for name, largest in self.largest.items():
            value = parameters.get(name)
            # Not by `isinstance`: `True` is an `int` too.
            if value is not None and not (type(value) in (int, float) and value in range(1, largest + 1)):
                raise ValueError(f"`{name}` is a whole number from 1 to {largest} in a request, got {value!r}.")
            if value is not None:
                parameters = parameters | {name: int(value)}
        stops = parameters.get("stop_strings")
        stops = stops if isinstance(stops, list) else [stops or ""]
        if len(stops) > MOST_STOPS or any(isinstance(stop, str) and len(stop) > LONGEST_STOP for stop in stops):
            raise ValueError(
                f"`stop_strings` are at most {MOST_STOPS} texts of at most {LONGEST_STOP} characters in a request: "
                "send fewer, or their ends alone."
            )
        for name, value in self.refused.items():
            if parameters.get(name) == value:
                raise ValueError(f"`{name}` cannot be {value!r} here, which would cost more than the saved settings.")
        if "subtitles" in parameters:
            parameters = parameters | {"subtitles": _subtitles(parameters["subtitles"])}
        if parameters.get("return_scenes") not in (None, True, False):
            raise ValueError("`return_scenes` is true or false in a request: pictures are too large for its answer.")
        inputs = data["inputs"]
        if isinstance(inputs, dict) and "role" in inputs:
            inputs = [inputs]  # a chat of one message
        batch = isinstance(inputs, list) and not (isinstance(inputs[0], dict) and "role" in inputs[0])
        if batch and len(inputs) > MOST_INPUTS:
            raise ValueError(f"A request has at most {MOST_INPUTS} inputs, got {len(inputs)}: send several requests.")
        if (media := _num_media(inputs)) > MOST_MEDIA:
            raise ValueError(
                f"A request has at most {MOST_MEDIA} videos and images in all its inputs, got {media}: send several "
                "requests."
            )
        answers = self.pipeline(
            [_request(each) for each in (inputs if batch else [inputs])],
            return_full_text=False,
            allow_private_hosts=False,
            **parameters,
        )
        answers = [[_json(record) for record in records] for records in answers]
        return answers if batch else answers[0]


def _request(inputs: Any) -> Any:
    """One input as the pipeline takes it, its media being URLs or bytes."""
    if isinstance(inputs, list):
        return [_with_media(message) if isinstance(message, dict) else message for message in inputs]
    if not isinstance(inputs, dict):
        raise ValueError(f"An input is a chat or a dictionary with `video` and `text`, got {type(inputs).__name__}.")
    absent = sorted({"video", "videos"} & {name for name, value in inputs.items() if value is None})
    inputs = {name: value for name, value in inputs.items() if value is not None}
    if absent and inputs.keys() <= {"text"}:
        raise ValueError(f"There is no video in `{absent[0]}`: leave it out to ask without one.")
    if isinstance(inputs.get("messages"), list):
        if beside := sorted(inputs.keys() - {"messages"}):
            raise ValueError(
                f"A dictionary with `messages` has nothing beside them, but this one has {', '.join(beside)}: put it "
                "into a message's `content`."
            )
        return _request(inputs["messages"])
    if "subtitles" in inputs:
        inputs["subtitles"] = _subtitles(inputs["subtitles"])
    if inputs.keys() & {"video", "videos"}:
        others = inputs.pop("videos", [])
        videos = [inputs.pop("video")] if "video" in inputs else []
        videos += others if isinstance(others, list) else [others]
        # The pipeline takes a list of files for the frames of one video where it stands two lists deep.
        inputs["videos"] = [[video] if _is_film(video) else video for video in videos]
    return _with_media(inputs)


def _num_media(value: Any, key: str | None = None) -> int:
    """How many media inputs have. A block of a chat has one, and so has a list of pictures that is one video."""
    if isinstance(value, list):
        if key == "video" and _is_film(value):
            return 1
        return sum(_num_media(item, "video" if key == "videos" else key) for item in value)
    if isinstance(value, dict):
        media = sum(_num_media(item, name) for name, item in value.items())
        return min(media, 1) if key == "content" else media
    return int(isinstance(value, str) and key in MEDIA_KEYS)


def _is_film(video: Any) -> bool:
    return isinstance(video, list) and all(isinstance(item, str) and PICTURE.match(item) for item in video)


def _with_media(value: Any, key: str | None = None) -> Any:
    """A message, a block or a part of one, its media being URLs or bytes."""
    if isinstance(value, dict):
        if "path" in value or "bytes" in value:
            raise ValueError("Media come as `url` or `base64`: a request cannot name files of the server.")
        media = {name: _with_media(item, name) for name, item in value.items()}
        if "base64" in media and media.get("type") in ("video", "video_url"):
            media["bytes"] = media.pop("base64")  # that of an image is read by this name
        return media
    if isinstance(value, list):
        return [_with_media(item, key) for item in value]
    return _medium(value) if isinstance(value, str) and key in MEDIA_KEYS else value


def _medium(text: str) -> str | bytes:
    if text[:8].lower().startswith(("http://", "https://")):
        return text
    data = text.partition(",")[2] if text[:5].lower() == "data:" else text
    try:
        return base64.b64decode("".join(data.split()), validate=True)  # whose lines may be broken
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is neither an http or https URL nor base64.") from error


def _subtitles(value: Any) -> Any:
    """Subtitles as the processor takes them: tracks of the video by number or language, URLs, bytes, or a list."""
    if isinstance(value, list):
        return [_subtitles(item) for item in value]
    # Any other text would name a file of the server.
    is_track = isinstance(value, str) and re.fullmatch(r"[A-Za-z]{2,3}|\d+", value)
    return _medium(value) if isinstance(value, str) and not is_track else value


def _json(value: Any) -> Any:
    """An answer with its tensors as lists; the question, which may be a chat with a video in it, is not repeated."""
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items() if name != "input_text"}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value
