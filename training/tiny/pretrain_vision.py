r"""
Teaches the vision tower of a small checkpoint to see, before any stage: the paper starts from a SigLIP that was
trained on pictures (section 4.1), and a tower of random weights would have to learn through an untrained language
model.

    python -m fila_video.training.tiny.pretrain_vision INITIAL WORLD/train_picture.jsonl [MORE.jsonl ...] OUTPUT

The tower learns the color and the shape of the thing in a picture, and where it is. Of a thing whose color or shape
has no name, it learns the rest: from such pictures, that a shape has no color of its own. Started again, it goes on
from its last whole checkpoint, with the same arguments alone; the losses are written to OUTPUT/log.jsonl.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset
from transformers import (
    BaseImageProcessor,
    EvalPrediction,
    SiglipConfig,
    SiglipForImageClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import logging

from ...inference.output import differences, model_mark
from ...long_video.annotations import fingerprint
from ...modeling_fila_video import FilaVideoForConditionalGeneration
from ...processing_fila_video import FilaVideoProcessor
from ...toy_world.world import COLORS, NAMELESS, SHAPES, UNSEEN_PAIRS
from ..data import JsonLines
from ..optimizers import MuonWithAdamW
from ..train import last_checkpoint
from ..trainer import LOG

logger = logging.get_logger(__name__)

ARGUMENTS = "arguments.json"  # of the run that the checkpoints are of
WORDS = (*COLORS, *SHAPES)
LABELS = (*WORDS, "x", "y")
NOTHING = -1.0  # is learned of that label


class PictureSet(Dataset):
    """
    Pictures of one thing or none, and a number from 0 to 1 for each of [`LABELS`]: whether the thing has that color or
    shape, and where its middle is; [`NOTHING`] where nothing is learned. A tower that learns no places has nothing in
    the mean of its patches to tell motion by. A record of anything else is a `ValueError`.
    """

    def __init__(self, records: str | Path, image_processor: BaseImageProcessor) -> None:
        self.records, self.folder = JsonLines([records]), Path(records).parent
        self.image_processor = image_processor

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        record = self.records[index]
        if "things" not in record or len(record["things"]) > 1:
            raise ValueError(
                f"{record.get('id')} is no picture of one thing or none that names it in `things`: film the kind "
                "`picture` anew."
            )
        with Image.open(self.folder / record["image"]) as image:
            pixels = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        thing = next(iter(record["things"]), {"x": 0.5, "y": 0.5})
        color, shape = thing.get("color"), thing.get("shape")
        words = [float(word in (color, shape)) for word in WORDS]
        for place, word in enumerate(WORDS):
            nameless = (color if word in COLORS else shape) == NAMELESS
            # That a red thing is no ring, it would learn from red things that are never rings.
            never = (color, word) in UNSEEN_PAIRS or (word, shape) in UNSEEN_PAIRS
            if nameless or (never and not words[place]):
                words[place] = NOTHING
        return {"pixel_values": pixels, "labels": torch.tensor([*words, thing["x"], thing["y"]])}


def measured(prediction: EvalPrediction) -> dict:
    """The share of pictures whose words are all `right`, and how far `off` the places are, in sides of a picture."""
    found, expected = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
    words = len(WORDS)
    right = ((found[:, :words] > 0) == (expected[:, :words] > 0.5)) | (expected[:, :words] == NOTHING)
    off = (found[:, words:].sigmoid() - expected[:, words:]).abs()
    return {"right": right.all(dim=1).float().mean().item(), "off": off.mean().item()}


def loss_of_what_shows(
    outputs: ImageClassifierOutput, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """
    Binary cross-entropy of the `labels` `(batch_size, num_labels)` that say something: their mean, or of a batch that
    is one of a step's, their sum over all labels of the step.
    """
    shows = labels != NOTHING
    loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits[shows], labels[shows], reduction="sum")
    return loss / (shows.sum() if num_items_in_batch is None else num_items_in_batch)


def pretrain_vision(
    model: FilaVideoForConditionalGeneration,
    processor: FilaVideoProcessor,
    records: Sequence[str | Path],
    arguments: TrainingArguments,
) -> dict:
    """
    Trains `model`'s vision tower in place, on all `records` but the last 500 of the first file, or the last half of
    fewer than 1000. It goes on from the last checkpoint in the output folder of `arguments`, if there is one.

    Returns:
        `dict`: The figures on these: `eval_right`, the share of pictures whose words are all right, and
        `eval_off`, the mean error of places. And `log`, the trainer's.
    """
    pictures, *more = (PictureSet(file, processor.image_processor) for file in records)
    if len(pictures) < 2:
        raise ValueError(f"{records[0]} has one picture: some are trained on and others held out, so more are needed.")
    trained = len(pictures) - min(500, len(pictures) // 2)
    config = SiglipConfig(vision_config=model.config.vision_config.to_dict(), num_labels=len(LABELS))
    classifier = SiglipForImageClassification(config)
    tower = model.model.vision_tower
    classifier.vision_model.load_state_dict(tower.state_dict())
    classifier.set_attn_implementation("eager")  # on a CPU, the fastest for so few patches
    matrices = [value for value in classifier.parameters() if value.ndim == 2 and len(value) != len(LABELS)]
    others = [value for value in classifier.parameters() if value.ndim != 2 or len(value) == len(LABELS)]
    rate = arguments.learning_rate
    optimizer = MuonWithAdamW(
        [{"params": matrices, "lr": rate, "muon": True}, {"params": others, "lr": rate, "muon": False}]
    )
    trainer = Trainer(
        classifier,
        arguments,
        train_dataset=ConcatDataset([Subset(pictures, range(trained)), *more]),
        eval_dataset=Subset(pictures, range(trained, len(pictures))),
        compute_loss_func=loss_of_what_shows,
        compute_metrics=measured,
        optimizers=(optimizer, None),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(arguments.output_dir))
    figures = trainer.evaluate()
    tower.load_state_dict(classifier.vision_model.state_dict())
    return {**figures, "log": trainer.state.log_history}


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach the vision tower of a small checkpoint to see.")
    parser.add_argument("model", help="folder of the checkpoint")
    parser.add_argument("records", nargs="+", help="JSONL files of pictures, as make-videos writes them")
    parser.add_argument("output", help="folder for the checkpoint with the trained tower")
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    checkpoints = Path(args.output) / "checkpoints"
    begun, now = checkpoints / ARGUMENTS, {name: value for name, value in vars(args).items() if name != "output"}
    now |= {"model": model_mark(args.model), "records": [fingerprint(file) for file in args.records]}
    before = json.loads(begun.read_text(encoding="utf-8")) if begun.is_file() else now
    if last_checkpoint(checkpoints) and (other := differences(before, now)):
        parser.error(
            f"the run in {checkpoints} was begun with others than these ({other}): give what it was begun with, name "
            "another output, or remove that folder to begin anew"
        )
    checkpoints.mkdir(parents=True, exist_ok=True)
    if last_checkpoint(checkpoints) is None:
        begun.write_text(json.dumps(now) + "\n", encoding="utf-8")
    set_seed(args.seed)
    model = FilaVideoForConditionalGeneration.from_pretrained(args.model)
    processor = FilaVideoProcessor.from_pretrained(args.model)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=50,
        logging_first_step=True,
        logging_steps=50,
        save_steps=200,
        save_total_limit=2,
        dataloader_num_workers=1,
        dataloader_persistent_workers=True,
        seed=args.seed,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        use_cpu=not torch.cuda.is_available(),
    )
    figures = pretrain_vision(model, processor, args.records, arguments)
    right, off = figures["eval_right"], figures["eval_off"]
    logger.warning(f"Held-out pictures: color and shape of {right:.1%} are right, places are off by {off:.3f} sides.")
    (Path(args.output) / LOG).write_text("".join(json.dumps(line) + "\n" for line in figures["log"]), encoding="utf-8")
    processor.save_pretrained(args.output)
    model.save_pretrained(args.output)  # last: where it is, the tower is trained
    shutil.rmtree(checkpoints)


if __name__ == "__main__":
    main()
