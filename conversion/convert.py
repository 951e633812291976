"""A conversion from beginning to end: sources found, everything planned and checked, the repository written."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from huggingface_hub import HfApi, snapshot_download
from tqdm.auto import tqdm

from ..configuration_fila_video import FilaVideoConfig
from .files import SHARD_BYTES, bins_let_go, read_checkpoint, read_config, read_json, write_shards
from .layouts import find_layout
from .plan import Conversion, plan_conversion
from .recipes import refuse_experts, refuse_quantized
from .repository import ROOT, code_files, copy_licenses, source_license

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
TIME_MARKS = {
    "none": "no",
    "sentence": "the paper's sentence",
    "llava_video": "LLaVA-Video's sentence",
    "per_scene": "a mark before each scene, as the source's before each frame",
}
SMALL_FILES = ["*.json", "*.txt", "*.jinja", "*.model", "README.md", "LICENSE*", "NOTICE*"]
SUBFOLDERS = ["*/*"]  # of a checkpoint on the Hub: states of its training, exports; nothing there is read
OLD_WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]


def convert(
    source: str | Path | None,
    output: str | Path,
    *,
    language_model: str | Path | None = None,
    vision_tower: str | Path | None = None,
    as_source: bool = False,
    scene_size: int | None = None,
    merger: str = "weighted",
    background_tokens: int = 0,
    pooling: str | None = None,
    dtype: str = "bfloat16",
    seed: int = 42,
    allow_bin: bool = False,
    overwrite: bool = False,
    push_to_hub: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
) -> Path:
    """
    Makes a complete FiLA-Video repository of a checkpoint.

    Args:
        source (`str` or `Path`, *optional*):
            Folder or Hub id of a checkpoint of one of the bases in conversion/README.md.
        output (`str` or `Path`):
            The folder to make. One that is the working directory or a mount point is filled, and a link followed.
        language_model, vision_tower (`str` or `Path`, *optional*):
            Instead of `source`, folders or Hub ids of the parts of a model to train. With a LLaVA-NeXT `source`,
            `vision_tower` alone says where its tower's configuration is, and its weights if the source has none; of
            SigLIP so400m/14-384 the configuration is known.
        as_source (`bool`, *optional*, defaults to `False`):
            Make a model that does what its source does: every scene a frame, as many frames as the source takes,
            evenly spread, with the source's own sentence about their times.
        scene_size (`int`, *optional*): Frames in a scene: 3, and 1 with `as_source`.
        merger (`str`, *optional*, defaults to `"weighted"`): `"weighted"`, `"mean"`, `"attention"` or `"bsm"`.
        background_tokens (`int`, *optional*, defaults to 0):
            Tokens for frames of the pool that are in no scene: 1, their mean patch, or 2, with a query to train.
        pooling (`str`, *optional*):
            `"bilinear"`, `"average"` or `"max"` instead of the source's; LLaVA-Video is evaluated with `"average"`.
        dtype (`str`, *optional*, defaults to `"bfloat16"`): Of the weights, except the scene merger's: float32.
        seed (`int`, *optional*, defaults to 42): Of tensors that start new.
        allow_bin (`bool`, *optional*, defaults to `False`): Whether `.bin` weights may be read.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether an existing FiLA-Video repository may be replaced, and any repository of the Hub be uploaded into.
        push_to_hub (`str`, *optional*): A Hub id to upload the result to; other weights there are removed.
        max_shard_bytes (`int`, *optional*, defaults to 2 GiB): Size of one file of weights.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `Path`: The folder that was made.

    Raises:
        ValueError: If the layout is unknown or does not fit, or an option is wrong.
        FileNotFoundError: If weights, tokenizer or configuration are not there.
        FileExistsError: If the output exists, or the repository of the Hub holds something else.
        OSError: If the disk has no room, or another process converts to the same output.
    """
    output = Path(output).expanduser().absolute()
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got '{dtype}'.")
    if source is None and (language_model is None or vision_tower is None):
        raise ValueError("Pass a checkpoint to convert, or both `--language-model` and `--vision-tower`.")
    if source is not None and language_model is not None:
        raise ValueError("Pass either a checkpoint to convert or a `--language-model`, not both.")
    if as_source and (source is None or scene_size not in (None, 1)):
        raise ValueError("`--as-source` takes a checkpoint to convert, and every scene is one frame then.")
    if as_source and background_tokens:
        raise ValueError(
            f"`--as-source` does what the source does, which has no `--background-tokens` ({background_tokens})."
        )
    if scene_size is not None and scene_size < 1:
        raise ValueError(f"`scene_size` must be at least 1, got {scene_size}.")
    given = {"checkpoint": source, "language model": language_model, "vision tower": vision_tower}
    given = {part: str(name) for part, name in given.items() if name is not None}
    inputs = [Path(name).expanduser() for name in given.values()]
    _check_output(output, overwrite, inputs)
    output = output.resolve()

    with bins_let_go():
        folders = _fetch_parts(given, allow_bin)
        overrides = {"scene_size": scene_size or (1 if as_source else 3), "merger_type": merger}
        overrides |= {"background_tokens": background_tokens}
        overrides |= {} if pooling is None else {"pooling_mode": pooling}
        conversion = plan_conversion(
            folders, overrides=overrides, dtype=DTYPES[dtype], as_source=as_source, seed=seed, allow_bin=allow_bin
        )
        if push_to_hub is not None:
            # Before the long work: an account that may not write is known at once.
            HfApi().create_repo(push_to_hub, exist_ok=True)
            _check_hub(push_to_hub, overwrite)
        with _staged(output, overwrite, inputs, conversion.num_bytes) as folder:
            conversion.config.save_pretrained(folder)
            conversion.processor.save_pretrained(folder)
            conversion.generation_config.save_pretrained(folder)
            for file in code_files():
                shutil.copy(file, folder)
            for part, where in folders.items():
                copy_licenses(where, folder, "" if len(folders) == 1 else f"-{part.replace(' ', '-')}")
            card = _card(conversion, given, folders, dtype, as_source)
            (folder / "README.md").write_text(card, encoding="utf-8")
            # Last, because it takes long and the rest may fail.
            with tqdm(
                total=conversion.num_bytes, unit="B", unit_scale=True, desc="Converting", disable=not progress
            ) as bar:
                write_shards(folder, conversion.tensors, conversion.tensor, max_shard_bytes, bar.update)
    for remark in conversion.recipe.remarks:
        logger.info(remark)
    logger.info("New tensors: %s.", ", ".join(sorted(conversion.new)) or "none")
    if push_to_hub is not None:
        HfApi().upload_folder(
            repo_id=push_to_hub,
            folder_path=output,
            commit_message="Converted to FiLA-Video",
            delete_patterns=OLD_WEIGHTS,  # those that this commit adds it keeps
        )
    return output


def fetch(name: str, *, weights: bool = False, allow_bin: bool = False) -> Path:
    """
    The folder of a checkpoint: a local one, or the snapshot of a Hub id, its small files alone or with the weights.

    Raises:
        FileNotFoundError: If it is neither a folder nor a Hub id.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise FileNotFoundError(f"'{name}' is no folder, and no id of the Hub like 'organization/model'.")
    patterns = [*SMALL_FILES, "*.safetensors"] if weights else SMALL_FILES
    folder = Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=SUBFOLDERS))
    if weights and allow_bin and not any(folder.glob("*.safetensors")):
        patterns = [*SMALL_FILES, "pytorch_model*.bin"]
        folder = Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=SUBFOLDERS))
    return folder


def _fetch_parts(given: dict[str, str], allow_bin: bool) -> dict[str, Path]:
    """The folder of each part that was named, with the weights that are needed of it."""
    folders = {part: fetch(name) for part, name in given.items()}
    # What can be refused is refused before gigabytes of weights are fetched.
    configs = {part: read_config(folder) for part, folder in folders.items()}
    if "checkpoint" in given:
        layout = find_layout(given["checkpoint"], configs["checkpoint"])
        if "vision tower" in given and not layout.needs_tower_config:
            raise ValueError(
                f"`--vision-tower` is for LLaVA-NeXT checkpoints: those of {layout.name} have its configuration with "
                "them."
            )
    for part, config in configs.items():
        refuse_quantized(given[part], config)
        refuse_experts(given[part], config)
    for part in folders:
        if part != "vision tower":
            folders[part] = fetch(given[part], weights=True, allow_bin=allow_bin)
    # Last: the checkpoint may have the weights of its tower itself.
    if "vision tower" in folders:
        names = read_checkpoint(folders["checkpoint"], allow_bin) if "checkpoint" in folders else ()
        if not any("vision_tower." in name for name in names):
            folders["vision tower"] = fetch(given["vision tower"], weights=True, allow_bin=allow_bin)
    return folders


def _card(conversion: Conversion, given: dict[str, str], folders: dict[str, Path], dtype: str, as_source: bool) -> str:
    """The README of a converted repository."""
    config, recipe = conversion.config, conversion.recipe
    hub_ids = [name for name in given.values() if not Path(name).expanduser().is_dir()]
    # The last part of a local path alone: where it lies on this machine is nobody's business.
    sources = {part: name if name in hub_ids else Path(name).resolve().name for part, name in given.items()}
    revisions = {part: f"{name}, revision {folders[part].name}" for part, name in given.items() if name in hub_ids}
    licenses = {license for source in folders.values() if (license := source_license(source))}
    front = ["library_name: transformers", "pipeline_tag: video-text-to-text", "tags:", "- fila-video", "- long-video"]
    front += [f"license: {licenses.pop()}"] if len(licenses) == 1 else []
    front += ["base_model:", *(f"- {name}" for name in hub_ids)] if hub_ids else []
    rows = {
        "frames in a scene": f"{config.scene_size}, merged by `{config.merger_type}`",
        "scenes of a video": recipe.num_scenes,
        "tokens of a frame in no scene": config.background_tokens,
        "pooling": f"`{config.pooling_mode}`, stride {config.pooling_stride}",
        "newline": f"`{config.newline_position}`",
        "times in the prompt": TIME_MARKS[conversion.processor.time_marks],
        "frames are chosen": "evenly, as the source does" if as_source else "by scene selection",
        "weights": dtype,
    }
    lines = ["---", *front, "---", "", f"# FiLA-Video from {' and '.join(sources.values())}", ""]
    lines += ["A FiLA-Video model, converted from existing weights; it was not trained further.", ""]
    lines += ["## Where the weights come from", ""]
    lines += [f"- {part}: {source}" for part, source in (sources | revisions).items()]
    lines += [f"- Layout of the source: {recipe.layout}."]
    lines += [f"- New, not from the source: {', '.join(f'`{name}`' for name in sorted(conversion.new)) or 'nothing'}."]
    lines += [f"- {remark}" for remark in recipe.remarks]
    if config.merger_type == "weighted":
        lines += ["- The scene merger is untrained: it averages the frames of a scene until it is fine-tuned."]
    lines += ["- The sources' licenses hold for this repository too.", "", "## Settings", "", "| setting | value |"]
    lines += ["| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    lines += ["", "## Use", "", "```python", "from transformers import pipeline", ""]
    lines += ['pipe = pipeline("video-text-to-text", model=".", trust_remote_code=True)  # or this repository\'s id']
    lines += ['messages = [{"role": "user", "content": [{"type": "video", "path": "video.mp4"},']
    lines += ['                                         {"type": "text", "text": "What happens?"}]}]']
    lines += ['print(pipe(text=messages, max_new_tokens=64)[0]["generated_text"])', "```", ""]
    return "\n".join(lines)


def _check_output(output: Path, overwrite: bool, inputs: list[Path]) -> None:
    """Refuses to touch anything that is not a repository this program could have made."""
    if output.is_symlink() and not output.exists():
        raise FileExistsError(
            f"{output} is a link to {os.readlink(output)}, where nothing is: make that folder first."
        )
    if not output.exists() or (output.is_dir() and not _contents(output)):
        return
    if not overwrite:
        raise FileExistsError(f"{output} exists: choose another folder, or replace it with `--overwrite`.")
    resolved = output.resolve()
    is_ours = read_json(output / "config.json").get("model_type") == FilaVideoConfig.model_type
    if not is_ours or (output / ".git").exists() or resolved == ROOT:
        raise FileExistsError(f"{output} is no converted repository, and `--overwrite` replaces nothing else.")
    if any(resolved == path.resolve() or resolved in path.resolve().parents for path in inputs):
        raise FileExistsError(f"{output} holds what is to be converted: choose another folder.")


def _check_hub(repository: str, overwrite: bool) -> None:
    """Refuses to upload among the files of something else, which would stay beside those of the new model."""
    files = set() if overwrite else set(HfApi().list_repo_files(repository)) - {".gitattributes", "README.md"}
    if not files:
        return
    config = read_json(Path(HfApi().hf_hub_download(repository, "config.json"))) if "config.json" in files else {}
    if config.get("model_type") != FilaVideoConfig.model_type:
        raise FileExistsError(
            f"{repository} is on the Hub and no converted repository: choose another name, or upload into it with "
            "`--overwrite`."
        )


def _work_names(output: Path) -> tuple[str, str]:
    """What a conversion works with: a folder, and a lock. They lie beside the output, or in one that is filled."""
    return f".{output.name}.incomplete", f".{output.name}.lock"


def _contents(output: Path) -> list[Path]:
    return [path for path in output.iterdir() if path.name not in _work_names(output)]


@contextmanager
def _staged(output: Path, overwrite: bool, inputs: list[Path], num_bytes: int) -> Iterator[Path]:
    """
    A folder beside the output that takes its place when all went well, and is removed otherwise. One that a killed
    conversion left there is removed: who holds the lock knows that nobody writes to it.

    The working directory and a mount point have to stay what they are: the folder lies in them, on the same disk, and
    its files are moved at the end.
    """
    is_filled = output.is_dir() and (os.path.ismount(output) or output.samefile("."))
    home = output if is_filled else output.parent
    home.mkdir(parents=True, exist_ok=True)
    staging, lock_file = (home / name for name in _work_names(output))
    lock = FileLock(lock_file)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise OSError(f"Another process converts to {output}: wait for it, or choose another folder.") from error
    try:
        shutil.rmtree(staging, ignore_errors=True)
        free = shutil.disk_usage(home).free
        if num_bytes > free:
            raise OSError(f"The weights take {num_bytes:,} bytes, but {home} has {free:,} bytes free.")
        folder, replaced = staging / "repository", staging / "replaced"
        folder.mkdir(parents=True)
        yield folder
        _check_output(output, overwrite, inputs)  # again: the work took its time
        if is_filled:
            replaced.mkdir()
            moves = [(path, replaced / path.name) for path in _contents(output)]
            moves += [(path, output / path.name) for path in folder.iterdir()]
        else:
            moves = [(output, replaced)] if output.exists() else []
            moves += [(folder, output)]
        _move(moves)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        # While it is held: whoever waits for it finds that it is gone, and makes a new one. Windows removes it with
        # the lock, and not before.
        with suppress(PermissionError):
            lock_file.unlink(missing_ok=True)
        lock.release()


def _move(moves: list[tuple[Path, Path]]) -> None:
    """Renames one after the other, and all back where one fails."""
    try:
        for old, new in moves:
            old.rename(new)
    except BaseException:
        for old, new in reversed(moves):
            if not os.path.lexists(old):
                new.rename(old)
        raise


__all__ = ["DTYPES", "convert", "fetch"]
