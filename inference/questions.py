"""The questions about many videos, from a file, a folder or a table, ordered so that a video's stand together."""

import json
import logging
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from ..commands.endings import BESIDE_VIDEOS, VIDEO_ENDINGS
from ..long_video.annotations import without_nan
from ..long_video.json_records import read_json_records

logger = logging.getLogger(__name__)

SOURCES = ("video", "url", "path")
# What a record may say of its video besides where it lies.
MEDIA_SETTINGS = ("video_start", "video_end", "subtitles")
KEYS = ("id", "question", "questions", *SOURCES, *MEDIA_SETTINGS)
# What a signature adds to a URL, each time anew: of Amazon, Google, CloudFront, Alibaba and Azure.
_SIGNATURE = re.compile(
    "x-(amz|goog|oss)-.*|expires|signature|(aws|oss)accesskeyid|googleaccessid|policy|key-pair-id|token", re.IGNORECASE
)
_WITH_SIG = re.compile("sig|se|sp|spr|sr|st|sv|sk(oid|tid|t|e|s|v)", re.IGNORECASE)  # Azure's
_TIMES = re.compile("(clip|video)?_?(start|begin|end|stop)_?(time|seconds?|secs?|s|ms)?")


@dataclass
class Asked:
    """A question with its id, or what is wrong with it."""

    id: str
    question: str | None = None
    error: str | None = None


@dataclass
class VideoQuestions:
    """
    A video, and what is asked about it.

    Args:
        video (`str` or `None`): Path or URL; `None` where a record is broken.
        settings (`dict`): Those of [`MEDIA_SETTINGS`] that its records give.
        asked (`list[Asked]`): In the order of the records.
    """

    video: str | None
    settings: dict = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)


class WorkList:
    """
    All questions of a source. They lie in a temporary file, not in memory, however many there are.

    Args:
        records (`str` or `os.PathLike`):
            A file of JSON lines or of a JSON array, or a Parquet file. A record has a `video` (or `url`, `path`),
            relative to the file's folder, and a `question`, or `questions` (texts, or objects with `question` and
            maybe `id`); and, where wanted, an `id` (else the video as it is written), `video_start` and `video_end`
            in seconds, and `subtitles` (a file, or a track's number or language). Other keys are passed over; but one
            that looks like a misspelt key or a clip's time (`start`) is an error, of its record or of a Parquet file.
            Or a folder: each video under it, by its ending, is a record. A warning tells of what is left out.
        question (`str`, *optional*):
            What is asked where a record asks nothing itself.

    Raises:
        ValueError: If there are no records, the source is none of these or cannot be read, or two questions have the
        same id.
    """

    def __init__(self, records: str | os.PathLike, question: str | None = None) -> None:
        self.records = Path(records)
        self.compares_videos = True  # when a row is removed; to be set to false where all are of one video
        self._compared = (None, None, False)  # two files, and whether they are one video
        self.database = sqlite3.connect("")  # a file without a name, which goes with the process
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute("CREATE TABLE videos (number INTEGER PRIMARY KEY, media TEXT UNIQUE)")
        self.database.execute(
            "CREATE TABLE rows (number INTEGER PRIMARY KEY, id TEXT UNIQUE, video INTEGER, question TEXT, error TEXT, "
            "whole TEXT)"  # what of the record names its file by an absolute path
        )
        for where, data in _read(self.records):
            self._add(where, data, question)
        if not len(self):
            raise ValueError(f"{self.records} holds no records.")

    def __len__(self) -> int:
        return self.database.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def holds(self, name: str) -> bool:
        """Whether a question of this id is still to be answered."""
        return self.database.execute("SELECT 1 FROM rows WHERE id = ?", (name,)).fetchone() is not None

    def _folder(self) -> Path:
        """What the paths of the records are relative to."""
        return self.records.parent if self.records.is_file() else self.records

    def _add(self, where: str, data: object, question: str | None) -> None:
        data = without_nan(data) if isinstance(data, dict) else data
        try:
            media, asked, whole = _parse(data, self._folder(), question)
        except ValueError as error:
            name = str(data["id"]) if isinstance(data, dict) and data.get("id") is not None else where
            # A name of its own for its video: what is wrong is nobody else's.
            media, asked, whole = where, [Asked(name, error=f"{where}: {error}")], []
        media = (json.dumps(media, sort_keys=True),)
        self.database.execute("INSERT OR IGNORE INTO videos (media) VALUES (?)", media)
        (video,) = self.database.execute("SELECT number FROM videos WHERE media = ?", media).fetchone()
        for row in asked:
            values = (_shown(row.id), video, row.question, row.error and _shown(row.error), json.dumps(whole))
            try:
                self.database.execute(
                    "INSERT INTO rows (id, video, question, error, whole) VALUES (?, ?, ?, ?, ?)", values
                )
            except sqlite3.IntegrityError:
                raise ValueError(
                    f"{self.records}, {where}: the id {row.id!r} occurs twice. Answers are told apart by their ids: "
                    "give each record, and each question of a record, an `id` of its own."
                ) from None

    def videos_without_subtitles(self) -> Iterator[str]:
        """The videos whose records name no subtitles of their own; clips of one video are that video."""
        found = set()
        for (media,) in self.database.execute("SELECT media FROM videos ORDER BY number"):
            settings = json.loads(media)  # of a broken record, a text
            if isinstance(settings, dict) and "subtitles" not in settings and settings["video"] not in found:
                found.add(settings["video"])
                yield settings["video"]

    def remove(self, row: dict) -> bool:
        """
        Takes the question of a row of answers from the list; whether it was there.

        Raises:
            ValueError: If its record has another question, video, clip or subtitles by now.
        """
        found = self.database.execute(
            "SELECT media, question, whole FROM rows JOIN videos ON videos.number = rows.video WHERE id = ?",
            (row["id"],),
        ).fetchone()
        if found is None:
            return False
        media, question, whole = json.loads(found[0]), found[1], json.loads(found[2])
        self._check_unchanged(row, {"video": None} if isinstance(media, str) else media, question, whole)
        self.database.execute("DELETE FROM rows WHERE id = ?", (row["id"],))
        return True

    def _check_unchanged(self, row: dict, media: dict, question: str | None, whole: list[str]) -> None:
        # Rows of earlier versions do not say of which clip they are, nor with which subtitles.
        known = MEDIA_SETTINGS if "media" in row else ()
        was = {"question": row.get("question"), "video": row.get("video")}
        settings = without_nan(row.get("media") or {})  # earlier versions wrote it
        was |= {name: settings.get(name) for name in known}
        now = {"question": question, **media}
        changed = {}
        for name, there in was.items():
            here = now.get(name)
            same = there == here or (name == "video" and not self.compares_videos)
            if not same and name in ("video_start", "video_end"):
                same = _seconds(there) == _seconds(here)
            elif not same and name in ("video", "subtitles"):
                same = self._is_same_file(there, here, name in whole)
            if not same:
                changed[name] = (there, here)
        if changed:
            told = "; ".join(f"{name}: {there!r} there, {here!r} now" for name, (there, here) in changed.items())
            again = " or, since the row is an error, ask again with --retry-errors" * (row.get("error") is not None)
            raise ValueError(
                f"The output has a row of the id {row['id']!r}, but its record has changed since ({told}). Give the "
                f"record an id of its own, or as it was, name a new output{again}; or remove the row."
            )

    def _is_same_file(self, was: Any, now: Any, is_whole: bool) -> bool:
        """Whether it is the same file, also where it was moved or copied, or the run starts in another folder."""
        if not (isinstance(was, str) and isinstance(now, str)):
            return False
        if "://" in was + now:
            return _address(was) == _address(now)
        if os.path.exists(was) and os.path.exists(now):
            if os.path.samefile(was, now):
                return True
            if self._compared[:2] != (was, now):  # the rows of a video follow one another
                self._compared = (was, now, _is_copy(was, now))
            return self._compared[2]
        before = Path(was).parts
        if is_whole:
            # It may move to another disk, with the folder that it lies in: many files may have one name
            # (`<id>/video.mp4`).
            if os.path.isabs(was) and not os.path.exists(was) and before[-2:] == Path(now).parts[-2:]:
                return True
            # With a folder that has another name now, that of then is gone.
            if self._has_inside(was) or not self._has_inside(now) or os.path.exists(os.path.dirname(was)):
                return False
        written = Path(os.path.relpath(now, self._folder())).parts
        return before[-len(written) :] == written

    def _has_inside(self, file: str) -> bool:
        """Whether it lies in the folder of the records, or in one in it, as the path is written."""
        return Path(os.path.abspath(file)).is_relative_to(os.path.abspath(self._folder()))

    def __iter__(self) -> Iterator[VideoQuestions]:
        """The videos in the order in which they first occur, each once."""
        rows = self.database.execute(
            "SELECT id, media, question, error FROM rows JOIN videos ON videos.number = rows.video "
            "ORDER BY rows.video, rows.number"
        )
        last, group = None, None
        for name, media, question, error in rows:
            if media != last:
                if group is not None:
                    yield group
                settings, last = json.loads(media), media
                # A broken record has a name in place of its video; a bad question leaves the video to the others.
                broken = isinstance(settings, str)
                group = VideoQuestions(None) if broken else VideoQuestions(settings.pop("video"), settings)
            group.asked.append(Asked(name, question, error))
        if group is not None:
            yield group


def _samples(file: str) -> tuple[int, list[bytes]]:
    """Size and bytes of a file: to a megabyte whole, of a larger one at places from its start to its end."""
    size, samples = os.path.getsize(file), []
    with suppress(OSError), open(file, "rb") as opened:  # answering it says what is wrong
        for number in range(16):
            opened.seek(max(size - 2**16, 0) * number // 15)
            samples.append(opened.read(2**16))
    return size, samples


def _is_copy(one: str, other: str) -> bool:
    """Whether two files hold the same, or two folders of pictures: names and sizes of all, samples of sixteen."""
    if not (os.path.isdir(one) and os.path.isdir(other)):
        return os.path.isfile(one) and os.path.isfile(other) and _samples(one) == _samples(other)
    names = sorted(os.listdir(one))
    if names != sorted(os.listdir(other)):
        return False
    pairs = [(os.path.join(one, name), os.path.join(other, name)) for name in names]
    return all(os.path.getsize(first) == os.path.getsize(second) for first, second in pairs) and all(
        _samples(first) == _samples(second) for first, second in pairs[:: -(-len(pairs) // 16) or 1]
    )


def _address(url: str) -> str:
    """Without what changes nothing of the file: a signature, which each day has its own, and a place in the file."""
    address, _, query = url.partition("#")[0].partition("?")
    named = {part: part.partition("=")[0] for part in query.split("&") if part}
    is_azure = any(name.lower() == "sig" for name in named.values())
    kept = [
        part
        for part, name in named.items()
        if not (_SIGNATURE.fullmatch(name) or (is_azure and _WITH_SIG.fullmatch(name)))
    ]
    return f"{address}?{'&'.join(kept)}" if kept else address


def _seconds(value: Any) -> Any:
    """A time as a number, also of a text."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return value


def _read(records: Path) -> Iterator[tuple[str, object]]:
    """Records with the place where each stands."""
    if records.is_dir():
        for name in _videos_under(records):
            yield name, {"video": name}
    elif not records.is_file():
        raise ValueError(f"There are no records at {str(records)!r}: name a file or a folder.")
    elif _starts(records) == b"PAR1":
        yield from _read_table(records)
    elif records.stat().st_size:
        for number, data in read_json_records(records):
            yield f"record {number}", data


def _videos_under(records: Path) -> Iterator[str]:
    """The videos of a folder and of those in it, relative to it; then a warning tells of what is left out."""

    def stop(error: OSError) -> NoReturn:
        raise ValueError(
            f"The folder {error.filename} cannot be read ({error.strerror}): make it readable, or name the videos "
            "in a file of records."
        ) from error

    others, links = Counter(), []
    for folder, folders, files in os.walk(records, onerror=stop):
        folders.sort()
        links += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
        for name in sorted(files):
            ending = os.path.splitext(name)[1].lower()
            if ending in VIDEO_ENDINGS:
                yield os.path.relpath(os.path.join(folder, name), records)
            elif ending not in BESIDE_VIDEOS and not name.startswith("."):
                others[ending or "without an ending"] += 1
    left_out = [f"{count} {ending}" for ending, count in sorted(others.items())]
    left_out += [f"the linked folder {path}" for path in links]
    if left_out:
        logger.warning(
            "Left out of %s, by their endings or as links: %s. Name in a file of records what else shall be answered.",
            records,
            ", ".join(left_out),
        )


def _starts(file: Path) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(4)


def _read_table(records: Path) -> Iterator[tuple[str, object]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ValueError("Parquet files take the package pyarrow: pip install pyarrow.") from error
    number = 0
    try:
        with ParquetFile(records) as table:
            names = table.schema_arrow.names
            if problem := next(filter(None, map(_misnamed, names)), None):
                raise ValueError(f"{records}: {problem}")
            columns = [name for name in names if name in KEYS]
            for batch in table.iter_batches(batch_size=64, columns=columns):
                for index in range(batch.num_rows):
                    number += 1
                    yield f"record {number}", _row(batch, index)
    except ArrowException as error:
        raise ValueError(f"{records} is no Parquet file that can be read: {error}") from error


def _row(batch: Any, index: int) -> dict | ValueError:
    try:
        return {name: values[index].as_py() for name, values in zip(batch.schema.names, batch.columns, strict=True)}
    except (ValueError, OverflowError) as error:  # bytes that are not UTF-8 in a text; a date that Python lacks
        return ValueError(f"it cannot be read ({error})")


@lru_cache(maxsize=1024)  # the records of a file have the same keys
def _misnamed(key: str) -> str | None:
    """What is wrong with a key that is not read but seems to mean one that is."""
    if key in KEYS:
        return None
    plain = re.sub("(?<=[a-z])(?=[A-Z])", "_", key).replace("-", "_").lower()
    if _TIMES.fullmatch(plain):
        return (
            f"`{key}` of a record is not read: a clip has `video_start` and `video_end`, in seconds. Rename it, or "
            "leave it out."
        )
    # A record without its source is an error anyway. Ids of anything are common, and with another word a key means
    # something else: `question_type`.
    close = get_close_matches(plain, ("question", "questions", *MEDIA_SETTINGS), n=1, cutoff=0.8)
    if not close or re.search("ids?$", plain) or plain.count("_") > close[0].count("_"):
        return None
    return f"`{key}` of a record is not read: name it `{close[0]}`, or leave it out."


def _given(data: dict) -> list[str]:
    return [key for key, value in data.items() if value is not None]


def _lost(part: dict, read: tuple[str, ...]) -> str | None:
    """The first key of a part of a record that is read elsewhere, or nowhere though it seems to mean to be."""
    return next((key for key in _given(part) if key not in read and (key in KEYS or _misnamed(key))), None)


def _parse(data: object, folder: Path, default: str | None) -> tuple[dict, list[Asked], list[str]]:
    """What a record says of its video, its questions, and which of its files absolute paths name."""
    if isinstance(data, ValueError):  # in the place of a record that cannot be read
        raise data
    if not isinstance(data, dict):
        raise ValueError(f"a record is an object with a `video`, this is of the type {type(data).__name__}")
    if problem := next(filter(None, map(_misnamed, _given(data))), None):
        raise ValueError(problem)
    sources = [name for name in SOURCES if data.get(name) is not None]
    if len(sources) > 1:
        raise ValueError(f"it has more than one video, {' and '.join(f'`{name}`' for name in sources)}: leave one")
    video = data[sources[0]] if sources else None
    if isinstance(video, dict):  # as `datasets` stores one
        if video.get("bytes") is not None:
            raise ValueError("its video lies in the table itself: write the bytes to a file and name that")
        if lost := _lost(video, ("path", "id")):
            raise ValueError(f"`{lost}` of its video is not read: beside a `path`, give the rest to the record itself")
        video = video.get("path")
    if not isinstance(video, str) or not video:
        raise ValueError("it has no `video`: give its path or URL")
    name = video if data.get("id") is None else str(data["id"])
    if not _is_text(name):
        key, remedy = ("video", "rename the file") if data.get("id") is None else ("id", "give it another")
        raise ValueError(f"its `{key}` is not valid Unicode text, {name!r}: {remedy}")
    whole = [name for name, file in (("video", video), ("subtitles", data.get("subtitles"))) if _is_whole(file)]
    if "://" not in video and video[:5].lower() != "data:":
        video = str(folder / video)
    media = {"video": video} | {key: data[key] for key in MEDIA_SETTINGS if data.get(key) is not None}
    for key, value in media.items():
        if not isinstance(value, (str, int, float)):
            meant = "a file, or a track's number or language" if key == "subtitles" else "seconds, a float or integer"
            raise ValueError(f"its `{key}` is of the type {type(value).__name__}: give {meant}")
    subtitles = media.get("subtitles")
    if isinstance(subtitles, str) and "://" not in subtitles and not re.fullmatch(r"[A-Za-z]{2,3}|\d+", subtitles):
        media["subtitles"] = str(folder / subtitles)

    if data.get("question") is not None and data.get("questions") is not None:
        raise ValueError("it has both a `question` and `questions`")
    if data.get("questions") is None:
        return media, [Asked(name, *_text(data.get("question", default) or default))], whole
    if not isinstance(data["questions"], list) or not data["questions"]:
        raise ValueError("its `questions` are not a list with questions in it")
    asked = []
    for number, question in enumerate(data["questions"], 1):
        question = without_nan(question) if isinstance(question, dict) else question
        own = question.get("id") if isinstance(question, dict) else None
        text = question.get("question") if isinstance(question, dict) else question
        text, error = _text(text)
        if isinstance(question, dict) and (lost := _lost(question, ("id", "question"))):
            error = f"`{lost}` of a question is not read: what is asked about another clip is a record of its own."
        if not _is_text(str(own)):
            error = f"The `id` of a question is not valid Unicode text, {own!r}: give it another."
        asked.append(Asked(f"{name}#{number if own is None else own}", text, error))
    return media, asked, whole


def _is_whole(file: Any) -> bool:
    return isinstance(file, str) and os.path.isabs(file)


def _text(question: Any) -> tuple[str | None, str | None]:
    """The question's text, or what is wrong with it."""
    if question is None:
        return None, "It has no `question`, and there is none for all."
    if not isinstance(question, str) or not question.strip():
        return None, f"Its question is no text, or an empty one: {question!r}."
    if not _is_text(question):
        return None, f"Its question is not valid Unicode text: {question!r}."
    return question, None


def _is_text(text: str) -> bool:
    """Whether it has no half of a surrogate pair: neither the database nor every reader of JSON takes one."""
    return _shown(text) == text


def _shown(text: str) -> str:
    """The text with its halves of surrogate pairs, such as bytes of another encoding in a file's name, as numbers."""
    return text.encode(errors="backslashreplace").decode()


def chunks(work: WorkList, size: int) -> Iterator[list[VideoQuestions]]:
    """Videos until they have at least `size` questions together; those of one video are never parted."""
    chunk = []
    for group in work:
        chunk.append(group)
        if sum(len(group.asked) for group in chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


__all__ = ["MEDIA_SETTINGS", "VIDEO_ENDINGS", "Asked", "VideoQuestions", "WorkList", "chunks"]
