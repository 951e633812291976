"""
Conversion: peak memory and time on a full-size random checkpoint, LLaVA-NeXT's layout with a 7B model in bfloat16.

    python -m fila_video.benchmarks.convert_weights     # needs psutil and twice 15 GiB of disk, which it gives back

The checkpoint is written shard by shard and converted by `convert_weights.py` in a process of its own, whose peak of
resident memory the kernel counts (VmHWM; pages of mapped files count too). Every tensor of the result is then compared
with its source. "Imports alone" is the same peak of a process that only imports what conversion imports.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from fila_video import FilaVideoConfig, FilaVideoForConditionalGeneration
from fila_video.conversion.files import read_checkpoint, write_shards
from fila_video.conversion.layouts import LlavaNext, rename

ROOT = Path(__file__).resolve().parent.parent
SHARD_BYTES = 5 * 10**9
BLOCK = 1 << 26
INTO_LLAVA_NEXT = (
    (r"^model\.vision_tower\.", "model.vision_tower.vision_tower.vision_model."),
    (r"^model\.multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
    (r"^model\.multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
    (r"^model\.language_model\.", "model."),
)


def llava_next_shapes(config: FilaVideoConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = FilaVideoForConditionalGeneration(config).state_dict()
    shapes = {}
    for name, tensor in state.items():
        if name.startswith("model.scene_merger."):
            continue
        for pattern, replacement in INTO_LLAVA_NEXT:
            name = re.sub(pattern, replacement, name)
        shapes[name] = tuple(tensor.shape)
    return shapes


def write_source(folder: Path, num_layers: int, smoke: bool = False) -> int:
    """Writes the random checkpoint and returns its number of bytes."""
    config = FilaVideoConfig()
    if smoke:
        num_layers = 1
        config.text_config.update({"vocab_size": 2048, "hidden_size": 112, "intermediate_size": 256})
    config.text_config.num_hidden_layers = num_layers
    config.text_config.layer_types = config.text_config.layer_types[:num_layers]
    shapes = llava_next_shapes(config)
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(BLOCK, generator=generator, dtype=torch.bfloat16)

    def values(name: str) -> torch.Tensor:
        """A tensor of the block's values, from a place in it that is another for each."""
        size = torch.Size(shapes[name]).numel()
        start = torch.randint(BLOCK, (), generator=generator).item()
        pieces, left = [block[start : start + size]], size - (BLOCK - start)
        while left > 0:
            pieces.append(block[:left])
            left -= BLOCK
        return torch.cat(pieces).view(shapes[name])

    folder.mkdir(parents=True)
    write_shards(folder, {name: (shape, torch.bfloat16) for name, shape in shapes.items()}, values, SHARD_BYTES)
    text = config.text_config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    settings = {name: getattr(text, name) for name in (*names, "num_key_value_heads", "max_position_embeddings")}
    settings |= {"mm_vision_tower": "google/siglip-so400m-patch14-384", "mm_newline_position": "grid"}
    settings |= {"add_time_instruction": True, "rope_theta": 1000000.0, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / name, folder)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def run_measured(command: list[str]) -> tuple[float, float, int]:
    """
    Seconds and processor seconds that a command took, and its largest resident memory in bytes.

    Raises:
        ValueError: If it fails; with its exit status and what it wrote.
    """
    start, cpu, peak = time.perf_counter(), 0.0, 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as written:  # a pipe would fill up while nobody reads it
        process = psutil.Popen(command, stdout=written, stderr=written)
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                times = process.cpu_times()
            except (OSError, psutil.NoSuchProcess):
                continue
            cpu = max(cpu, times.user + times.system)
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                peak = int(found[1]) * 1024
            time.sleep(0.02)
        if process.returncode:
            written.seek(0)
            raise ValueError(f"{' '.join(command)} failed with status {process.returncode}:\n{written.read()}")
    return time.perf_counter() - start, cpu, peak


def count_differences(source: Path, output: Path) -> tuple[int, int]:
    """How many tensors of the source the output has, and how many of them differ."""
    ours, different = read_checkpoint(output), 0
    theirs = read_checkpoint(source)
    for name, tensor in theirs.items():
        different += not torch.equal(tensor.load(), ours[rename(name, LlavaNext())].load())
    return len(theirs), different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--layers", type=int, default=28, help="of the language model (default: 28, a 7B model)")
    parser.add_argument("--smoke", action="store_true", help="one narrow layer, only to see that everything runs")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder, prefix="convert-weights-"))
    try:
        num_bytes = write_source(folder / "source", args.layers, args.smoke)
        python = [sys.executable, "-c", "import fila_video.conversion.convert"]
        _, _, imports = run_measured(python)
        command = [sys.executable, str(ROOT / "convert_weights.py"), str(folder / "source"), str(folder / "output")]
        seconds, cpu, peak = run_measured(command)
        total, different = count_differences(folder / "source", folder / "output")
        files = len(list((folder / "output").glob("*.safetensors")))
    finally:
        shutil.rmtree(folder)
    print("| measured | value |\n| --- | --- |")
    print(f"| source | {num_bytes / 2**30:.2f} GiB, {total} tensors |")
    print(f"| output | {files} files of weights, {different} tensors differ from the source |")
    print(f"| time | {seconds:.1f} s, {num_bytes / 2**30 / seconds:.2f} GiB/s |")
    print(f"| processor time | {cpu:.1f} s |")
    print(f"| peak memory | {peak / 2**30:.2f} GiB |")
    print(f"| imports alone | {imports / 2**30:.2f} GiB |")


if __name__ == "__main__":
    main()
