"""Run by `test_loading.py` in a fresh process: loads a folder through every door and reports as JSON what came of it.

Usage: `python load_everything.py REPORT VIDEO FOLDER [FOLDER ...] [--save FOLDER]`; `--package` allows `fila_video`.
"""

import argparse
import json
import sys
from pathlib import Path


class NoPackage:
    """Makes `import fila_video` fail, wherever the package is installed."""

    def find_spec(self, name, path=None, target=None) -> None:
        if name == "fila_video" or name.startswith("fila_video."):
            raise ModuleNotFoundError(f"{name} is not to be imported here")


def load(folder: str, video: str) -> dict:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForImageTextToText,
        AutoModelForMultimodalLM,
        AutoProcessor,
        AutoVideoProcessor,
        pipeline,
    )

    trusted = {"trust_remote_code": True}
    ask = {"text": "What?", "max_new_tokens": 4, "return_full_text": False, "num_scenes": 3}
    objects = [AutoConfig.from_pretrained(folder, **trusted)]
    for auto in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        objects.append(auto.from_pretrained(folder, **trusted))
    model = objects[-1]
    processor = AutoProcessor.from_pretrained(folder, **trusted)
    objects += [processor, AutoVideoProcessor.from_pretrained(folder, **trusted)]
    by_task = pipeline("video-text-to-text", model=folder, **trusted)
    inferred = pipeline(model=folder, **trusted)
    made = pipeline("video-text-to-text", model=model, processor=processor)
    objects += [by_task, inferred, made]
    return {
        "classes": [type(item).__name__ for item in objects],
        "modules": sorted({type(item).__module__.split(".")[0] for item in objects}),
        "answers": [pipe(video, **ask)[0]["generated_text"] for pipe in (by_task, inferred, made)],
        "settings": processor.to_dict(),
        "template": processor.chat_template,
        "pipeline": inferred,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=Path)
    parser.add_argument("video")
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--save")
    parser.add_argument("--package", action="store_true")
    arguments = parser.parse_args()
    if not arguments.package:
        sys.meta_path.insert(0, NoPackage())
    reports = []
    for folder in arguments.folders:
        reports.append(load(folder, arguments.video))
        pipe = reports[-1].pop("pipeline")
        if arguments.save and folder == arguments.folders[-1]:
            pipe.model.save_pretrained(arguments.save)
            pipe.processor.save_pretrained(arguments.save)
    package = sys.modules.get("fila_video")
    arguments.report.write_text(json.dumps({"reports": reports, "package": package and package.__file__}))


if __name__ == "__main__":
    main()
