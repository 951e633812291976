"""A small annotated set for the tests of the evaluation: three real videos, an image, and the questions."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.video_files import make_video

COLORS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 220)}
CHOICE = "What colour is shown?\nA. red\nB. green\nC. blue"


def draw(number: int, width: int, height: int, events: list[tuple[str, int, int]]) -> np.ndarray:
    """Gray that moves slowly; during an event, a square of its color."""
    image = np.full((height, width, 3), 90 + number % 20, dtype=np.uint8)
    for color, start, end in events:
        if start <= number < end:
            image[height // 4 : -height // 4, width // 4 : -width // 4] = COLORS[color]
    return image


def make_set(folder: Path, num_videos: int = 3) -> Path:
    """Writes `records.jsonl`, three videos of 6 seconds at 10 frames a second, each with two events, and an image."""
    lines = []
    for number in range(num_videos):
        colors = (list(COLORS) * 2)[number : number + 2]
        events = [(colors[0], 10, 14), (colors[1], 40, 46)]
        name = f"video_{number}.mp4"
        make_video(folder / name, 60, fps=10, draw=lambda *size, events=events: draw(*size, events))
        questions = [
            {"kind": "what", "form": "free", "question": "What colour appears first?", "answer": colors[0]},
            {"kind": "color", "form": "choice", "question": CHOICE, "answer": "ABC"[list(COLORS).index(colors[1])]},
            {
                "kind": "caption",
                "form": "free",
                "question": "Describe the video.",
                "answer": f"A {colors[0]} square.",
            },
        ]
        lines.append(
            {
                "id": f"test_{number}",
                "video": name,
                "duration": 6.0,
                "data_source": "procedural",
                "conversations": conversation(questions),
                "questions": questions,
                "events": [{"start": start / 10, "end": end / 10, "color": color} for color, start, end in events],
            }
        )
    Image.fromarray(draw(0, 40, 40, [("red", 0, 1)])).save(folder / "image.png")
    question = {"kind": "color", "form": "free", "question": "What colour is the square?", "answer": "red"}
    turns = conversation([question])
    lines.append({"id": "image", "image": "image.png", "conversations": turns, "questions": [question]})
    return write_lines(folder / "records.jsonl", lines)


def conversation(questions: list[dict]) -> list[dict]:
    turns = []
    for number, question in enumerate(questions):
        turns.append({"from": "human", "value": ("" if number else "<image>\n") + question["question"]})
        turns.append({"from": "gpt", "value": question["answer"]})
    return turns


def write_lines(file: Path, lines: list[dict]) -> Path:
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return file


__all__ = ["CHOICE", "make_set", "write_lines"]
