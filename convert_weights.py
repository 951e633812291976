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
"""
Makes a FiLA-Video repository of an existing checkpoint. An untrained scene merger averages the frames of a scene, so
the result works at once, and can be fine-tuned.

    python convert_weights.py lmms-lab/LLaVA-Video-7B-Qwen2 OUTPUT
    python convert_weights.py llava-hf/llava-onevision-qwen2-7b-ov-hf OUTPUT --scene-size 1
    python convert_weights.py --language-model Qwen/Qwen2-7B-Instruct \
        --vision-tower google/siglip-so400m-patch14-384 OUTPUT
"""

import argparse
import importlib.util
import logging
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import StrictDataclassError
from tqdm.auto import tqdm

if __name__ == "__main__" and not __package__:
    # Run in a clone where nothing is installed: its root is the package.
    __package__ = "fila_video"
    _spec = importlib.util.spec_from_file_location(__package__, Path(__file__).resolve().parent / "__init__.py")
    sys.modules[__package__] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__package__])

from .configuration_fila_video import FilaVideoConfig
from .conversion.files import read_json, write_sharded
from .conversion.plan import Conversion, plan_conversion
from .conversion.repository import code_files, model_card, source_licence

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
MAX_SHARD_BYTES = 4 << 30
SMALL_FILES = ["*.json", "*.txt", "*.jinja", "*.model", "README.md", "LICENSE*", "NOTICE*"]


def convert(
    source: str | Path | None,
    output: str | Path,
    *,
    language_model: str | Path | None = None,
    vision_tower: str | Path | None = None,
    scene_size: int = 3,
    merger: str = "weighted",
    pooling: str | None = None,
    dtype: str = "bfloat16",
    seed: int = 42,
    allow_bin: bool = False,
    overwrite: bool = False,
    push_to_hub: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: bool = True,
) -> Path:
    """
    Makes a complete FiLA-Video repository of a checkpoint.

    Args:
        source (`str` or `Path`, *optional*):
            Folder or Hub id of a LLaVA-NeXT (`llava_qwen`) or llava-hf OneVision checkpoint.
        output (`str` or `Path`): The folder to make.
        language_model, vision_tower (`str` or `Path`, *optional*):
            Instead of `source`, folders or Hub ids of the parts of a model to train. With a LLaVA-NeXT `source`,
            `vision_tower` alone says where its tower's configuration is; of SigLIP so400m/14-384 it is known.
        scene_size (`int`, *optional*, defaults to 3): Frames in a scene; with 1 the model does what its source did.
        merger (`str`, *optional*, defaults to `"weighted"`): `"weighted"`, `"mean"`, `"attention"` or `"bsm"`.
        pooling (`str`, *optional*):
            `"bilinear"`, `"average"` or `"max"` instead of the source's; LLaVA-Video is evaluated with `"average"`.
        dtype (`str`, *optional*, defaults to `"bfloat16"`): Of the weights, except the scene merger's: float32.
        seed (`int`, *optional*, defaults to 42): Of tensors that start new.
        allow_bin (`bool`, *optional*, defaults to `False`): Whether `.bin` weights may be read.
        overwrite (`bool`, *optional*, defaults to `False`): Whether an existing FiLA-Video repository may be replaced.
        push_to_hub (`str`, *optional*): A Hub id to upload the result to.
        max_shard_bytes (`int`, *optional*, defaults to 4 GiB): Size of one file of weights.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `Path`: The folder that was made.

    Raises:
        ValueError: If the layout is unknown or does not fit, with all tensors that do not, or an option is wrong.
        FileNotFoundError: If weights, tokenizer or configuration are not there.
        FileExistsError: If the output exists.
    """
    output = Path(output).expanduser()
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got '{dtype}'.")
    if source is None and (language_model is None or vision_tower is None):
        raise ValueError("Pass a checkpoint to convert, or both `--language-model` and `--vision-tower`.")
    if source is not None and language_model is not None:
        raise ValueError("Pass either a checkpoint to convert or a `--language-model`, not both.")
    given = {"checkpoint": source, "language model": language_model, "vision tower": vision_tower}
    given = {part: str(name) for part, name in given.items() if name is not None}
    inputs = [Path(name).expanduser() for name in given.values()]
    _check_output(output, overwrite, inputs)
    folders = {
        part: _folder(name, allow_bin, weights=part != "vision tower" or source is None)
        for part, name in given.items()
    }
    overrides = {"scene_size": scene_size, "merger_type": merger}
    overrides |= {} if pooling is None else {"pooling_mode": pooling}
    try:
        conversion = plan_conversion(folders, overrides, DTYPES[dtype], seed, allow_bin)
    except StrictDataclassError as error:
        raise ValueError(f"No model can be made like this: {error}") from error
    if push_to_hub is not None:
        # Before the long work: an account that may not write is known at once.
        HfApi().create_repo(push_to_hub, exist_ok=True)
    with _staged(output, conversion.num_bytes) as folder:
        _write(conversion, folder, given, folders, dtype, max_shard_bytes, progress)
    if push_to_hub is not None:
        HfApi().upload_folder(repo_id=push_to_hub, folder_path=output, commit_message="Converted to FiLA-Video")
    return output


def _folder(name: str, allow_bin: bool, weights: bool) -> Path:
    """A local folder, or the folder that a Hub id's files are downloaded to."""
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise FileNotFoundError(f"'{name}' is no folder, and no id of the Hub like 'organisation/model'.")
    if not weights:
        return Path(snapshot_download(name, allow_patterns=SMALL_FILES))
    folder = Path(snapshot_download(name, allow_patterns=[*SMALL_FILES, "*.safetensors"]))
    if allow_bin and not any(folder.glob("*.safetensors")):
        folder = Path(snapshot_download(name, allow_patterns=[*SMALL_FILES, "pytorch_model*.bin"]))
    return folder


def _write(
    conversion: Conversion,
    folder: Path,
    given: dict[str, str],
    folders: dict[str, Path],
    dtype: str,
    max_shard_bytes: int,
    progress: bool,
):
    """Fills a folder with the converted repository."""
    conversion.config.save_pretrained(folder)
    conversion.processor.save_pretrained(folder)
    conversion.generation_config.save_pretrained(folder)
    for file in code_files():
        shutil.copy(file, folder)
    for part, source in folders.items():
        for file in (*source.glob("LICENSE*"), *source.glob("NOTICE*")):
            name = file.name if len(folders) == 1 else f"{file.name}-{part.replace(' ', '-')}"
            shutil.copy(file, folder / name)
    (folder / "README.md").write_text(_card(conversion, given, folders, dtype), encoding="utf-8")
    # Last, because it takes long and the rest may fail.
    with tqdm(total=conversion.num_bytes, unit="B", unit_scale=True, desc="Converting", disable=not progress) as bar:
        write_sharded(folder, conversion.tensors, conversion.pieces, max_shard_bytes, bar.update)
    for remark in conversion.recipe.remarks:
        logger.info(remark)
    logger.info("New tensors: %s.", ", ".join(sorted(conversion.new)) or "none")


def _card(conversion: Conversion, given: dict[str, str], folders: dict[str, Path], dtype: str) -> str:
    hub_ids = [name for name in given.values() if not Path(name).expanduser().is_dir()]
    recipe = conversion.recipe
    facts = recipe.processor | {"layout": recipe.layout, "dtype": dtype, "remarks": recipe.remarks}
    facts["new"] = sorted(conversion.new)
    # The last part of a local path alone: where it lies on this machine is nobody's business.
    sources = {part: name if name in hub_ids else Path(name).resolve().name for part, name in given.items()}
    revisions = {part: f"{name}, revision {folders[part].name}" for part, name in given.items() if name in hub_ids}
    licences = {licence for source in folders.values() if (licence := source_licence(source))}
    title = f"FiLA-Video from {' and '.join(sources.values())}"
    licence = licences.pop() if len(licences) == 1 else None
    return model_card(title, sources | revisions, hub_ids, licence, conversion.config, facts)


def _check_output(output: Path, overwrite: bool, inputs: list[Path]):
    """Refuses to touch anything that is not a repository this program could have made."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{output} exists: choose another folder, or replace it with `--overwrite`.")
    resolved = output.resolve()
    is_ours = read_json(output / "config.json").get("model_type") == FilaVideoConfig.model_type
    if not is_ours or (output / ".git").exists() or resolved == Path(__file__).resolve().parent:
        raise FileExistsError(f"{output} is no converted repository, and `--overwrite` replaces nothing else.")
    if any(resolved == path.resolve() or resolved in path.resolve().parents for path in inputs):
        raise FileExistsError(f"{output} holds what is to be converted: choose another folder.")


@contextmanager
def _staged(output: Path, num_bytes: int) -> Iterator[Path]:
    """A folder beside the output that takes its place when all went well, and is removed otherwise."""
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if num_bytes > free:
        raise OSError(f"The weights take {num_bytes:,} bytes, but {output.parent} has {free:,} bytes free.")
    for leftover in output.parent.glob(f".{output.name}.incomplete-*"):
        logger.warning("%s was left by a conversion that was killed, or belongs to one that still runs.", leftover)
    staging = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.incomplete-"))
    try:
        folder = staging / "repository"
        folder.mkdir()
        yield folder
        if output.exists():
            output.rename(staging / "replaced")
        try:
            folder.rename(output)
        except OSError:
            if (staging / "replaced").exists():
                (staging / "replaced").rename(output)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def add_arguments(parser: argparse.ArgumentParser):
    parser.add_argument("source", nargs="?", help="folder or Hub id of a LLaVA-NeXT or llava-hf OneVision checkpoint")
    parser.add_argument("output", help="folder to make")
    parser.add_argument("--language-model", help="instead of SOURCE: folder or Hub id of a causal language model")
    parser.add_argument(
        "--vision-tower", help="its vision tower; with a LLaVA-NeXT SOURCE, where its tower's configuration is"
    )
    parser.add_argument("--scene-size", type=int, default=3, help="frames in a scene (default: 3)")
    parser.add_argument("--merger", default="weighted", choices=["weighted", "mean", "attention", "bsm"])
    parser.add_argument("--pooling", choices=["bilinear", "average", "max"], help="default: as the source says")
    parser.add_argument("--dtype", default="bfloat16", choices=list(DTYPES), help="of the weights (default: bfloat16)")
    parser.add_argument("--seed", type=int, default=42, help="of tensors that start new (default: 42)")
    parser.add_argument("--allow-bin", action="store_true", help="also read .bin weights (pickles, restricted)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it is a FiLA-Video repository")
    parser.add_argument("--push-to-hub", metavar="REPO", help="also upload the result to this Hub id")


def run(args: argparse.Namespace) -> int:
    """The command, from its parsed arguments. Exit status 0, or 2 with the reason on standard error."""
    options = {name: value for name, value in vars(args).items() if name in convert.__kwdefaults__}
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    # So that what was written is removed too where the process is told to end.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        output = convert(args.source, args.output, **options)
    except (ValueError, OSError) as error:
        print(f"fila-video: {error}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(f"{output} is ready: AutoModel.from_pretrained('{output}', trust_remote_code=True)")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="convert_weights.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


__all__ = ["add_arguments", "convert", "main", "run"]

if __name__ == "__main__":
    sys.exit(main())
