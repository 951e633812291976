# Copyright 2026 The FiLA-Video authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Checkpoint files, read and written a piece at a time: no tensor larger than a piece is ever held in memory."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

PIECE_BYTES = 64 << 20

# What the safetensors format calls the types that a checkpoint of floating-point weights may have.
DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SAFETENSORS_INDEX, BIN_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not loaded."""

    name: str
    file: Path
    shape: tuple[int, ...]

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[torch.Tensor]:
        """
        The tensor's rows in order, as `(rows, ...)` tensors of about `piece_bytes` bytes. A tensor without dimensions
        comes as one of shape `(1,)`.
        """
        if self.file.suffix == ".safetensors":
            yield from self._safetensors_pieces(piece_bytes)
            return
        tensor = torch.atleast_1d(_load_bin(self.file)[self.name])
        for start, stop in row_ranges(tensor.shape, tensor.element_size(), piece_bytes):
            yield tensor[start:stop]

    def _safetensors_pieces(self, piece_bytes: int) -> Iterator[torch.Tensor]:
        if not self.shape:
            with safe_open(self.file, framework="pt") as file:
                yield file.get_tensor(self.name).reshape(1)
            return
        for start, stop in row_ranges(self.shape, 4, piece_bytes):
            # Opened anew each time: pages of the file that were read stay in this process's memory until it is closed.
            with safe_open(self.file, framework="pt") as file:
                yield file.get_slice(self.name)[start:stop]


def row_ranges(shape: tuple[int, ...], element_size: int, piece_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows `(start, stop)` that cover a tensor in pieces of at most `piece_bytes`, at least a row each."""
    row_bytes = prod(shape[1:]) * element_size
    step = max(1, piece_bytes // max(1, row_bytes))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def read_json(path: Path) -> dict:
    """A JSON file's object, empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no whole JSON file: {error}.") from error


def read_checkpoint(folder: Path, allow_bin: bool = False) -> dict[str, StoredTensor]:
    """
    The tensors that a checkpoint folder holds, by name, without loading them.

    Args:
        folder (`Path`): Holds safetensors files, with or without an index.
        allow_bin (`bool`, *optional*, defaults to `False`):
            Whether `pytorch_model*.bin` may be read where there are no safetensors, through the restricted unpickler.

    Raises:
        FileNotFoundError: If there are no weights, or a shard that the index names is missing.
        ValueError: If a file is damaged, the index and the files disagree, or a name occurs twice.
    """
    files, index = _weight_files(folder, allow_bin)
    tensors = {}
    for file in files:
        for name, shape in _shapes(file).items():
            if name in tensors:
                raise ValueError(
                    f"'{name}' is in {file} and in {tensors[name].file}. Remove the file that is not meant."
                )
            tensors[name] = StoredTensor(name, file, shape)
    absent = sorted(set(index) - set(tensors))
    if absent:
        raise ValueError(
            f"{folder}: the index names {len(absent)} tensors that the shards do not hold: {', '.join(absent)}."
        )
    return tensors


def _weight_files(folder: Path, allow_bin: bool) -> tuple[list[Path], dict[str, str]]:
    """The weight files of a folder, and its index's map from names to files where it has one."""
    patterns = [(SAFETENSORS_INDEX, "*.safetensors")]
    if allow_bin:
        patterns.append((BIN_INDEX, "pytorch_model*.bin"))
    for index_name, pattern in patterns:
        if (folder / index_name).is_file():
            index = read_json(folder / index_name).get("weight_map", {})
            files = [folder / name for name in sorted(set(index.values()))]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise FileNotFoundError(
                    f"{folder / index_name} names shards that are not there: {', '.join(missing)}."
                )
            return files, index
        if files := sorted(folder.glob(pattern)):
            return files, {}
    hint = ""
    if not allow_bin and any(folder.glob("*.bin")):
        hint = " There are .bin files, which are read only with `--allow-bin` (they are pickles: trust their author)."
    raise FileNotFoundError(f"{folder} holds no *.safetensors files.{hint}")


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as opened:
                return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{file} is no whole safetensors file: {error}. Download it again.") from error
    tensors = _load_bin(file)
    wrong = [str(name) for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"{file} is no checkpoint of weights: these entries are no tensors: {', '.join(wrong)}.")
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _load_bin(file: Path) -> dict[str, torch.Tensor]:
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:
            # Files of before torch 1.6 cannot be mapped into memory.
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{file} cannot be read as a file of weights alone: {error}") from error


def split_into_shards(sizes: dict[str, int], max_bytes: int) -> list[list[str]]:
    """Names in order, in as few lists as hold at most `max_bytes` each; a larger tensor has one of its own."""
    shards, filled = [[]], 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def write_safetensors(
    path: Path,
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]],
    pieces: Callable[[str], Iterable[torch.Tensor]],
    on_bytes: Callable[[int], object] = lambda written: None,
):
    """
    Writes a safetensors file without holding a whole tensor.

    Args:
        path (`Path`): The file to write.
        tensors (`dict`): Shape and dtype of each tensor.
        pieces (`Callable`): Gives a tensor's rows in order, of the dtype promised; read once, when it is written.
        on_bytes (`Callable`, *optional*): Told the number of bytes after each piece.

    Raises:
        ValueError: If the pieces of a tensor are not of its dtype or do not add up to its size.
    """
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    # Wide types first, so that every tensor is aligned to its own type.
    names = sorted(tensors, key=lambda name: -tensors[name][1].itemsize)
    for name in names:
        shape, dtype = tensors[name]
        size = prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names:
            shape, dtype = tensors[name]
            written = 0
            for piece in pieces(name):
                if piece.dtype != dtype:
                    raise ValueError(f"'{name}' was to be written as {dtype}, but a piece of it is {piece.dtype}.")
                data = piece.contiguous().flatten().view(torch.uint8).numpy()
                file.write(data)
                written += data.nbytes
                on_bytes(data.nbytes)
            if written != prod(shape) * dtype.itemsize:
                raise ValueError(f"'{name}' has {prod(shape) * dtype.itemsize} bytes, but its pieces have {written}.")


def write_sharded(
    folder: Path,
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]],
    pieces: Callable[[str], Iterable[torch.Tensor]],
    max_shard_bytes: int,
    on_bytes: Callable[[int], object] = lambda written: None,
) -> list[str]:
    """Writes `model.safetensors`, or shards of at most `max_shard_bytes` and their index; returns the files' names."""
    sizes = {name: prod(shape) * dtype.itemsize for name, (shape, dtype) in tensors.items()}
    shards = split_into_shards(sizes, max_shard_bytes)
    if len(shards) == 1:
        write_safetensors(folder / "model.safetensors", tensors, pieces, on_bytes)
        return ["model.safetensors"]
    files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for file, names in zip(files, shards, strict=True):
        write_safetensors(folder / file, {name: tensors[name] for name in names}, pieces, on_bytes)
    index = {
        "metadata": {"total_size": sum(sizes.values())},
        "weight_map": {name: file for file, names in zip(files, shards, strict=True) for name in sorted(names)},
    }
    (folder / SAFETENSORS_INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return [*files, SAFETENSORS_INDEX]


__all__ = ["StoredTensor", "read_checkpoint", "read_json", "split_into_shards", "write_safetensors", "write_sharded"]
