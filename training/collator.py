"""Samples become a batch: padded text, stacked videos, and the attention of isolated turns."""

import itertools

import torch
from torch.nn.utils.rnn import pad_sequence

from ..video_processing_fila_video import pad_frames, pad_rows
from .samples import IGNORED


class Collator:
    """
    Pads on the right: positions then begin at 0 in every row.

    Args:
        pad_token_id (`int`):
            The padding token of the tokenizer.
        isolate_turns (`bool`, *optional*, defaults to `False`):
            `attention_mask` is then `(batch, 1, length, length)`, and every turn's `position_ids` go on from the end
            of the prefix.
        mask_dtype (`torch.dtype`, *optional*):
            The dtype of that mask, where it is added to the scores (attention of the kind `eager`). By default it is
            boolean, as `sdpa` takes it in any dtype.
    """

    def __init__(self, pad_token_id: int, isolate_turns: bool = False, mask_dtype: torch.dtype | None = None) -> None:
        self.pad_token_id, self.isolate_turns, self.mask_dtype = pad_token_id, isolate_turns, mask_dtype

    def __call__(self, samples: list[dict]) -> dict:
        ids = [sample["input_ids"] for sample in samples]
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence([sample["labels"] for sample in samples], batch_first=True, padding_value=IGNORED),
        }
        if self.isolate_turns:
            batch |= isolating_attention([len(row) for row in ids], [sample["turn_starts"] for sample in samples])
            if self.mask_dtype is not None:
                hidden = ~batch["attention_mask"]
                batch["attention_mask"] = torch.zeros(hidden.shape, dtype=self.mask_dtype).masked_fill(
                    hidden, torch.finfo(self.mask_dtype).min
                )
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
        batch["unreadable"] = [refused for sample in samples for refused in sample.get("unreadable", ())]
        return batch


def isolating_attention(lengths: list[int], starts: list[list[int]]) -> dict[str, torch.Tensor]:
    """
    Args:
        lengths (`list[int]`):
            The length of each row, without padding.
        starts (`list[list[int]]`):
            Where each row's turns begin; what comes before the first is seen by all.

    Returns:
        `attention_mask` `(batch, 1, length, length)`, true where a token sees another, and `position_ids` `(batch,
        length)`. A token of padding sees itself, so that no softmax is over nothing.
    """
    longest = max(lengths)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    masks, positions = causal.expand(len(lengths), -1, -1).clone(), torch.arange(longest).repeat(len(lengths), 1)
    for row, (length, begins) in enumerate(zip(lengths, starts, strict=True)):
        for begin, end in itertools.pairwise([*begins, length]):
            masks[row, begin:end, begins[0] : begin] = False
            positions[row, begin:end] -= begin - begins[0]
        masks[row, length:, :length] = False
    return {"attention_mask": masks[:, None], "position_ids": positions}


__all__ = ["Collator", "isolating_attention"]
