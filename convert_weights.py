"""
Makes a FiLA-Video repository of an existing checkpoint. An untrained scene merger averages the frames of a scene, so
the result works at once, and can be fine-tuned.

    python convert_weights.py lmms-lab/LLaVA-Video-7B-Qwen2 OUTPUT
    python convert_weights.py llava-hf/llava-onevision-qwen2-7b-ov-hf OUTPUT --as-source
    python convert_weights.py --language-model Qwen/Qwen2-7B-Instruct \
        --vision-tower google/siglip-so400m-patch14-384 OUTPUT
"""

import argparse
import importlib.util
import logging
import signal
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # Run in a clone where nothing is installed: its root is the package.
    __package__ = "fila_video"
    _spec = importlib.util.spec_from_file_location(__package__, Path(__file__).resolve().parent / "__init__.py")
    sys.modules[__package__] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__package__])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "folder or Hub id of a checkpoint: LLaVA's, SmolVLM2, InternVL 3 or 3.5 (not with --language-model)"
    parser.add_argument("source", help=what)
    # With `nargs="?"` no option could stand between the two. So `run` takes the first for OUTPUT where it is alone.
    parser.add_argument("output", help="folder to make").required = False
    parser.add_argument("--language-model", help="instead of SOURCE: folder or Hub id of a causal language model")
    parser.add_argument(
        "--vision-tower", help="its vision tower; with a LLaVA-NeXT SOURCE, where its tower's configuration is"
    )
    parser.add_argument(
        "--as-source", action="store_true", help="do what SOURCE does: even frames, one per scene, its own sentence"
    )
    parser.add_argument("--scene-size", type=int, help="frames in a scene (default: 3; 1 with --as-source)")
    mergers = ["weighted", "mean", "attention", "bsm"]
    parser.add_argument("--merger", default="weighted", choices=mergers, help="of scenes (default: weighted)")
    parser.add_argument(
        "--background-tokens",
        type=int,
        default=0,
        choices=[0, 1, 2],
        help="for candidate frames in no scene: 1, its mean, or 2, with a query to train (default: 0)",
    )
    parser.add_argument("--pooling", choices=["bilinear", "average", "max"], help="default: as the source says")
    parser.add_argument(
        "--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"], help="default: bfloat16"
    )
    parser.add_argument("--seed", type=int, default=42, help="of tensors that start new (default: 42)")
    parser.add_argument("--allow-bin", action="store_true", help="also read .bin weights (pickles, restricted)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it is a FiLA-Video repository")
    parser.add_argument("--push-to-hub", metavar="REPO", help="also upload the result to this Hub id")


def run(args: argparse.Namespace) -> int:
    """The command, from its parsed arguments. Exit status 0, or 2 with the reason on standard error."""
    from .conversion.convert import convert  # loads torch and transformers, which --help does without

    options = {name: value for name, value in vars(args).items() if name in convert.__kwdefaults__}
    logging.basicConfig(format="%(message)s")
    logging.getLogger(convert.__module__).setLevel(logging.INFO)
    # So that what was written is removed too where the process is told to end.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    source, output = (args.source, args.output) if args.output is not None else (None, args.source)
    try:
        convert(source, output, **options)
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


__all__ = ["add_arguments", "main", "run"]

if __name__ == "__main__":
    sys.exit(main())
