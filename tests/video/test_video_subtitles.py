"""Subtitles beside videos that begin between two keyframes, and texts made to be read for ever."""

import io
import signal
from fractions import Fraction

import av
import numpy as np
import pytest
from fila_video import VideoReadError, VideoSegment, read_subtitles
from fila_video.video_pictures_fila_video import load_picture
from fila_video.video_reading_fila_video import read_frames
from helpers.video_files import make_video, number_of, picture

CUE = b"1\n00:00:01,000 --> 00:00:02,000\n"
ASS = b"""[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,"""


@pytest.fixture
def in_time():
    """Ends a reading that would take an hour; it takes a second."""

    if not hasattr(signal, "alarm"):
        pytest.skip("no alarm to end it")

    def end(*_) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("head", "marks"),
    [
        (CUE, b"{\\" * 500_000),
        (CUE, b"words } " + b"{\\" * 500_000),
        (ASS, b"{" * 500_000),
        (CUE, b"\r" * 1_500_000 + b"x"),
    ],
)
def test_braces_and_line_breaks_without_end_are_read_in_time(in_time, head, marks) -> None:
    text = head + b"First words {\\i1}here{\\i0}" + marks + b"\n\n"
    (line,) = read_subtitles(text)
    assert line.text.startswith("First words here")


def test_base64_of_blanks_without_end_is_refused_in_time(in_time) -> None:
    with pytest.raises(VideoReadError):
        load_picture("data:image/png;base64,A" + " " * 3_000_000 + "A")


def beside_words(medium, kind, change=bytes, first=0):
    """
    Matroska of a track of `medium`, from its packet `first` on, which `change` may alter, and of one line of words at
    1 second.
    """
    file = io.BytesIO()
    with av.open(medium) as source, av.open(file, "w", format="matroska") as out:
        words = av.open(io.BytesIO(CUE + b"Words\n\n"), format="srt")
        (template,) = getattr(source.streams, kind)
        stream = out.add_stream_from_template(template)
        track = out.add_stream_from_template(words.streams.subtitles[0])
        for read in [packet for packet in source.demux(template) if packet.dts is not None][first:]:
            packet = av.Packet(change(bytes(read)))
            packet.pts, packet.dts, packet.time_base, packet.stream = read.pts, read.dts, read.time_base, stream
            packet.is_keyframe = read.is_keyframe
            out.mux(packet)
        for packet in words.demux(subtitles=0):
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)
        words.close()
    return file.getvalue()


def test_words_are_read_where_no_frame_of_their_video_can_be_decoded() -> None:
    medium = make_video(io.BytesIO(), 10, codec="mpeg4", container="mp4")
    medium.seek(0)
    data = beside_words(medium, "video", lambda packet: bytes(len(packet)))
    assert [(line.start, line.text) for line in read_subtitles(0, data)] == [(1.0, "Words")]
    with pytest.raises(VideoReadError, match="no frame of it can be decoded"):
        read_subtitles(0, [VideoSegment(data), VideoSegment(data)])


def test_words_beside_sound_alone_are_not_joined_at_no_time() -> None:
    medium = make_video(io.BytesIO(), 50, container="mp4", audio=True)
    medium.seek(0)
    data = beside_words(medium, "audio")
    assert [line.text for line in read_subtitles(0, data)] == ["Words"]
    with pytest.raises(VideoReadError, match="it holds sound only, no video stream"):
        read_subtitles(0, [VideoSegment(data), VideoSegment(data)])


def test_the_lines_of_a_recording_that_begins_between_two_keyframes_follow_its_first_picture() -> None:
    whole = make_video(io.BytesIO(), 60, container="matroska")  # keyframes: 0, 12, 24, ...
    whole.seek(0)
    ((start, end, text),) = read_subtitles(0, beside_words(whole, "video", first=5))
    assert (round(start, 3), round(end, 3), text) == (0.52, 1.52, "Words")


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_a_file_of_subtitles_counts_from_where_the_sound_begins(container, warnings) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        film, sound = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=8000)
        film.width, film.height, film.pix_fmt, film.options = 64, 48, "yuv420p", {"bf": "0"}
        for number in range(100):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 8000, 320 * number, Fraction(1, 8000)
            out.mux(sound.encode(silence))
            if number >= 25:
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(film.encode(frame))
        out.mux(film.encode(None))
        out.mux(sound.encode(None))
    data = file.getvalue()
    early = b"1\n00:00:00,100 --> 00:00:00,500\nEarly\n\n"
    (line,) = read_subtitles(early + b"2\n00:00:02,000 --> 00:00:03,000\nWords\n\n", data)
    assert (line.text, round(line.start, 1), round(line.end, 1)) == ("Words", 1.0, 2.0)
    assert number_of(read_frames(data, times=[line.start + 0.02]).frames[0]) == pytest.approx(50, abs=2)
    assert not warnings.text


@pytest.mark.parametrize(
    ("names", "line", "words"),
    [
        ("Layer, Start, End, Style, Text", "0,0:00:01.00,0:00:02.00,Default,Yes, I do", "Yes, I do"),
        ("Layer, Start, End, Style, Name, Text", "0,0:00:01.00,0:00:02.00,Default,Bob,Well, no, or", "Well, no, or"),
        ("Start, End, Text", "0:00:01.00, 0:00:02.00,One, {\\i1}two{\\i0}", "One, two"),
    ],
)
def test_the_fields_of_a_line_of_ass_are_those_that_the_file_names(names, line, words) -> None:
    head = "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\n\n[Events]\n"
    (read,) = read_subtitles(f"{head}Format: {names}\nDialogue: {line}\n".encode())
    assert (read.start, read.end, read.text) == (1.0, 2.0, words)


def test_a_damaged_line_of_ass_is_quoted_as_it_stands_with_an_example_in_its_own_fields() -> None:
    text = f"{ASS.decode().partition('Format:')[0]}Format: Start, End, Style, Text\nDialogue: 1 s,2 s,Default,Words\n"
    with pytest.raises(VideoReadError) as error:
        read_subtitles(text.encode())
    assert "'Dialogue: 1 s,2 s,Default,Words'" in str(error.value)
    assert "'Dialogue: 0:00:01.00,0:00:02.50,,Words'" in str(error.value)


def test_a_film_that_cannot_seek_is_left_to_whoever_reads_it() -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

    film = Stream(make_video(io.BytesIO(), 10, container="matroska").getvalue())
    assert [line.text for line in read_subtitles(CUE + b"Words\n\n", film)] == ["Words"]
    assert film.tell() == 0


def test_fields_behind_the_text_of_a_line_of_ass_are_refused() -> None:
    text = ASS.replace(b"Effect, Text", b"Text, Effect") + b"Words,\n"
    with pytest.raises(VideoReadError, match="line 5 puts other fields behind the text"):
        read_subtitles(text)


def test_times_of_a_segment_that_are_no_numbers_are_named_beside_subtitles() -> None:
    with pytest.raises(VideoReadError, match="has no times in seconds; pass numbers"):
        read_subtitles(CUE + b"Words\n\n", VideoSegment(b"video", "0", "1"))
