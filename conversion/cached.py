"""
Source checkpoints as models: converted once into `huggingface_hub`'s place for derived files, and found there again.

    fila-video converted                    # what was converted, and how large it is
    fila-video converted --remove NAME      # a source's name or a key of that list
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from huggingface_hub import constants

from ..commands.files import replacing

logger = logging.getLogger(__name__)

LIBRARY = "fila_video"
DONE, RECORD = "repository", "source.json"


def convert_once(model: str | Path, **settings: Any) -> Path:
    """
    The FiLA-Video repository of a source checkpoint: converted at the first call, found at all later ones. A Hub id
    follows the Hub's rules (`HF_HUB_OFFLINE`, tokens); what is converted is known by its commit, a local folder by its
    files' sizes and times, both with the settings, a `vision_tower`'s too, and this package's version.

    Args:
        model (`str` or `Path`): Folder or Hub id of a checkpoint that [`convert`] takes.
        **settings: Of [`convert`], such as `as_source=True`; not `push_to_hub` and `overwrite`.

    Returns:
        `Path`: The converted repository. It belongs to the cache: do not write to it.

    Raises:
        ValueError: If the checkpoint cannot be converted, or `push_to_hub` or `overwrite` is given.
        OSError: If it is not there, cannot be fetched, or the disk has no room for it.
    """
    from .. import __version__  # not above, where `fila-video converted` would wait for torch
    from .convert import convert, fetch
    from .files import read_config
    from .layouts import find_layout

    for setting in ("push_to_hub", "overwrite"):
        if settings.pop(setting, None):
            raise ValueError(f"`{setting}` has no effect on what is converted already: use `convert`.")
    name = str(model)
    folder = fetch(name)
    find_layout(name, read_config(folder))
    is_local = Path(name).expanduser().is_dir()
    source, state = _identity(name, folder)
    record = {"source": source, "state": state, "version": __version__}
    # A progress bar makes no other model.
    record["settings"] = {key: str(value) for key, value in sorted(settings.items()) if key != "progress"}
    if (tower := settings.get("vision_tower")) is not None:
        record["settings"]["vision_tower"], record["tower_state"] = _identity(str(tower), fetch(str(tower)))
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
    place = _assets() / (folder.resolve().name if is_local else name.replace("/", "--")) / key
    if (place / DONE).is_dir():
        return place / DONE
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "lock"):
        if (place / DONE).is_dir():  # by a process that had the lock before
            return place / DONE
        place.mkdir(parents=True, exist_ok=True)  # somebody may have removed it meanwhile
        _check_space(name, folder, is_local, place)
        record["state"] = folder.name if not is_local else "local"
        with replacing(place / RECORD) as unfinished:
            unfinished.write_text(json.dumps(record, indent=2), encoding="utf-8")
        # Written beside its place and renamed: what is there is whole.
        convert(name, place / DONE, **settings)
        return place / DONE


def _identity(name: str, folder: Path) -> tuple[str, Any]:
    """Where a checkpoint is, and by what it is known to be the same: a commit, or a folder's files."""
    if not Path(name).expanduser().is_dir():
        return name, folder.name  # a snapshot's folder is named by its commit
    files = [(file, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
    return str(folder.resolve()), [(file.name, stat.st_size, stat.st_mtime_ns) for file, stat in files]


def _check_space(name: str, folder: Path, is_local: bool, place: Path) -> None:
    """Says how much is fetched and written, and refuses where the disk has no room for it."""
    download = 0
    if not is_local and not constants.HF_HUB_OFFLINE:
        from huggingface_hub import snapshot_download

        from .convert import SUBFOLDERS

        planned = snapshot_download(name, allow_patterns=["*.safetensors"], ignore_patterns=SUBFOLDERS, dry_run=True)
        download = sum(file.file_size or 0 for file in planned if file.will_download)
        size = sum(file.file_size or 0 for file in planned)
    else:
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    message = "%s is converted once: %.1f GB to download, about %.1f GB to write to %s."
    logger.warning(message, name, download / 1e9, size / 1e9, place)
    hub = Path(constants.HF_HUB_CACHE)
    same_disk = hub.is_dir() and hub.stat().st_dev == place.stat().st_dev
    for where, needed in ((place, size + download * same_disk), (hub if hub.is_dir() else place, download)):
        free = shutil.disk_usage(where).free
        if needed > free:
            raise OSError(f"{needed:,} bytes are needed on the disk of {where}, but {free:,} are free.")


def _assets() -> Path:
    return Path(constants.HF_ASSETS_CACHE) / LIBRARY


def list_converted() -> list[dict]:
    """
    A dictionary a conversion: `source`, `state`, `settings`, `version`, `key`, `path`, `bytes` and `complete`. One
    whose record cannot be read is incomplete, and its `source` is the name of its folder.
    """
    entries = []
    for file in sorted(_assets().glob(f"*/*/{RECORD}")):
        place = file.parent
        size = sum(each.stat().st_size for each in place.rglob("*") if each.is_file())
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            record = {name: record[name] for name in ("source", "state", "version", "settings")}
        except (ValueError, KeyError, TypeError):  # half a file, of a power cut
            record = {"source": place.parent.name, "state": "incomplete", "version": None, "settings": {}}
        extra = {"key": place.name, "path": place / DONE, "bytes": size}
        extra["complete"] = record["version"] is not None and (place / DONE).is_dir()
        entries.append(record | extra)
    return entries


def _remove(place: Path) -> None:
    """
    Raises:
        OSError: If it is being converted at this moment.
    """
    try:
        with FileLock(place / "lock", timeout=0):
            if (place / DONE).exists():
                # At once: what is found under this name must always be whole.
                (place / DONE).rename(place / f".{DONE}.removed")
            # Windows keeps the file of a lock that is held, and removes it with the lock.
            shutil.rmtree(place, ignore_errors=os.name == "nt")
    except Timeout as error:
        raise OSError(f"{place} is being converted by another process: wait for it, or end it.") from error
    if os.name == "nt":
        shutil.rmtree(place)
    if not any(place.parent.iterdir()):
        place.parent.rmdir()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove", nargs="+", metavar="NAME", help="remove these: sources or keys of the list")


def run(args: argparse.Namespace) -> int:
    """Lists what was converted, or removes some of it. Exit status 0, or 2 where there is nothing of that name."""
    entries = list_converted()
    chosen = {}
    for name in args.remove or []:
        folder = os.path.realpath(os.path.expanduser(name))  # folders are listed by their whole paths
        of_name = {}
        for meant in (name, folder):
            of_name = of_name or {entry["key"]: entry for entry in entries if meant in (entry["source"], entry["key"])}
        if not of_name:
            print(f"fila-video: nothing of the name {name} was converted.", file=sys.stderr)
            return 2
        chosen |= of_name
    for entry in chosen.values():
        _remove(entry["path"].parent)
        print(f"removed {entry['key']} {entry['source']}")
    if not args.remove:
        if not entries:
            print("fila-video: nothing was converted yet.", file=sys.stderr)
        for entry in entries:
            settings = " ".join(f"{name}={value}" for name, value in entry["settings"].items())
            state = entry["state"] if entry["complete"] else "incomplete"
            print(f"{entry['key']}  {entry['bytes'] / 1e9:.2f} GB  {entry['source']}  {state}  {settings}".rstrip())
    return 0


__all__ = ["add_arguments", "convert_once", "list_converted", "run"]
