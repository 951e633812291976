"""Samples become a batch: padded text, stacked videos, and the places of isolated turns."""

import torch
from torch.nn.utils.rnn import pad_sequence

from ..video_processing_fila_video import pad_frames, pad_rows
from .isolated_turns import turn_inputs
from .samples import IGNORED


class Collator:
    """
    Pads on the right: positions then begin at 0 in every row.

    Args:
        pad_token_id (`int`):
            The padding token of the tokenizer.
        isolate_turns (`bool`, *optional*, defaults to `False`):
            The batch then has [`turn_inputs`] instead of `attention_mask`.
    """

    def __init__(self, pad_token_id: int, isolate_turns: bool = False) -> None:
        self.pad_token_id, self.isolate_turns = pad_token_id, isolate_turns

    def __call__(self, samples: list[dict]) -> dict:
        ids = [sample["input_ids"] for sample in samples]
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence([sample["labels"] for sample in samples], batch_first=True, padding_value=IGNORED),
        }
        if self.isolate_turns:
            batch |= turn_inputs([len(row) for row in ids], [sample["turn_starts"] for sample in samples])
        else:
            batch["attention_mask"] = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        for name in ("pixel_values", "video_num_scenes"):
            values = [sample[name] for sample in samples if name in sample]
            if values:
                batch[name] = torch.cat([torch.as_tensor(value) for value in values])
        videos = [video for sample in samples for video in sample.get("pixel_values_videos", ())]
        if videos:
            batch["pixel_values_videos"] = torch.stack(pad_frames(videos))
        for name in ("video_background_places", "video_question_ids"):
            rows = [row for sample in samples for row in sample.get(name, ())]
            if rows:
                batch[name] = pad_rows(rows)
        left_out = [sample["left_out"] for sample in samples if "left_out" in sample]
        if left_out:
            batch["left_out"] = torch.cat(
                [torch.nn.functional.pad(own, (1, 0), value=row) for row, own in enumerate(left_out)]
            )
        batch["unreadable"] = [refused for sample in samples for refused in sample.get("unreadable", ())]
        return batch


__all__ = ["Collator"]
