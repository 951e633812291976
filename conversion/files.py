"""Files of a checkpoint: looked up safely, read a tensor at a time, written a shard at a time."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

logger = logging.getLogger(__name__)

# One shard is held in memory while it is written.
SHARD_BYTES = 2 << 30
# As the safetensors format calls them. Other types are buffers or quantized weights, whose scales are elsewhere.
WEIGHT_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
ADAPTER = "is an adapter (adapter_config.json): merge it into its base first, and convert the model that this gives."
# More layers than any model has: a configuration with more takes hours, and gigabytes, to build.
MAX_LAYERS = 1000
INDICES = {"model.safetensors.index.json": "*.safetensors", "pytorch_model.bin.index.json": "pytorch_model*.bin"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not loaded."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

    def load(self) -> torch.Tensor:
        if self.file.suffix == ".bin":
            return _load_bin(self.file)[self.name]
        # Opened anew each time: pages of the file that were read count as this process's memory until it is closed.
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.name)


@contextmanager
def foreign(file: Path, what: str) -> Iterator[None]:
    """
    Around calls of other libraries with values that stand in a checkpoint's file. They raise whatever the wrong value
    leads to (`KeyError`, `ZeroDivisionError`, ...); here it becomes a `ValueError` of one line that names the file.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} {what} ({type(error).__name__}: {reason}).") from error


def find_file(path: Path) -> Path | None:
    """
    The path if a file is there.

    Raises:
        ValueError: If it is a link out of the checkpoint. A checkpoint from somewhere else could put any file of this
            machine into what is converted, and published, by such a link. Those of the Hub's cache, which lead from a
            snapshot to the blobs of the same repository, are followed.
    """
    if not path.is_file():
        return None
    folder = path.parent.resolve()
    home = folder.parent.parent if folder.parent.name == "snapshots" else folder
    if not path.resolve().is_relative_to(home):
        raise ValueError(f"{path} is a link to a file outside of the checkpoint: put the file itself there.")
    return path


def read_text(path: Path) -> str | None:
    """A file's text, or `None` where there is no such file."""
    if find_file(path) is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}.") from error


def read_json(path: Path) -> dict:
    """A JSON file's object, empty where there is no such file."""
    text = read_text(path)
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no whole JSON file: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def read_config(folder: Path) -> dict:
    """
    The `config.json` of a checkpoint, empty where there is none.

    Raises:
        ValueError: If the folder is an adapter's, or the checkpoint has more layers than any model.
    """
    config = read_json(folder / "config.json")
    if not config and find_file(folder / "adapter_config.json"):
        raise ValueError(f"{folder} {ADAPTER}")
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        depth = part.get("num_hidden_layers")
        if isinstance(depth, int) and depth > MAX_LAYERS:
            raise ValueError(f"{folder}: `num_hidden_layers` must be at most {MAX_LAYERS}, got {depth}.")
    return config


def read_checkpoint(folder: Path, allow_bin: bool = False) -> dict[str, StoredTensor]:
    """
    The tensors that a checkpoint folder holds, by name, without loading them.

    Args:
        folder (`Path`): Holds safetensors files, with or without an index.
        allow_bin (`bool`, *optional*, defaults to `False`):
            Whether `pytorch_model*.bin` may be read where there are no safetensors, through the restricted unpickler.

    Raises:
        FileNotFoundError: If there are no weights, or a shard that the index names is missing.
        ValueError: If a file is damaged, the index and the files disagree, the index names something else than
            weights beside it, a name occurs twice, or the weights are those of an adapter.
    """
    files, indexed = _weight_files(folder, allow_bin)
    tensors = {}
    for file in files:
        for tensor in _stored_tensors(file):
            if tensor.name in tensors:
                raise ValueError(
                    f"'{tensor.name}' is in {file} and in {tensors[tensor.name].file}: remove the file that is not "
                    "meant."
                )
            tensors[tensor.name] = tensor
    absent = sorted(set(indexed) - set(tensors))
    if absent:
        raise ValueError(
            f"{folder}: the index names {len(absent)} tensors that the shards do not hold: {enumerate_some(absent)}."
        )
    return tensors


def _weight_files(folder: Path, allow_bin: bool) -> tuple[list[Path], dict[str, str]]:
    """The weight files of a folder, and its index's map from names to files where it has one that counts."""
    weights = {file.name for pattern in INDICES.values() for file in folder.glob(pattern)}
    if find_file(folder / "adapter_config.json") and weights <= {"adapter_model.safetensors"}:
        raise ValueError(f"{folder} {ADAPTER}")
    for index_name, pattern in INDICES.items():
        if pattern.endswith(".bin") and not allow_bin:
            continue
        single = folder / index_name.removesuffix(".index.json")
        if find_file(single) and find_file(folder / index_name):
            logger.warning("%s is read, as transformers does, and not what %s names.", single, index_name)
            return [single], {}
        index = read_json(folder / index_name)
        if not index:
            if files := sorted(folder.glob(pattern)):
                return [file for file in files if find_file(file)], {}
            continue
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError(f"{folder / index_name} has no `weight_map` from tensors to files.")
        suffix = Path(pattern).suffix
        for name in weight_map.values():
            if not isinstance(name, str) or name != Path(name).name or not name.endswith(suffix):
                raise ValueError(f"{folder / index_name} names {name!r}, which is no {suffix} file beside it.")
        files = [folder / name for name in sorted(set(weight_map.values()))]
        missing = [file.name for file in files if find_file(file) is None]
        if missing:
            raise FileNotFoundError(
                f"{folder / index_name} names shards that are not there: {enumerate_some(missing)}."
            )
        return files, weight_map
    hint = ""
    if not allow_bin and any(folder.glob("*.bin")):
        hint = " There are .bin files, which are read only with `--allow-bin` (they are pickles: trust their author)."
    raise FileNotFoundError(f"{folder} holds no *.safetensors files.{hint}")


def _stored_tensors(file: Path) -> list[StoredTensor]:
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
                return [
                    StoredTensor(name, file, tuple(part.get_shape()), part.get_dtype())
                    for name, part in slices.items()
                ]
        except SafetensorError as error:
            raise ValueError(f"{file} is no whole safetensors file: {error}. Download it again.") from error
    tensors = _load_bin(file)
    if not isinstance(tensors, dict):
        raise ValueError(f"{file} is no checkpoint of weights: it holds a {type(tensors).__name__}.")
    wrong = [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"{file} is no checkpoint of weights: these entries are no tensors: {enumerate_some(wrong)}.")
    return [
        StoredTensor(name, file, tuple(value.shape), WEIGHT_DTYPES.get(value.dtype, str(value.dtype)))
        for name, value in tensors.items()
    ]


@contextmanager
def bins_let_go() -> Iterator[None]:
    """Around what reads weights: at its end, the last `.bin` file that was read is no longer mapped into memory."""
    try:
        yield
    finally:
        _load_unchanged_bin.cache_clear()


def _load_bin(file: Path) -> dict[str, torch.Tensor]:
    status = file.stat()
    return _load_unchanged_bin(file, (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1)
def _load_unchanged_bin(file: Path, state: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """`state` is part of the key: a file that took the place of another one is read anew."""
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            # Files of before torch 1.6 cannot be mapped into memory.
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file} cannot be read as a file of weights alone: {reason}") from error


def write_shards(
    folder: Path,
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]],
    load: Callable[[str], torch.Tensor],
    max_shard_bytes: int = SHARD_BYTES,
    on_bytes: Callable[[int], object] = lambda written: None,
) -> None:
    """
    Writes `model.safetensors`, or shards of at most `max_shard_bytes` with their index, holding one shard at a time.

    Args:
        folder (`Path`): Where to.
        tensors (`dict`): Shape and dtype of each tensor.
        load (`Callable`): Gives the tensor of that name, of that shape and dtype.
        max_shard_bytes (`int`, *optional*, defaults to 2 GiB): A larger tensor has a shard of its own.
        on_bytes (`Callable`, *optional*): Told the number of bytes of each tensor.

    Raises:
        OSError: If a file cannot be written.
    """
    empty = {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in tensors.items()}
    split = split_torch_state_dict_into_shards(empty, max_shard_size=max_shard_bytes)
    for file, names in split.filename_to_tensors.items():
        shard = {}
        for name in names:
            shard[name] = load(name)
            on_bytes(shard[name].nbytes)
        path = folder / file
        path.touch()
        mode = path.stat().st_mode
        try:
            save_file(shard, path, metadata={"format": "pt"})
        except SafetensorError as error:  # of a full disk too
            raise OSError(f"{path} cannot be written: {error}") from error
        path.chmod(mode)  # safetensors lets only the owner read
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def enumerate_some(names: list[str]) -> str:
    """Names for a message, the first five of many."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


__all__ = [
    "SHARD_BYTES",
    "WEIGHT_DTYPES",
    "StoredTensor",
    "bins_let_go",
    "enumerate_some",
    "find_file",
    "foreign",
    "read_checkpoint",
    "read_config",
    "read_json",
    "read_text",
    "write_shards",
]
