"""A video that was read and encoded once, to be asked about many times; it stands wherever a video does."""

import copy
import hashlib
import json
import os
import secrets
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from .configuration_fila_video import SHARED_WITH_SCENES
from .video_pool_fila_video import thumbnails
from .video_reading_fila_video import TimedVideoMetadata, staged
from .video_sources_fila_video import VideoSegment, source_name

logger = logging.get_logger(__name__)

FORMAT = "fila_video.encoded_video.1"
PICTURE_SIDE = 256  # pixels of the longer side of the pictures for people, at most
TENSORS = ("pictures", "thumbnail_features", "frames", "frame_features", "patch_features")
# Settings that make the pixels, in which the processor that asks must agree with the one that read; settings that make
# the pool, which cannot change without reading again; and those that choose from it, which a question may set anew.
PIXEL_SETTINGS = ("size", "do_resize", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor")
PIXEL_SETTINGS += ("do_normalize", "image_mean", "image_std", "do_convert_rgb")
POOL_SETTINGS = ("candidate_fps", "min_candidates", "max_candidates", "encoded_candidates", "seek_mode")
POOL_SETTINGS += ("even_frames", "num_frames", "fps", "do_sample_frames")
HANDLING = ("limits", "allow_private_hosts", "max_feature_bytes", "frame_batch_size", "device", "input_data_format")
HANDLING += ("hwaccel",)
ADAPTER_STATE = ("active_adapters", "disable_adapters", "merged_adapters", "scaling")


@dataclass(eq=False, repr=False)
class EncodedVideo:
    """
    The pool of a video's candidate frames, as [`FilaVideoProcessor.encode_video`] makes it. It can be moved (`to`),
    pickled, saved to one file and loaded, and passed wherever a video is; each question selects its scenes anew.

    Attributes:
        metadata (`TimedVideoMetadata`): Of the video; its `timestamps` are those of the pool's frames, in seconds.
        pictures (`torch.Tensor` of shape `(num_frames, height, width, 3)`):
            The frames for people to look at: uint8, in the video's shape, at most 256 pixels wide and high and no
            larger than the vision tower's pictures.
        thumbnail_features (`torch.Tensor` of shape `(num_frames, 768)`): What frames are thinned by.
        frames (`torch.Tensor` of shape `(num_frames, 3, height, width)`, *optional*):
            uint8, at the vision tower's size; not kept where all patch features are.
        frame_features (`torch.Tensor` of shape `(num_frames, hidden_size)`, *optional*):
            What scenes are selected by (equation 1), float32; `None` where there was no frame encoder.
        patch_features (`torch.Tensor` of shape `(num_frames, num_patches, hidden_size)`, *optional*):
            What the model reads of a chosen frame, where they fit into `max_feature_bytes`.
        settings (`dict`): What was set for pixels and pool, and of the selection what was given.
        sources (`list[dict]`):
            `name`, `size` (bytes) and `changed` (nanoseconds) of each file, as far as known; of a clip also its
            `start` and `end` (seconds).
        encoder (`dict`, *optional*): `name`, `vision_weights` (a hash) and `dtype` of the model.
    """

    metadata: VideoMetadata
    pictures: torch.Tensor
    thumbnail_features: torch.Tensor
    frames: torch.Tensor | None
    frame_features: torch.Tensor | None
    patch_features: torch.Tensor | None
    settings: dict[str, Any]
    sources: list[dict[str, Any]]
    encoder: dict[str, str] | None
    # Scenes by the settings that chose them: the questions of a conversation mostly have the same.
    chosen: dict[Any, torch.Tensor] = field(default_factory=dict)

    def _with(self, **changes: Any) -> "EncodedVideo":
        # Another pool, or other features of it, have other scenes.
        return replace(self, chosen={}, **changes)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, indices: torch.Tensor) -> "EncodedVideo":
        """A smaller pool, of the frames that `indices` `(num_frames,)` name."""
        metadata = copy.copy(self.metadata)
        metadata.frames_indices = [metadata.frames_indices[index] for index in indices.tolist()]
        metadata.pool = "spread"  # whatever it was, these are no longer even
        chosen = {name: value[indices.to(value.device)] for name, value in self._tensors().items()}
        return self._with(**chosen, metadata=metadata)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in TENSORS if getattr(self, name) is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is kept."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    @property
    def segments(self) -> list[VideoSegment]:
        """What was read, by the names of its files."""
        return [VideoSegment(source["name"], source["start"], source["end"]) for source in self.sources]

    @property
    def timestamps(self) -> list[float]:
        """Times of the pool's frames in seconds from the start of the video."""
        return self.metadata.timestamps

    def __repr__(self) -> str:
        sources = dict.fromkeys(source_name(source["name"]).strip("'\"") for source in self.sources)
        names = ", ".join(Path(source).name for source in sources)
        kept = [
            f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')} on {value.device}"
            for name, value in self._tensors().items()
            if name in ("frames", "patch_features")
        ]
        return (
            f"EncodedVideo({names}: {len(self)} of {self.metadata.total_num_frames} frames, "
            f"{self.metadata.duration:.1f} s, {', '.join(kept)}, {self.nbytes / 1e6:.1f} MB)"
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "EncodedVideo":
        """A copy on another device, its patch features in another dtype. Pictures and thumbnails stay on the CPU."""
        moved = {name: getattr(self, name) for name in ("frames", "frame_features", "patch_features")}
        moved = {name: value.to(device) for name, value in moved.items() if value is not None}
        if dtype is not None and "patch_features" in moved:
            moved["patch_features"] = moved["patch_features"].to(dtype)
        return self._with(**moved)

    def save(self, path: str | Path) -> None:
        """
        Writes one safetensors file, whole or not at all. Where one is there, it is replaced, with its permissions; a
        link goes on to lead to it.

        Raises:
            ValueError: If the path is a folder, or there is no folder to write it into.
            OSError: If it cannot be written, as on a full disk.
        """
        path = Path(os.path.realpath(path))
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name a file to write, such as {path / 'video.safetensors'}.")
        if not path.parent.is_dir():
            raise ValueError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
        tensors = {name: value.detach().cpu().contiguous() for name, value in self._tensors().items()}
        names = ("total_num_frames", "fps", "width", "height", "duration", "video_backend")
        metadata = {name: getattr(self.metadata, name) for name in names}
        record = {
            "format": FORMAT,
            "metadata": {**metadata, "frames_indices": list(map(int, self.metadata.frames_indices))},
            "timestamps": [float(seconds) for seconds in self.timestamps],
            "pool": getattr(self.metadata, "pool", "given"),
            "settings": self.settings,
            "sources": self.sources,
            "encoder": self.encoder,
        }
        # safetensors, like `tempfile`, lets only the owner read its files: this one is as any new file is.
        half = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            half.touch(exist_ok=False)
            mode = (path if path.exists() else half).stat().st_mode
            save_file(tensors, half, metadata={"fila_video": json.dumps(record, default=_plain)})
            half.chmod(mode)
            os.replace(half, path)
        except SafetensorError as error:  # of a full disk too
            raise OSError(f"{path} cannot be written: {error}") from error
        finally:
            half.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, check_source: bool = True) -> "EncodedVideo":
        """
        Reads what [`save`] wrote, onto the CPU.

        Args:
            check_source (`bool`, *optional*, defaults to `True`):
                Whether a file of the video that still lies where it was read must be the same, by size and time of
                change.

        Raises:
            ValueError: If the file is no encoded video, is damaged, or a source has changed. Whether the model is the
            one that encoded it is checked when a question is asked; a processor that is bound to none warns.
        """
        if not Path(path).is_file():
            raise ValueError(f"There is no encoded video {path}.")
        try:
            with safe_open(path, framework="pt") as file:
                record = json.loads((file.metadata() or {}).get("fila_video", "{}"))
                found = {name: file.get_tensor(name) for name in {*TENSORS} & {*file.keys()}}
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path} is no encoded video, or damaged: {error}.") from error
        if record.get("format") != FORMAT:
            raise ValueError(
                f"{path} is no encoded video of this version: its format is {record.get('format')}, not {FORMAT}. "
                "Encode the video again."
            )
        metadata = TimedVideoMetadata(**record["metadata"])
        metadata.frame_times = dict(zip(metadata.frames_indices, record["timestamps"], strict=True))
        metadata.pool = record["pool"]
        if check_source:
            for source in record["sources"]:
                _check_unchanged(source, path)
        num_frames = len(metadata.frames_indices)
        if any(len(value) != num_frames for value in found.values()):
            raise ValueError(f"{path} is damaged: its tensors are not all of its {num_frames} frames.")
        known = {name: record[name] for name in ("settings", "sources", "encoder")}
        return cls(metadata, **dict.fromkeys(TENSORS) | found | known)

    def settings_of_question(self, video_processor: Any, given: dict[str, Any]) -> dict[str, Any]:
        """
        The settings of a question: those of the encoding, and the question's over them.

        Args:
            video_processor (`FilaVideoVideoProcessor`): Of the processor that asks.
            given (`dict`): What the question sets.

        Raises:
            ValueError: If a setting needs pixels or a pool that this video does not have, or is one that a model has
                too and differs.
        """
        for name in (*PIXEL_SETTINGS, *SHARED_WITH_SCENES):
            now = _plain(given.get(name, getattr(video_processor, name, None)))
            if name in self.settings and now != self.settings[name]:
                raise ValueError(
                    f"{self!r} was encoded with `{name}` {self.settings[name]}, but is asked with {now}: ask with the "
                    "same, or encode the video again."
                )
        for name in POOL_SETTINGS:
            if name not in given or _plain(given[name]) == self.settings.get(name):
                continue
            if name == "encoded_candidates" and self.settings[name] is None:
                continue  # all of the pool is there, and can be thinned
            raise ValueError(
                f"`{name}={given[name]}` needs another reading of {self!r}, which was encoded with "
                f"{self.settings.get(name)}: pass the video itself, or encode it again with this setting."
            )
        # The selection that was set when the video was encoded and its pool as it is, and what the question sets.
        merged = {name: value for name, value in self.settings.items() if name not in PIXEL_SETTINGS} | given
        settings = video_processor.scene_settings(**merged)
        spacing, total = getattr(self.metadata, "pool", "given"), self.metadata.total_num_frames
        if spacing == "spread" and settings.selection in ("uniform", "bsm"):
            raise ValueError(
                f"`selection={settings.selection!r}` goes by time, but of this long video {self!r} keeps the frames "
                "that differ most: encode it again with that selection, or choose one that goes by what frames show."
            )
        pool_size = min(settings.num_candidates(self.metadata.duration), total)
        if spacing == "given" or pool_size <= self.settings.get("candidates", len(self)):
            return merged  # also where it has fewer frames, as of a damaged film: another reading would give no more
        needed = min(settings.num_selected_frames, settings.max_candidates, total)
        if len(self) < needed or (spacing == "even" and len(self) <= settings.num_selected_frames):
            raise ValueError(
                f"`num_scenes={settings.num_scenes}` and `selection={settings.selection!r}` take {needed} of "
                f"{pool_size} candidate frames, but {self!r} has {len(self)}: encode the video again with them."
            )
        return merged

    def asked_of(self, selector: Any) -> "EncodedVideo | torch.Tensor":
        """
        The pool as a `FrameSelector` takes it: read without an encoder, it is one of frames like any other.

        Raises:
            ValueError: If the features are not those of the selector's encoder.
        """
        self.check_encoder(selector.encoder, selector.model)
        return self.frames if self.encoder is None else self

    def check_encoder(self, encoder: Callable | None, model: nn.Module | None) -> None:
        """
        Raises:
            ValueError: If the features are not those of the frame encoder that would make them now. Without one it
            cannot be told, which is a warning.
        """
        if self.encoder is None:
            return
        if encoder is None:
            logger.warning_once(
                f"A video was encoded by {_named(self.encoder)}, and the processor is bound to no model: that the "
                "one that answers is the same is not checked. Bind it with `processor.bind(model)`."
            )
            return
        now = describe_encoder(encoder, model)
        # Of a function nothing but its name is known. Files of earlier versions do not say which `features` they have.
        compared = ("vision_weights", "features") if now["vision_weights"] else ("vision_weights", "name")
        if any(now[name] != self.encoder.get(name, now[name]) for name in compared):
            raise ValueError(
                f"{self!r} was encoded by {_named(self.encoder)}, but is asked of {_named(now)}: encode the video "
                "again with this model, or load the other one."
            )


def encode_video(
    video_processor: Any,
    selector: Any,
    video: Any,
    metadata: VideoMetadata | dict | None,
    progress: Callable[[str, int, int], None] | None,
    given: dict[str, Any],
) -> EncodedVideo:
    """See [`FilaVideoProcessor.encode_video`]: `selector` is its `FrameSelector`, `given` are its settings."""
    given = {name: value for name, value in given.items() if value is not None}
    settings = video_processor.scene_settings(**given)
    allowed = {*PIXEL_SETTINGS, *POOL_SETTINGS, *HANDLING, *vars(settings)}
    for name in given:
        if name not in allowed:
            raise ValueError(f"`{name}` is no setting of encoding a video: set it when you ask.")
    frames, metadata = video_processor.load_video(video, metadata, progress=staged(progress, "reading"), **given)
    names = (*PIXEL_SETTINGS, *POOL_SETTINGS)
    recorded = {name: _plain(given.get(name, getattr(video_processor, name, None))) for name in names}
    # Of the selection only what was given: a question takes the rest from the processor that asks.
    recorded |= {name: value for name, value in given.items() if name in vars(settings) and name not in HANDLING}
    recorded["candidates"] = settings.num_candidates(metadata.duration)
    encoded = EncodedVideo(
        metadata=metadata,
        pictures=pictures_of(frames, metadata),
        thumbnail_features=thumbnails(frames).cpu(),
        frames=frames,
        frame_features=None,
        patch_features=None,
        settings=recorded,
        sources=_sources_of(video),
        encoder=None,
    )
    if selector.encoder is None:
        return encoded
    if (kept := selector.thin(encoded, settings)) is not None:
        encoded = encoded[kept]
        encoded.settings["candidates"] = len(encoded)

    def pixels(batch: torch.Tensor, device: torch.device | None) -> torch.Tensor:
        return video_processor.pixels(batch, **{"device": device} | given)

    encoded.frame_features, encoded.patch_features = selector.encode(
        encoded.frames, settings, settings.max_feature_bytes, pixels, progress
    )
    if encoded.patch_features is not None:
        encoded.frames = None  # nothing needs them now: people, and a scorer, have the pictures
    encoded.encoder = describe_encoder(selector.encoder, selector.model)
    return encoded


def pictures_of(frames: torch.Tensor, metadata: VideoMetadata | None) -> torch.Tensor:
    """
    Frames `(num_frames, 3, height, width)`, uint8, as pictures `(num_frames, height, width, 3)` in the shape of the
    video, which the vision tower sees squeezed into a square.
    """
    height, width = frames.shape[2:]
    # Whatever shape it has, the video fills the tower's square: its shorter side is squeezed back, and none grows.
    aspect = (getattr(metadata, "width", None) or width) / (getattr(metadata, "height", None) or height)
    size = (width / aspect, width) if aspect > 1 else (height, height * aspect)
    shrink = min(PICTURE_SIDE / max(size), 1.0)
    size = tuple(max(round(side * shrink), 1) for side in size)
    if size == (height, width):
        return frames.permute(0, 2, 3, 1).contiguous().cpu()
    smaller = []
    for batch in frames.split(32):
        scaled = nn.functional.interpolate(batch.float(), size, mode="bilinear", antialias=True)
        smaller.append(scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu())
    return torch.cat(smaller)


def describe_encoder(encoder: Callable, model: nn.Module | None) -> dict[str, str]:
    """The name of a frame encoder's model, and a hash of its vision weights that the same weights always give."""
    if model is None:
        return {"name": getattr(encoder, "__qualname__", type(encoder).__name__), "vision_weights": "", "dtype": ""}
    # By its name alone, since peft and others wrap what is around it.
    tower = next((part for name, part in model.named_modules() if name.split(".")[-1] == "vision_tower"), model)
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or type(model).__name__
    dtype = str(next(tower.parameters(), torch.empty(0)).dtype).removeprefix("torch.")
    fields = ("vision_feature_layer", "vision_final_norm", "vision_feature_select_strategy")
    features = ", ".join(f"{field}={getattr(config, field, None)}" for field in fields)
    return {"name": name, "vision_weights": _hash(tower), "dtype": dtype, "features": features}


# By vision tower: which tensors were hashed, and their hash. A tower takes a second, so it is hashed once.
_hashes: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _hash(tower: nn.Module) -> str:
    weights = [plain for weight in (*tower.parameters(), *tower.buffers()) for plain in _plain_tensors(weight)]
    # Loading others into them or training them leaves them in their place, but counts as writing; `.data` does not.
    # Of those made in `torch.inference_mode()` nothing counts.
    writes = [(weight.data_ptr(), None if weight.is_inference() else weight._version) for weight in weights]
    # peft's layers hold all their adapters, whichever count. Elsewhere `active_adapters` is a method, if anything.
    layers = [module for module in tower.modules() if isinstance(getattr(module, "active_adapters", None), list)]
    adapters = [[repr(getattr(layer, name, None)) for name in ADAPTER_STATE] for layer in layers]
    which, known = (writes, adapters), _hashes.get(tower)
    if known is not None and known[0] == which:
        return known[1]
    if any(weight.is_meta for weight in weights):  # offloaded, and read a layer at a time: of this model alone
        _hashes[tower] = which, f"offloaded {secrets.token_hex(8)}"
        return _hashes[tower][1]
    digest = hashlib.sha256(repr(adapters).encode() if adapters else b"")
    for weight in weights:
        digest.update(f"{weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    _hashes[tower] = which, digest.hexdigest()
    return digest.hexdigest()


def _plain_tensors(weight: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a quantized one is made of."""
    if not hasattr(weight, "__tensor_flatten__"):
        return [weight]
    return [part for name in weight.__tensor_flatten__()[0] for part in _plain_tensors(getattr(weight, name))]


def _named(encoder: dict[str, str]) -> str:
    if not encoder["vision_weights"]:
        return f"the function {encoder['name']}"
    details = (encoder["vision_weights"][:12], encoder["dtype"], encoder.get("features", ""))
    return f"{encoder['name']} (vision weights {', '.join(filter(None, details))})"


def _plain(value: Any) -> Any:
    """A setting as JSON gives it back."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "keys") or hasattr(value, "longest_edge"):  # a SizeDict, or a dictionary
        return {key: side for key, side in dict(value).items() if side is not None}
    return list(value) if isinstance(value, tuple) else value


def _sources_of(video: Any) -> list[dict[str, Any]]:
    """What is known of the files of a video."""
    is_segments = isinstance(video, (list, tuple)) and video and isinstance(video[0], VideoSegment)
    found = []
    for segment in video if is_segments else [video if isinstance(video, VideoSegment) else VideoSegment(video)]:
        source, start, end = segment
        name, size, changed = f"a {type(source).__name__}", None, None
        if isinstance(source, (str, Path)):
            name = str(source)
            if os.path.exists(name):
                name, stat = os.path.abspath(name), os.stat(name)
                size, changed = stat.st_size, stat.st_mtime_ns
        elif isinstance(source, bytes):
            size = len(source)
        found.append({"name": name, "size": size, "changed": changed, "start": start, "end": end})
    return found


def _check_unchanged(source: dict[str, Any], path: str | Path) -> None:
    if source["changed"] is None or not os.path.exists(source["name"]):
        return
    stat = os.stat(source["name"])
    for what, name, now in (("size in bytes", "size", stat.st_size), ("time of change", "changed", stat.st_mtime_ns)):
        if source[name] != now:
            raise ValueError(
                f"{source['name']} has changed since {path} was made of it: its {what} was {source[name]} and is "
                f"{now}. Encode it again, or load with `check_source=False`."
            )


__all__ = ["EncodedVideo", "encode_video", "pictures_of"]
