"""Files of subtitles: what reading them may cost, and what of their words is said."""

import av
import pytest
from fila_video import VideoLimits, VideoReadError, read_subtitles

FIRST = "1\n00:00:01,000 --> 00:00:02,000\nfirst\n\n"
ASS = "[Script Info]\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
DIALOGUE = "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,first\n"


def test_in_ass_words_in_braces_are_comments_and_elsewhere_words() -> None:
    words = r"{a comment}Hello, {\i1}you{\i0}\Nthere, \{x\} {another}"
    assert list(read_subtitles((ASS + DIALOGUE.replace("first", words)).encode())) == [
        (1.0, 2.0, "Hello, you there, {x}")
    ]
    srt = FIRST.replace("first", "{not a comment} but {words}")
    for text in (srt, "WEBVTT\n\n" + srt.replace(",", ".")):
        assert list(read_subtitles(text.encode())) == [(1.0, 2.0, "{not a comment} but {words}")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:0 --> 0:0\na\n" * 250_000, "more than 200000 lines"),
        (ASS + DIALOGUE * 200_001, "more than 200000 lines"),
        (FIRST + "\n" * 2_000_001, "more than 2000000 lines of text"),
        (FIRST + "word" * (1 << 22), "more than 16777216 bytes"),
    ],
)
def test_endless_subtitles_are_refused_before_they_are_read(monkeypatch, text, message) -> None:
    opened = []
    monkeypatch.setattr(av, "open", lambda *arguments, **options: opened.append(arguments))
    with pytest.raises(VideoReadError, match=message):
        read_subtitles(text.encode())
    assert not opened


def test_the_time_for_subtitles_is_limited() -> None:
    with pytest.raises(VideoReadError, match=r"it took .* seconds, over the limit of 0\.01"):
        read_subtitles(("0:0 --> 0:0\na\n" * 190_000).encode(), limits=VideoLimits(seconds=0.01))
