r"""
Trains a small SigLIP that compares questions with frames of the toy world, for `ContrastiveScorer` and
`asked_events --scorer`.

    python -m fila_video.evaluation.train_scorer world/train_row.jsonl world/train_short.jsonl --output scorer

The vision tower begins as the default's, the text tower is new. A question fits to every frame that shows what it
names, by color, by shape or by both; SigLIP's loss asks this of every pair in a batch. A tenth of the films is held
out, and the share of their questions whose best held-out frame fits is printed.
"""

import argparse
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import logsigmoid
from tqdm.auto import tqdm, trange
from transformers import SiglipConfig, SiglipModel, SiglipVisionModel, get_cosine_schedule_with_warmup, set_seed

from ..commands.loading import DEFAULT_MODEL, load_model, quiet
from ..other_models.frames import select_frames
from ..processing_fila_video import FilaVideoProcessor
from ..toy_world.world import COLORS, SHAPES
from .records import read_events, read_records

NAMING = ("what", "color", "when", "before", "after")
FRAMES_EACH = 12  # of a film
TEXT_TOWER = {"intermediate_size": 288, "num_hidden_layers": 2, "num_attention_heads": 3}
LONGEST = 48  # tokens of a question; some have options


@dataclass
class Film:
    """Frames `(num_frames, height, width, 3)`, the things that each shows, and what each question names."""

    frames: np.ndarray
    shown: list[list[set[str]]]
    named: list[tuple[str, set[str]]]


def read_films(file: Path) -> list[Film]:
    """The films of a file of `make-videos`, with as many frames of each, evenly spaced."""
    films = []
    records = read_records(file)
    for record, own in zip(tqdm(records, desc=file.stem, disable=None), read_events(file), strict=True):
        frames, metadata = select_frames(record.path, FRAMES_EACH, selection="uniform")
        shown = [
            [{event["color"], event["shape"]} for event in own if event["start"] <= time < event["end"]]
            for time in metadata.timestamps
        ]
        named = []
        for question in record.questions:
            words = {*COLORS, *SHAPES} & set(re.findall("[a-z]+", question.text.split("\n")[0].lower()))
            if question.kind in NAMING and words:
                named.append((question.text, words))
        films.append(Film(frames, shown, named))
    return films


def fits(named: list[set[str]], shown: list[list[set[str]]]) -> torch.Tensor:
    """`(num_questions, num_frames)`, bool: where a frame shows a thing with all that a question names."""
    return torch.tensor([[any(words <= thing for thing in things) for things in shown] for words in named])


def train(
    films: list[Film],
    tower: SiglipVisionModel,
    processor: FilaVideoProcessor,
    steps: int,
    batch_size: int,
    rate: float,
) -> tuple[SiglipModel, float]:
    """
    Trains on nine tenths of the films, questions and frames drawn anew in each step.

    Returns:
        `tuple[SiglipModel, float]`: The model, and of the questions of the held-out films that any of their frames
        fits, the share whose best frame does.
    """
    tokenizer, size = processor.tokenizer, tower.config.hidden_size
    text = {**TEXT_TOWER, "hidden_size": size, "projection_size": size, "vocab_size": len(tokenizer)}
    text |= {"max_position_embeddings": LONGEST, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    vision = {**tower.config.to_dict(), "vision_use_head": True}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    model.vision_model.load_state_dict(tower.state_dict(), strict=False)  # its head is new
    model.logit_scale.data.fill_(math.log(10))
    model.logit_bias.data.fill_(-5.0)

    def tokens(questions: list[str]) -> torch.Tensor:
        options = {"padding": "max_length", "truncation": True, "max_length": LONGEST, "return_tensors": "pt"}
        return tokenizer(questions, **options)["input_ids"]

    def pixels(some: list[Film]) -> torch.Tensor:
        frames = [frame for film in some for frame in film.frames]
        return processor.image_processor(frames, return_tensors="pt")["pixel_values"]

    held = max(1, len(films) // 10)
    sets = []
    for some in (films[held:], films[:held]):
        named = [pair for film in some for pair in film.named]
        fit = fits([words for _, words in named], [things for film in some for things in film.shown])
        sets.append((tokens([question for question, _ in named]), pixels(some), fit))
    (questions, frames, fit), (held_questions, held_frames, held_fit) = sets
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    bar = trange(steps, disable=None)
    for _ in bar:
        rows, columns = torch.randint(len(questions), (batch_size,)), torch.randint(len(frames), (batch_size,))
        scores = model(input_ids=questions[rows], pixel_values=frames[columns]).logits_per_text
        loss = -logsigmoid(torch.where(fit[rows][:, columns], scores, -scores)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    model.eval()
    with torch.no_grad():
        best = model(input_ids=held_questions, pixel_values=held_frames).logits_per_text.argmax(dim=1)
    asked = held_fit.any(dim=1)
    return model, held_fit[torch.arange(len(best)), best][asked].float().mean().item()


def main(arguments: list[str] | None = None) -> int:
    """Trains and saves; exit status 2 with one line for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", type=Path, help="JSON lines of make-videos, of training")
    parser.add_argument("--output", type=Path, required=True, help="folder of the SigLIP")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="whose vision tower it begins with")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=128, help="questions, and frames, of a step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args(arguments)
    try:
        quiet()
        set_seed(options.seed)
        model, processor = load_model(options.model, "cpu")
        films = [film for file in options.records for film in read_films(file)]
        np.random.default_rng(options.seed).shuffle(films)
        scorer, share = train(
            films, model.model.vision_tower, processor, options.steps, options.batch_size, options.learning_rate
        )
    except (ValueError, OSError, ImportError, KeyError) as error:
        sys.stderr.write(f"train_scorer: {' '.join(str(error).split())}\n")
        return 2
    scorer.save_pretrained(options.output)
    processor.image_processor.save_pretrained(options.output)
    processor.tokenizer.save_pretrained(options.output)
    sys.stdout.write(f"The best of all held-out frames fits to {share:.1%} of the held-out questions.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
