"""What was answered of a run that is not over, so that one that breaks off goes on where it was."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from .records import Record


class KeptAnswers:
    """
    Answers to the questions about each record, a line each, in a file that is removed when the run is over.

    Args:
        file (`Path`): Behind its first line, which says what they depend on, one line for each record.
        about (`dict`): All that the answers depend on beside the records, as JSON.

    Raises:
        ValueError: If the file holds the answers of another model or other settings.
    """

    def __init__(self, file: Path, about: dict) -> None:
        self.file, self._answers = file, {}
        about = json.loads(json.dumps(about))
        lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else []  # a torn last line does not count
        if not lines:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(about) + "\n", encoding="utf-8")
            return
        try:
            before, *kept = map(json.loads, lines)
            self._answers = {line["record"]: line["answers"] for line in kept}
            other = [name for name in {**before, **about} if before.get(name) != about.get(name)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} holds no answers of a run that broke off: remove it to begin anew.") from error
        if other:
            raise ValueError(
                f"{file} holds the answers of a run that broke off, with other {' and '.join(other)} than now: remove "
                "it to begin anew, or name another file or folder of results."
            )
        os.truncate(file, sum(len(line) + 1 for line in lines))

    def of(self, record: Record, ask: Callable[[], dict]) -> dict:
        """The answers about a record, as they are kept or else as `ask` gives them, which are kept then."""
        # Another record of the same id is asked anew, also where only its questions or its file are others.
        key = hashlib.sha256(repr(record).encode()).hexdigest()[:16]
        if key not in self._answers:
            answers = ask()
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json.dumps({"record": key, "answers": answers}, ensure_ascii=False) + "\n")
            self._answers[key] = answers
        return self._answers[key]

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)


__all__ = ["KeptAnswers"]
