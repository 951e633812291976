"""
The command line: `fila-video answer VIDEO QUESTION`, `fila-video scenes VIDEO --output board.png`, and others.

Only the parser stands here: what a command needs is imported when it runs, so that help and mistakes cost nothing.
"""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from .. import __version__
from .endings import kind_of
from .interrupts import INTERRUPTED, EndsAtCtrlC

PACKAGE = __package__.rpartition(".")[0]
DTYPES = ("auto", "float32", "bfloat16", "float16")
# Ways to select scenes, and how a storyboard names them.
SELECTIONS = {
    "kmeans": "k-means, similar frames of the past",
    "kmeans_dissimilar": "k-means, dissimilar frames of the past",
    "farthest": "farthest points, similar frames of the past",
    "prototypes": "density peaks, similar frames of the past",
    "uniform": "evenly spread",
    "bsm": "bipartite matching",
    "question": "by the question, similar frames of the past",
}
# The same where a pool is taken whole, since it holds no more than was asked for.
SHOWN_AS = {**SELECTIONS, "all": "all there are"}
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
# Commands of other modules: each offers `add_arguments(parser)` and `run(args) -> int`.
MODULES = {
    "answer-all": ("inference.answer_all", "answer questions about thousands of videos, resumable"),
    "describe": ("inference.describe", "describe a long film: its chapters with their times, and a summary"),
    "convert": ("convert_weights", "convert other checkpoints to this layout"),
    "converted": ("conversion.cached", "list or remove source checkpoints that were converted on first use"),
    "make-videos": ("toy_world.make_videos", "film procedural videos with exact annotations"),
    "select": ("other_models.command", "choose the frames of a video for any other model"),
    "build-dataset": ("long_video.build", "build long training videos out of short captioned ones"),
}
DEMONSTRATION = (
    "fila-video: the embedded model is a demonstration that knows films of colored shapes only. For real videos "
    "name a model, such as --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct."
)


class CommandParser(argparse.ArgumentParser):
    """Says so where an option took the video for its own value."""

    took: str | None = None

    def error(self, message: str) -> NoReturn:
        if self.took is not None and message.endswith("VIDEO"):
            message += f" ({self.took})"
        super().error(message)


class MayTakeVideo(argparse.Action):
    """An option whose value may be left out: then what stands behind it is taken for it."""

    def __call__(self, parser: CommandParser, namespace: argparse.Namespace, values: str, option: str) -> None:
        if values != self.const:
            parser.took = f"{option} took {values} for its own: put {option} behind VIDEO"
        setattr(namespace, self.dest, values)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", metavar="VIDEO", help="path or URL of the video")
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="folder or Hub name (default: the embedded demonstration)")
    parser.add_argument("--device", help="such as cuda, cuda:1, mps or cpu (default: the best there is)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="of the weights; auto: the checkpoint's (default: float32 on the CPU, else auto)",
    )
    parser.add_argument("--num-scenes", type=int, help="scenes to select (default: the model's setting)")
    parser.add_argument("--selection", choices=SELECTIONS, help="how (default: the model's setting)")
    parser.add_argument("--candidate-fps", type=float, help="candidate frames per second of video")
    parser.add_argument(
        "--seek-mode", choices=["auto", "exact", "keyframe"], help="how candidates are read (default: auto)"
    )
    parser.add_argument("--seed", type=int, help="of the selection (default: the model's setting)")


def announce_demonstration(args: argparse.Namespace) -> None:
    """Says on standard error what answers where no model was named."""
    if args.model is None:
        print(DEMONSTRATION, file=sys.stderr)


def call_options(args: argparse.Namespace) -> dict:
    """The settings of the processor and of `generate` that the arguments name."""
    names = ("num_scenes", "selection", "candidate_fps", "seek_mode", "seed", "subtitles", "subtitle_tokens")
    names += ("max_new_tokens",)
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def add_subtitle_arguments(parser: argparse.ArgumentParser, what: str = "file, or a track's number or") -> None:
    parser.add_argument(
        "--subtitles", type=track_or_file, help=f"what is said: {what} language inside the video, such as 0 or eng"
    )
    parser.add_argument("--subtitle-tokens", type=int, help="tokens of all subtitles at most (default: 2048)")


def track_or_file(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    parser.add_argument("question", metavar="QUESTION", help="what to answer about the video")
    parser.add_argument(
        "--max-new-tokens", type=int, help="length of the answer at most (default: the model's setting)"
    )
    add_subtitle_arguments(parser)


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", metavar="VIDEO", help="path or URL of the video, or a folder that /save wrote")
    add_model_arguments(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, help="length of an answer at most (default: the model's setting)"
    )
    add_subtitle_arguments(parser)


def add_scenes_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    parser.add_argument("--question", help="select the scenes by this question, and show the scores of all candidates")
    parser.add_argument("--output", metavar="IMAGE", help="draw a storyboard and save it here, such as board.png")
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const="-",
        action=MayTakeVideo,
        help="write the scenes as JSON (default: to standard output)",
    )


def run_answer(args: argparse.Namespace) -> int:
    if not os.path.exists(args.video) and "://" not in args.video and os.path.isfile(args.question):
        raise ValueError(
            f"{args.question} is a file and {args.video!r} is not: pass the video first, then the question."
        )
    check_video(args.video)
    check_subtitles(args)
    from .answer import run

    return run(args)


def run_chat(args: argparse.Namespace) -> int:
    if sys.stdin is None:
        raise ValueError("There is no input to read questions from: standard input is closed.")
    check_video(args.video)
    check_subtitles(args)
    from .chat import run

    return run(args)


def run_scenes(args: argparse.Namespace) -> int:
    if args.output is None and args.json is None:
        raise ValueError("There is nothing to write: pass --output board.png, --json, or both.")
    if args.question is not None and not args.question.strip():
        raise ValueError("The question is empty: ask something.")
    if args.question is not None and args.selection not in (None, "question"):
        raise ValueError(f"--question selects the scenes by itself: leave out --selection {args.selection}.")
    if args.question is None and args.selection == "question":
        raise ValueError("--selection question needs to know what is asked: pass --question.")
    if args.output is not None and os.path.splitext(args.output)[1].lower() not in PICTURES:
        raise ValueError(f"--output {args.output} is no kind of picture: name a .png, .jpg or .webp file.")
    for option, path in (("--output", args.output), ("--json", args.json)):
        if path not in (None, "-"):
            check_writable(option, path, args.video)
    if args.json is not None:
        check_ending("--json", args.json, "JSON", "name a .json file, or put --json behind VIDEO to print it")
    check_video(args.video)
    from .scenes import run

    return run(args)


def check_video(video: str) -> None:
    """
    Raises:
        ValueError: If the video is a path and nothing lies there. Better before the model is loaded than after it.
    """
    if "://" not in video and video[:5].lower() != "data:" and not os.path.exists(video):
        raise ValueError(f"Cannot read the video {video!r}: there is no such file.")


def check_subtitles(args: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: If there is room for subtitles, but no subtitles are named.
    """
    if args.subtitle_tokens is not None and args.subtitles is None:
        raise ValueError(
            f"--subtitle-tokens {args.subtitle_tokens} is the room for subtitles, but none are named: add "
            "--subtitles, or leave it out."
        )


def check_writable(option: str, path: str, *read: object) -> None:
    """
    Raises:
        ValueError: If nothing can be written there, or it is one of the files that are `read` (paths, or anything else
            that names no file), or would be one of the pictures of a folder that is. Better before the work than
            after it.
    """
    if os.path.exists(path) and any(os.path.exists(str(each)) and os.path.samefile(path, str(each)) for each in read):
        raise ValueError(f"{option} {path} would take the place of what is read: name another file.")
    folder = os.path.dirname(path) or "."
    if os.path.splitext(path)[1].lower() in PICTURES and os.path.isdir(folder):
        for each in read:
            if os.path.isdir(str(each)) and os.path.samefile(folder, str(each)):
                raise ValueError(f"{option} {path} would be one of the pictures that are read: name another folder.")
    if not os.path.isdir(folder):
        raise ValueError(f"{option} {path}: there is no folder {folder}.")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise ValueError(f"{option} {path} cannot be written.")


def check_regular(option: str, path: str, reason: str) -> None:
    """
    Raises:
        ValueError: If the path means standard output, or something is there that is no regular file: a device or pipe.
    """
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        raise ValueError(f"{option} {path} is no file: name one, {reason}.")


def check_ending(option: str, path: str, written: str, remedy: str = "name another file") -> None:
    """
    Raises:
        ValueError: If the path has the ending of a video, picture, sound or subtitles, none of which is `written`.
    """
    if (kind := kind_of(path)) is not None:
        raise ValueError(
            f"{option} {path} is a kind of {kind} by its ending, but what is written is {written}: {remedy}."
        )


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; of the commands of other modules, only `command` gets its arguments."""
    parser = CommandParser(prog="fila-video", description="Answers questions about long videos.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    own = {
        "answer": (add_answer_arguments, run_answer, "answer a question about a video"),
        "chat": (add_chat_arguments, run_chat, "talk about a video, which is read once"),
        "scenes": (add_scenes_arguments, run_scenes, "show the scenes that are selected from a video"),
    }
    for name, (add_arguments, run, text) in own.items():
        subparser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        add_arguments(subparser)
        subparser.set_defaults(run=run)
    for name, (module_name, text) in MODULES.items():
        if importlib.util.find_spec(f"{PACKAGE}.{module_name.split('.')[0]}") is None:
            continue  # a converted repository carries no other folders
        subparser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        if name == command:
            module = importlib.import_module(f"{PACKAGE}.{module_name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None, before_run: Callable[[str], None] | None = None) -> int:
    """
    Runs a command.

    Args:
        argv (`list[str]`, *optional*): The arguments; by default those of the process.
        before_run (`Callable[[str], None]`, *optional*): Called with the command's name when its arguments are right.

    Returns:
        `int`: exit status 0, 2 with one line on standard error for wrong input, or 130 for Ctrl-C.

    Raises:
        Exception: Whatever else went wrong, a fault of the program whose traceback is wanted.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        for argument in argv:
            try:
                argument.encode()
            except UnicodeEncodeError:
                raise ValueError(f"The argument {argument!a} is not UTF-8 text: write it anew.") from None
        args = build_parser(next(iter(argv), None)).parse_args(argv)
        if before_run is not None:
            before_run(args.command)
        status = args.run(args)
        if sys.stdout is not None:  # which is closed for services
            sys.stdout.flush()  # what cannot be written is told here, and not by the interpreter at its end
        return status
    except (ValueError, OSError, ImportError) as error:  # what a user can put right; other errors are faults of ours
        print(f"fila-video: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(
            f"fila-video: There is not enough memory: {' '.join(str(error).split()) or 'an allocation failed'}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU torch raises a class of its own for it, on the CPU a plain `RuntimeError` that its allocator words."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def program() -> None:
    """The command `fila-video`. Commands that write files clean up behind an interrupt themselves."""
    interrupt = EndsAtCtrlC()
    try:
        status = main(
            before_run=lambda command: (
                interrupt.keep_temporary_files() if command in ("answer", "chat", "scenes") else interrupt.hand_back()
            )
        )
    finally:
        interrupt.remove_temporary_files()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # told already, and not once more at the interpreter's end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


if __name__ == "__main__":
    program()
