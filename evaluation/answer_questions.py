"""
Answers the questions of annotated videos and judges the answers.

    python -m fila_video.evaluation.answer_questions --model . --records test.jsonl --train train.jsonl

Several `--model` are taken as training seeds of one model. Each `--selection` is a column; the column `blind`
asks the same model without the video, `constant` is the best constant answer that `--train` teaches.
"""

import argparse
import os
import sys
from pathlib import Path

from tqdm.auto import tqdm

from ..commands.cli import check_ending, check_writable
from ..commands.loading import DEFAULT_MODEL, load_model, quiet
from ..scene_selection_fila_video import INITS
from .answering import Answerer
from .judging import BlindBaseline
from .kept import KeptAnswers
from .records import read_records
from .results import asked_with, evaluate, explained, save_results, summary
from .selections import SELECTIONS, find_selection, own_selection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", action="append", help="folder or Hub name (default: the embedded model)")
    parser.add_argument("--records", required=True, metavar="FILE", help="JSON lines with questions")
    parser.add_argument("--train", metavar="FILE", help="JSON lines of training, for chance and the constant answer")
    parser.add_argument(
        "--selection",
        action="append",
        help=f"one or more of {', '.join(SELECTIONS)} (default: the model's)",
    )
    parser.add_argument(
        "--init",
        choices=INITS,
        help="initial centers of k-means (by default k-means++, and the model's without --selection)",
    )
    parser.add_argument("--num-scenes", type=int, help="default: the model's setting")
    parser.add_argument("--encoded-candidates", type=int, help="thin pools to so many (default: the model's)")
    parser.add_argument("--max-new-tokens", type=int, help="length of an answer at most (default: the model's)")
    parser.add_argument("--no-blind", action="store_true", help="do not ask without the video")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N records")
    parser.add_argument("--output", metavar="FILE", help="save every answer as JSON; goes on where a run broke off")
    parser.add_argument("--device", help="such as cuda or cpu (default: the best there is)")


def load_answerer(model: str, device: str | None = None, **options: int | None) -> Answerer:
    """The model of that folder or name, with its processor; see [`load_model`] for errors."""
    quiet()
    return Answerer(*load_model(model, device), **options)


def run(args: argparse.Namespace) -> int:
    """Prints the tables of the answers."""
    if args.output is not None:
        check_writable("--output", args.output, args.records, args.train)
        check_ending("--output", args.output, "JSON")
    models = args.model or [str(DEFAULT_MODEL)]
    records = read_records(args.records, args.limit)
    baseline = None
    if args.train is not None:
        train = read_records(args.train, check_files=False)
        baseline = BlindBaseline(question for record in train for question in record.questions)
    options = {name: getattr(args, name) for name in ("num_scenes", "max_new_tokens", "encoded_candidates")}
    answerers = {model: load_answerer(model, args.device, **options) for model in models}
    processor = answerers[models[0]].processor
    names = args.selection or [processor.selection]
    unused = [name for name in names if name not in ("kmeans", "kmeans_dissimilar")]
    if args.init is not None and unused:
        raise ValueError(f"`--init` is of kmeans and kmeans_dissimilar, but {', '.join(unused)} would not use it.")
    # A name says how the centers start; a model's own settings hold where nothing was named.
    if args.selection or args.init:
        selections = {name: find_selection(name, args.init) for name in names}
    else:
        selections = {processor.selection: own_selection(processor.video_processor.scene_settings())}
    kept, blind = None, not args.no_blind
    if args.output is not None and (os.path.isfile(args.output) or not os.path.exists(args.output)):  # no pipe
        output = Path(args.output).resolve()  # beside the file itself: nothing may stand beside /dev/stdout
        kept = KeptAnswers(output.with_name(f"{output.name}.part"), asked_with(answerers, selections, blind))
    with tqdm(total=len(records), desc="Answering", disable=None) as bar:
        show = lambda done, total: bar.update(done - bar.n)  # noqa: E731
        results = evaluate(answerers, records, selections, blind, baseline, show, kept)
    if args.output is not None:
        save_results(results, args.output)
    if kept is not None:
        kept.remove()
    sys.stdout.write(explained(summary(list(results.values()))))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on standard error for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        return run(args)
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"answer_questions: {' '.join(str(error).split())}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
