"""
`tests/data/saved_by_0_1` was written by version 0.1.0: a tiny model and its processor, with the code of that version,
and `expected.json` with the logits they gave. Such folders stay loadable: by their own code, and by the package.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fila_video import FilaVideoForConditionalGeneration, FilaVideoProcessor
from helpers.tiny_processor import clip

FOLDER = Path(__file__).resolve().parent.parent / "data" / "saved_by_0_1"


def inputs(video_token_id: int) -> dict[str, torch.Tensor]:
    """Two prompts, about videos of two scenes and of one; what `expected.json` was made from."""
    pixels = (torch.arange(2 * 6 * 3 * 20 * 20) % 7 / 3 - 1).reshape(2, 6, 3, 20, 20)
    longer, shorter = json.loads((FOLDER / "expected.json").read_text())["tokens"]
    ids = torch.full((2, longer + 4), 50)
    ids[0, 2 : 2 + longer] = ids[1, 2 : 2 + shorter] = video_token_id
    return {"input_ids": ids, "pixel_values_videos": pixels, "video_num_scenes": torch.tensor([2, 1])}


def check(logits: torch.Tensor) -> None:
    expected = torch.tensor(json.loads((FOLDER / "expected.json").read_text())["logits"])
    torch.testing.assert_close(logits[:, -1, : expected.shape[1]], expected, atol=1e-3, rtol=1e-2)


def test_the_package_loads_it_and_gives_its_logits() -> None:
    model = FilaVideoForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)
    with torch.no_grad():
        check(model(**inputs(model.config.video_token_id)).logits)


def test_the_packages_processor_serves_its_model() -> None:
    model = FilaVideoForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)
    processor = FilaVideoProcessor.from_pretrained(FOLDER)
    assert processor.num_scenes == 4 and processor.tokenizer.pad_token is not None
    batch = processor(text="<video>What?", videos=[clip(30)], return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2).shape[0] == 1


@pytest.mark.slow
def test_its_own_code_loads_it_and_gives_its_logits(tmp_path) -> None:
    torch.save(
        inputs(video_token_id=json.loads((FOLDER / "config.json").read_text())["video_token_id"]), tmp_path / "in"
    )
    program = (
        "import sys, torch\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, dtype=torch.float32)\n"
        "AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "assert 'fila_video' not in sys.modules\n"
        "with torch.no_grad():\n"
        "    torch.save(model(**torch.load(sys.argv[2] + '/in')).logits, sys.argv[2] + '/out')\n"
    )
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", program, str(FOLDER), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]
    check(torch.load(tmp_path / "out"))
