"""A scorer of frames that compares them with a text, by a SigLIP or a CLIP."""

import pytest
import torch
from fila_video import ContrastiveScorer
from transformers import (
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)


def letters(text: str, length: int | None = None):
    ids = [*(ord(letter) % 30 + 1 for letter in text), 39][: length or len(text) + 1]
    return ids if length is None else (ids + [0] * length)[:length]


class LetterTokenizer:
    """A letter a token, with what a scorer asks of a tokenizer."""

    def __call__(self, text, padding=None, truncation=False, max_length=None, return_tensors=None):
        from transformers import BatchEncoding

        ids = letters(text, max_length)
        mask = [int(token > 0) for token in ids]
        values = {"input_ids": ids, "attention_mask": mask}
        if return_tensors == "pt":
            values = {name: torch.tensor([value]) for name, value in values.items()}
        return BatchEncoding(values)


SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


TEXT = SIZES | {"vocab_size": 40, "max_position_embeddings": 12}


VISION = SIZES | {"image_size": 16, "patch_size": 8}


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_a_contrastive_model_scores_frames_as_it_compares_texts_with_images_itself(kind, caplog) -> None:
    torch.manual_seed(0)
    if kind == "siglip":
        model = SiglipModel(SiglipConfig(text_config=TEXT | {"projection_size": 16}, vision_config=VISION)).eval()
    else:
        text = TEXT | {"eos_token_id": 39, "bos_token_id": 38, "pad_token_id": 0}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)).eval()
    image_processor = SiglipImageProcessor(size={"height": 16, "width": 16})
    scorer = ContrastiveScorer(model, image_processor, LetterTokenizer(), batch_size=2)
    frames = torch.randint(0, 256, (5, 3, 24, 32), dtype=torch.uint8)
    scores = scorer(frames, "a red star")
    assert scores.shape == (5,) and (scores.abs() <= 1.0001).all()

    pixels = image_processor(list(frames), return_tensors="pt")["pixel_values"]
    text = LetterTokenizer()("a red star", max_length=12, return_tensors="pt")
    if kind == "siglip":
        text.pop("attention_mask")
    with torch.no_grad():
        logits = model(pixel_values=pixels, **text).logits_per_image[:, 0]
    assert scores.argsort().tolist() == logits.argsort().tolist()
    assert not torch.equal(scorer(frames, "a blue ring"), scores)


def test_frames_are_encoded_once_for_several_questions_and_anew_when_they_change(monkeypatch) -> None:
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=TEXT | {"projection_size": 16}, vision_config=VISION)).eval()
    encoded, encode = [], model.get_image_features
    monkeypatch.setattr(model, "get_image_features", lambda **inputs: encoded.append(1) or encode(**inputs))
    scorer = ContrastiveScorer(model, SiglipImageProcessor(size={"height": 16, "width": 16}), LetterTokenizer())
    frames = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    first = scorer(frames, "a red star")
    scorer(frames, "a blue ring")
    assert len(encoded) == 1 and torch.equal(scorer(frames, "a red star"), first)

    frames[1] = 255 - frames[1]
    changed = scorer(frames, "a red star")
    assert len(encoded) == 2 and changed[1] != first[1] and torch.allclose(changed[0], first[0])
    assert torch.equal(scorer(frames.clone(), "a red star"), changed) and len(encoded) == 3


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_question_asked_meanwhile_about_other_frames_changes_no_score(moment) -> None:
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=TEXT | {"projection_size": 16}, vision_config=VISION)).eval()
    others = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)

    class Shared(ContrastiveScorer):
        """Another thread asks about `others` right after this one has looked so often at what was encoded last."""

        looks = None

        def __getattribute__(self, name):
            value = super().__getattribute__(name)
            if name == "_last" and self.looks is not None:
                self.looks += 1
                if self.looks == moment:
                    self.looks = None
                    self(others, "a blue ring")
            return value

    scorer = Shared(model, SiglipImageProcessor(size={"height": 16, "width": 16}), LetterTokenizer())
    frames = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    alone = scorer(frames, "a red star")
    scorer.looks = 0
    assert torch.equal(scorer(frames, "a red star"), alone)


def test_a_scorer_needs_a_model_that_compares_texts_with_images() -> None:
    with pytest.raises(ValueError, match="Linear does not compare"):
        ContrastiveScorer(torch.nn.Linear(2, 2))
    model = SiglipModel(SiglipConfig(text_config=TEXT | {"projection_size": 16}, vision_config=VISION))
    with pytest.raises(ValueError, match="image_processor"):
        ContrastiveScorer(model)


def test_a_saved_contrastive_model_is_loaded_from_its_folder(tmp_path) -> None:
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=TEXT | {"projection_size": 16}, vision_config=VISION)).eval()
    model.save_pretrained(tmp_path)
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    scorer = ContrastiveScorer(tmp_path, tokenizer=LetterTokenizer())
    assert scorer(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "what").shape == (2,)
    assert ContrastiveScorer(tmp_path, tokenizer=LetterTokenizer(), device="meta").model.device.type == "meta"
