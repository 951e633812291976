"""`fila-video chat`: a conversation about a video, which is read and encoded once."""

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..chat_session_fila_video import ChatSession, Progress, Text
from .cli import PICTURES, announce_demonstration, call_options, check_writable
from .interrupts import hand_back
from .loading import Progress as Bar
from .loading import load_pipeline, quiet
from .storyboard import clock, draw_storyboard, write_picture

HELP = """\
Type a question and press Enter. Ctrl-C stops an answer, which then counts as not asked; at the prompt it leaves.
/scenes           the times of the scenes that the last answer was given on
/scenes FILE.png  a board of their pictures
/save FOLDER      keep the conversation; `fila-video chat FOLDER` goes on from there
/help             this
/quit             leave"""

LINES_WITH_ERRORS = 3  # exit status, as `answer-all` has it


def run(args: argparse.Namespace) -> int:
    """
    Reads the video, then questions from standard input until it ends, and answers to standard output. The exit status
    is 3 where no person typed them and a line could not be done.
    """
    quiet()
    announce_demonstration(args)
    pipe, options = load_pipeline(args.model, args.device, args.dtype), call_options(args)
    if os.path.exists(os.path.join(args.video, "chat.json")):
        if options:
            raise ValueError(
                f"{args.video} is a conversation with settings of its own: leave out {', '.join(options)}."
            )
        chat = pipe.resume_chat(args.video)
        for message in chat.messages:
            _tell(f"{'>' if message['role'] == 'user' else ' '} {message['content']}")
    else:
        chat = pipe.chat(args.video, progress=Bar(), **options)
        if os.path.isdir(args.video):  # its pictures came as a list, which has no name
            chat.videos[0].sources[0]["name"] = os.path.abspath(args.video)
    hand_back()
    if hasattr(sys.stdin, "reconfigure") and not sys.stdin.isatty():
        sys.stdin.reconfigure(errors="surrogateescape")  # a line in another encoding is refused alone
    if sys.stdin.isatty():
        with suppress(ImportError):  # not on every system
            importlib.import_module("readline")  # history, and editing of the line
    for video in chat.videos:
        name, duration = Path(video.sources[0]["name"]).name, clock(video.metadata.duration)
        _tell(f"{name}, {duration}: {len(video)} frames looked at. Ask about it, or type /help.")
    failed = converse(chat, args.model)
    return LINES_WITH_ERRORS if failed and not sys.stdin.isatty() else 0


def converse(chat: ChatSession, model: str | None = None) -> int:
    """
    Until the input ends or /quit; returns how many lines could not be done. `model` is what `--model` named.

    Raises:
        BrokenPipeError: If nobody reads the answers any more.
    """
    commands: dict[str, Callable[[ChatSession, str], None]] = {
        "help": lambda chat, rest: _tell(HELP),
        "scenes": show_scenes,
        "save": lambda chat, rest: save(chat, rest, model),
    }
    failed = 0
    while (line := _read_line()) is not None:
        name, _, rest = line.removeprefix("/").partition(" ")
        if not line:
            continue
        if line.startswith("/") and name in ("quit", "exit"):
            return failed
        try:
            if not line.startswith("/"):
                answer(chat, line)
            elif name in commands:
                commands[name](chat, rest.strip())
            else:
                failed += 1
                _tell(f"There is no /{name}; /help lists what there is.")
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            failed += 1
            _tell(f"fila-video: {' '.join(str(error).split())}")
    return failed


def answer(chat: ChatSession, question: str) -> None:
    """Streams an answer; Ctrl-C ends it and leaves the conversation as it was."""
    events, bar = chat.stream(question), Bar()
    try:
        for event in events:
            if isinstance(event, Progress):
                bar(event.stage, event.done, event.total)
            elif isinstance(event, Text):
                print(event.piece, end="", flush=True)
        print(flush=True)
    except KeyboardInterrupt:
        print(flush=True)
        _tell("(stopped; the question counts as not asked)")
    finally:
        events.close()


def show_scenes(chat: ChatSession, output: str) -> None:
    output = os.path.expanduser(output)  # no shell has done it
    if not chat.scenes:
        raise ValueError("No scenes were shown yet: ask something first.")
    names = [Path(video.sources[0]["name"]).name for video in chat.videos]
    if not output:
        for name, scenes in zip(names, chat.scenes, strict=True):
            times = [clock(seconds) for seconds in scenes["timestamps"][:, -1].tolist()]
            print(f"{name}, {len(times)} scenes at {', '.join(times)}", flush=True)
        return
    if os.path.splitext(output)[1].lower() not in PICTURES:
        raise ValueError(f"{output} is no kind of picture: name a .png, .jpg or .webp file.")
    if len(chat.videos) > 1:
        raise ValueError("A board shows one video, but this conversation is about several.")
    check_writable("/scenes", output, *(source["name"] for source in chat.videos[0].sources))
    scenes = chat.scenes[0]
    times, scores = scenes["timestamps"].numpy(), scenes.get("scores")
    board = draw_storyboard(
        scenes["pictures"].flatten(0, 1).numpy(),
        np.arange(times.size).reshape(times.shape),
        times.ravel(),
        title=names[0],
        subtitle=f"{clock(scenes['duration'])} · scenes: {len(times)}, of {times.shape[1]} frames each",
        duration=scenes["duration"],
        scores=None if scores is None else (scores["timestamps"].numpy(), scores["values"].cpu().numpy()),
    )
    write_picture(board, output)
    _tell(f"Drawn to {output}.")


def save(chat: ChatSession, folder: str, model: str | None = None) -> None:
    if not folder:
        raise ValueError("Name a folder: /save FOLDER.")
    folder = os.path.abspath(os.path.expanduser(folder))
    chat.save(folder)
    command = shlex.join(["fila-video", "chat", folder, *(["--model", model] if model else [])])
    _tell(f"Saved; `{command}` goes on from here.")


def _read_line() -> str | None:
    """The next line without spaces around it; `None` at the end of the input."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        if sys.stdin.isatty():
            print()
        return None


def _tell(message: str) -> None:
    """To the person, not into the answers."""
    print(message, file=sys.stderr, flush=True)


__all__ = ["converse", "run"]
