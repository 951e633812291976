"""What is said stands beside the scenes: files and tracks of subtitles, a budget, and nothing left out silently."""

import io
import logging
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from fila_video import (
    VideoLimits,
    VideoReadError,
    VideoSegment,
    VideoTextToTextPipeline,
    read_subtitles,
    subtitles_fila_video,
)
from fila_video.subtitles_fila_video import SubtitleLine, is_track, lines_beside_scenes, lines_within
from fila_video.video_limits_fila_video import Budget
from helpers.hostile_servers import HostileServer, head
from helpers.tiny_processor import clip, model_for, tiny_processor
from helpers.video_files import make_video

SRT = (
    "1\n00:00:00,500 --> 00:00:01,000\n<i>Hello</i> there,\nfriend\n\n"
    "2\n00:00:02,000 --> 00:00:02,500\n{curly} & plain\n"
)
VTT = (
    "WEBVTT\n\nNOTE a note\n\n00:00.500 --> 00:01.000 align:start\n<v Bob><i>Hello</i> there,\nfriend\n\n"
    "00:02.000 --> 00:02.500\n{curly} &amp; plain\n"
)
LINES = [(0.5, 1.0, "Hello there, friend"), (2.0, 2.5, "{curly} & plain")]

# What the encoder of timed text asks for: a style that lines are written in.
ASS_HEADER = (
    "[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\n"
    "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, "
    "Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, "
    "MarginV, Encoding\r\n"
    "Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\r\n\r\n"
    "[Events]\r\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)


def rounded(lines):
    return [(round(line.start, 3), round(line.end, 3), line.text) for line in lines]


def film_with_tracks(path, tracks, start_ms=0):
    """A film of four seconds with a track of subtitles for each language of `tracks`."""
    make_video(path.with_suffix(".mp4"), 100)
    with av.open(str(path.with_suffix(".mp4"))) as source, av.open(str(path), "w") as out:
        picture = out.add_stream_from_template(source.streams.video[0])
        containers = [av.open(io.BytesIO(text.encode()), format="srt") for _, text in tracks]
        streams = []
        for (language, _), container in zip(tracks, containers, strict=True):
            streams.append(out.add_stream_from_template(container.streams.subtitles[0]))
            streams[-1].metadata["language"] = language
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                packet.pts += round(start_ms / 1000 / packet.time_base)
                packet.dts += round(start_ms / 1000 / packet.time_base)
                out.mux(packet)
        for stream, container in zip(streams, containers, strict=True):
            for packet in container.demux(subtitles=0):
                if packet.dts is not None:
                    packet.stream = stream
                    packet.pts += start_ms
                    packet.dts += start_ms
                    out.mux(packet)
            container.close()
    return str(path)


def film_with_timed_text(path, tracks):
    """An MP4 of four seconds with a track of timed text (mov_text) for each language of `tracks`."""
    picture_alone = str(make_video(path.with_name("picture.mp4"), 100))
    with av.open(picture_alone) as source, av.open(str(path), "w") as out:
        picture = out.add_stream_from_template(source.streams.video[0])
        streams = []
        for language, _ in tracks:
            streams.append(out.add_stream("mov_text"))
            streams[-1].metadata["language"] = language
            streams[-1].codec_context.subtitle_header = ASS_HEADER.encode()
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                out.mux(packet)
        for stream, (_, lines) in zip(streams, tracks, strict=True):
            for start, end, text in lines:
                packet = av.Packet(len(text.encode()).to_bytes(2, "big") + text.encode())
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = round(1000 * start)
                packet.duration = round(1000 * (end - start))
                out.mux(packet)
    return str(path)


@pytest.mark.parametrize("text", [SRT, VTT, SRT.rstrip("\n")])
def test_both_formats_give_plain_lines_with_their_seconds(tmp_path, text) -> None:
    assert rounded(read_subtitles(text.encode())) == LINES
    for mark, encoding in (("", "utf-8-sig"), ("\ufeff", "utf-16-le"), ("\ufeff", "utf-16-be")):
        path = tmp_path / f"{encoding}.srt"
        path.write_text(mark + text, encoding=encoding)
        assert rounded(read_subtitles(path)) == rounded(read_subtitles(str(path))) == LINES


@pytest.mark.parametrize("start_ms", [0, 700])
def test_tracks_inside_the_file_are_found_by_number_and_language(tmp_path, start_ms) -> None:
    film = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT), ("fra", SRT.replace("Hello", "Salut"))], start_ms)
    for name, hello in ((0, "Hello"), ("eng", "Hello"), (1, "Salut"), ("FRA", "Salut")):
        lines = read_subtitles(name, film)
        assert rounded(lines) == [(start, end, text.replace("Hello", hello)) for start, end, text in LINES]
    for wrong in (2, -1, "deu"):
        with pytest.raises(VideoReadError, match=r"film\.mkv.*0 \(eng\), 1 \(fra\)"):
            read_subtitles(wrong, film)


@pytest.mark.parametrize("number", [1, "1", 1.0, np.int64(1)])
def test_a_track_has_the_same_number_in_every_form(tmp_path, number) -> None:
    film = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT), ("deu", SRT.replace("plain", "schlicht"))])
    assert [line.text for line in read_subtitles(number, film)][-1].endswith("schlicht")
    assert "schlicht" in prompt_of(tiny_processor(), film, subtitles=number)[0]


@pytest.mark.parametrize("form", ["bytes", "file", "frames"])
def test_a_track_of_a_video_that_was_encoded_without_a_name_is_refused_as_such(tmp_path, form) -> None:
    film, processor = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)]), tiny_processor()
    data = Path(film).read_bytes()
    encoded = processor.encode_video({"bytes": data, "file": io.BytesIO(data), "frames": clip()}[form])
    with pytest.raises(ValueError, match=r"the track 'eng' of the video, but .* was made of a \w+, which it does not"):
        processor(text="<video>a", videos=encoded, subtitles="eng")
    assert "Hello" in prompt_of(processor, encoded, subtitles=read_subtitles("eng", film))[0]


def test_of_an_encoded_film_that_is_gone_it_is_said_that_its_beginning_is_not_known(tmp_path, caplog) -> None:
    film, processor = make_video(tmp_path / "film.mkv"), tiny_processor()
    logger = subtitles_fila_video.logger
    logger.addHandler(caplog.handler)
    try:
        for source, is_gone in ((film, False), (film.read_bytes(), True)):
            logger.warning_once.cache_clear()
            processor(text="<video>a", videos=processor.encode_video(source), subtitles=SRT.encode())
            assert ("begins behind its sound" in caplog.text) == is_gone
    finally:
        logger.removeHandler(caplog.handler)


def test_limits_of_time_hold_while_the_pictures_beside_a_track_pass(tmp_path, monkeypatch) -> None:
    film, spent, spend = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)]), [], Budget.spend

    def count(budget: Budget, packets: int = 0, frame: tuple | None = None) -> None:
        spent.append((packets, frame))
        spend(budget, packets, frame)

    monkeypatch.setattr(Budget, "spend", count)
    read_subtitles(0, film)
    assert spent.count((0, None)) >= 100  # a look at the clock for each picture, none of which counts as a line


def test_timed_text_inside_an_mp4_is_found_by_number_and_language(tmp_path) -> None:
    french = [(0.25, 1.25, "Salut,\nmon ami"), (1.25, 3.0, "{\u00e0} bient\u00f4t")]  # without a pause between them
    film = film_with_timed_text(tmp_path / "film.mp4", [("eng", LINES), ("fra", french)])
    with av.open(film) as container:
        assert [stream.codec_context.name for stream in container.streams.subtitles] == ["mov_text"] * 2
    for name in (0, "eng", "ENG"):
        assert rounded(read_subtitles(name, film)) == LINES
    for name in (1, "fra"):
        assert rounded(read_subtitles(name, film)) == [(a, b, text.replace("\n", " ")) for a, b, text in french]
    (line,) = read_subtitles("fra", [VideoSegment(film, 1.5, 3.5)])
    assert rounded([line]) == [(0.0, 1.5, french[1][2])]
    for wrong in (2, "deu"):
        with pytest.raises(VideoReadError, match=r"film\.mp4.*0 \(eng\), 1 \(fra\)"):
            read_subtitles(wrong, film)
    _, scenes = prompt_of(tiny_processor(num_scenes=2), film, subtitles="eng")
    assert " ".join(scenes["subtitles"]).split() == " ".join(text for *_, text in LINES).split()


def test_lines_follow_the_clips_of_a_video(tmp_path) -> None:
    film = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)])
    (line,) = read_subtitles("eng", [VideoSegment(film, 1.5, 3.0)])
    assert rounded([line]) == [(0.5, 1.0, "{curly} & plain")]
    parts = [VideoSegment(film, 0.0, 1.5), VideoSegment(film, 1.0, 3.0)]
    joined = read_subtitles(0, parts, limits=VideoLimits(packets=102))  # which let the reader read its 100 frames
    assert rounded(joined) == [(0.5, 1.0, LINES[0][2]), (2.5, 3.0, LINES[1][2])]
    with pytest.raises(VideoReadError, match=r"from 100 to 200 seconds does not lie within its 4\.000 seconds"):
        read_subtitles(0, [VideoSegment(film, 100, 200), *parts])
    with pytest.raises(ValueError, match="several segments"):
        read_subtitles(SRT.encode(), [VideoSegment(film, 0.0, 1.0)] * 2)


def test_a_line_that_is_shown_on_is_taken_once() -> None:
    text = "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n + 1},000\nthe same\n\n" for n in range(1, 4))
    assert rounded(read_subtitles(text.encode())) == [(1.0, 4.0, "the same")]


@pytest.mark.parametrize(("pause", "number"), [(50, 1), (200, 2)])
def test_a_line_goes_on_over_the_shortest_pause_alone(pause, number) -> None:
    text = cue("00:00:01,000", "00:00:02,000", "the same") + cue(f"00:00:02,{pause:03d}", "00:00:03,000", "the same")
    assert len(read_subtitles(text.encode())) == number


@pytest.mark.parametrize(
    ("name", "expected"),
    [("en", True), ("eng", True), ("ENG", True), ("engl", False), ("e", False), ("e1", False), (0, True), (-1, True)]
    + [(True, False), (None, False), (1.0, True), (1.5, False), (float("nan"), False), (np.int64(0), True)]
    + [("0", True), ("12", True), ("0.srt", False), ("./0", False), ("", False)],
)
def test_a_track_is_named_by_its_number_or_by_two_or_three_letters(name, expected) -> None:
    assert is_track(name) is expected


def test_a_track_of_more_lines_than_a_film_has_is_refused(tmp_path, monkeypatch) -> None:
    film = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)])
    monkeypatch.setattr(subtitles_fila_video, "MAX_LINES", 2)
    assert len(read_subtitles(0, film)) == 2
    monkeypatch.setattr(subtitles_fila_video, "MAX_LINES", 1)
    with pytest.raises(VideoReadError, match="its subtitles have more than 1 lines; split the file"):
        read_subtitles(0, film)


def test_a_line_that_begins_where_the_video_ends_is_outside_of_it() -> None:
    inside, outside = (SubtitleLine(start, 5.0, "words") for start in (3.999, 4.0))
    assert lines_within([inside, outside], 4.0) == (inside,)
    assert lines_within([inside, outside], None) == (inside, outside)


def test_no_farther_line_takes_the_room_of_a_nearer_one_that_is_too_long() -> None:
    near, long, far = (SubtitleLine(at, at, text) for at, text in ((1.0, "a"), (2.0, "b " * 50), (9.0, "c")))
    tokenizer = tiny_processor().tokenizer
    assert lines_beside_scenes([near, far], [1.0], 20, tokenizer, "head") == (["a c"], 0)
    assert lines_beside_scenes([near, long, far], [1.0], 20, tokenizer, "head") == (["a"], 2)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"no subtitles at all", "none of the formats"),
        (b"", "empty"),
        (SRT.encode().replace(b"Hello", b"Gr\xfc\xdfe"), "not UTF-8"),
    ],
)
def test_what_is_no_file_of_subtitles_is_named(tmp_path, data, part) -> None:
    path = tmp_path / "words.srt"
    path.write_bytes(data)
    with pytest.raises(VideoReadError, match=rf"subtitles .*words\.srt.*{part}"):
        read_subtitles(path)
    with pytest.raises(VideoReadError, match="no such file"):
        read_subtitles(tmp_path / "missing.srt")


def cue(start: str, end: str, words: str) -> str:
    return f"1\n{start} --> {end}\n{words}\n\n"


FIRST, LAST = cue("00:00:01,000", "00:00:02,000", "first"), cue("00:01:00,000", "00:01:01,000", "last")
DIALOGUE = "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,first\r\n"
ASS = ASS_HEADER + DIALOGUE


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (FIRST + cue("00:00:04,000", "00:00:03,000", "moment") + LAST, 6),
        ("WEBVTT\n\n" + FIRST + cue("00:04.000", "00:03.000", "moment") + LAST, 8),
        (
            ASS
            + "Dialogue: 0,0:00:04.00,0:00:03.00,Default,,0,0,0,,moment\n"
            + DIALOGUE.replace("0:00:0", "0:01:0").replace("first", "last"),
            11,
        ),
    ],
)
def test_a_cue_that_ends_before_it_begins_is_a_moment_and_is_said(tmp_path, caplog, text, at) -> None:
    path = tmp_path / "words.srt"
    path.write_text(text, newline="")
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        lines = read_subtitles(path)
    assert (4.0, 4.0, "moment") in rounded(lines) and len(lines) == 3
    (warning,) = caplog.messages
    assert f"words.srt': 1 of 3 cues end before they begin, first that of line {at} (" in warning


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (FIRST + cue("00:00:0x,000", "00:00:04,000", "damaged") + LAST, 6),
        (FIRST + cue("00:00:03,000", "00:00:0x,000", "damaged") + LAST, 6),
        (FIRST + cue("00:99:99,000", "00:99:99,500", "damaged") + LAST, 6),
        (FIRST + cue("-00:00:03,000", "00:00:04,000", "damaged") + LAST, 6),
        (FIRST + cue("0:0:3,5", "0:0:4,5", "of how many milliseconds?") + LAST, 6),
        (FIRST + "2\n00:00:03,000 -> 00:00:04,000\ndamaged\n\n" + LAST, 6),
        (FIRST + "2\nwithout times\n\n" + LAST, 6),
        (FIRST + "2\n", 5),
        (FIRST.rstrip() + "\n00:00:0x,000 --> 00:00:04,000\ndamaged\n\n" + LAST, 4),
        ("words of nobody\n\n" + FIRST, 1),
        ("hello --> world\n", 1),
        ("\n\n" + cue("00:00:0x,000", "00:00:04,000", "damaged"), 4),
        ("WEBVTT\n\n" + FIRST + cue("00:0x.000", "00:03.000", "damaged") + LAST, 8),
        ("WEBVTT\n\n" + FIRST + "more words, behind an empty line\n\n" + LAST, 7),
        (ASS + "Dialogue: 0,0:00:0x.00,0:00:03.00,Default,,0,0,0,,damaged\n", 11),
    ],
)
def test_damaged_times_are_an_error_with_their_line(tmp_path, text, at) -> None:
    path = tmp_path / "words.srt"
    path.write_text(text, newline="")
    with pytest.raises(VideoReadError, match=rf"words\.srt.* damaged at line {at}: '.*' stands where the times"):
        read_subtitles(path)


@pytest.mark.parametrize(
    "text",
    ["WEBVTT\n", "WEBVTT\n\nNOTE nothing is said\n", "1\n00:00:01,000 --> 00:00:02,000\n\n", ASS_HEADER]
    + [ASS.replace("first", r"{\p1}m 0 0 l 100 0{\p0}")],
)
def test_a_file_without_a_line_of_words_is_an_error(tmp_path, text) -> None:
    path = tmp_path / "words.srt"
    path.write_text(text, newline="")
    with pytest.raises(VideoReadError, match=rf"words\.srt.*no line of words can be read of their {len(text)} bytes"):
        read_subtitles(path)


@pytest.mark.parametrize(
    "text",
    [
        # Out of order, overlapping, of no duration, an arrow in words, hours left out, settings, a line without words.
        "9\n00:05,000 --> 00:06,000\nc\n\n00:00:01.000-->00:00:03,000 X1:1 X2:9\ngo --> there\n42\n\n"
        "11\n00:00:02 --> 00:00:02\nb\n12\n00:00:07,000 --> 00:00:08,000\n\n",
        "WEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:left\n\nc of the end\n"
        "00:05.000 --> 00:06.000 position:50%,line-left align:start\nc\n\nNOTE\n00:00.000 --> 00:09.000\nnot said\n\n"
        "00:01.000 --> 00:03.000\ngo --> there\n42\n00:02.000 --> 00:02.000\nb\n",
        ASS_HEADER + "Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,not said\n"
        "Dialogue: 0,0:00:05.00,0:00:06.00,Default,,0,0,0,,c\nDialogue: Marked=0,0:00:01.00,0:00:03.000,,,0,0,0,,"
        "go --> {\\i1}there{\\i0}\\N42\nDialogue: 0,0:00:02.00,0:00:02.00,Default,,0,0,0,,b\n",
    ],
)
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\ufeff\ufeff"])
def test_what_the_formats_allow_is_read_with_any_line_break(tmp_path, caplog, text, line_break, mark) -> None:
    path = tmp_path / "words"
    path.write_text(mark + text.replace("\r\n", "\n").replace("\n", line_break), encoding="utf-8", newline="")
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        lines = read_subtitles(path)
    assert rounded(lines) == [(1.0, 3.0, "go --> there 42"), (2.0, 2.0, "b"), (5.0, 6.0, "c")]
    assert not caplog.messages


def test_a_moment_at_the_start_of_a_clip_is_kept(tmp_path) -> None:
    text = cue("00:00:00,000", "00:00:00,000", "start") + cue("00:00:02,000", "00:00:02,000", "cut")
    assert rounded(read_subtitles(text.encode())) == [(0.0, 0.0, "start"), (2.0, 2.0, "cut")]
    clip_of_it = VideoSegment(str(tmp_path / "film.mp4"), 2.0, 3.0)
    assert rounded(read_subtitles(text.encode(), clip_of_it)) == [(0.0, 0.0, "cut")]


@pytest.mark.parametrize("way", ["processor", "chat", "lines_beside_scenes"])
def test_lines_after_the_end_of_the_video_are_left_out_once_and_said(tmp_path, caplog, way) -> None:
    film, processor = str(make_video(tmp_path / "film.mp4", 40, fps=10)), tiny_processor(num_scenes=2)
    words = (FIRST + cue("00:00:03,900", "00:00:09,000", "until later") + LAST).encode()
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        if way == "processor":
            _, scenes = prompt_of(processor, processor.encode_video(film), subtitles=words)
            said, left_out = scenes["subtitles"], scenes["subtitles_left_out"]
        elif way == "chat":
            pipe = VideoTextToTextPipeline(model=model_for(processor), processor=processor, device="cpu")
            chat = pipe.chat(film, subtitles=words, max_new_tokens=2)
            chat.ask("What?")
            chat.ask("And then?")
            said, left_out = chat.scenes[0]["subtitles"], chat.scenes[0]["subtitles_left_out"]
        else:
            times = [1.0, 3.9]
            said, left_out = lines_beside_scenes(
                read_subtitles(words), times, 500, processor.tokenizer, "head", duration=4.0
            )
    assert " ".join(filter(None, said)) == "first until later" and left_out == 0
    (warning,) = [message for message in caplog.messages if "left out" in message]
    assert warning.startswith("1 of 3 lines of subtitles are left out: they begin after the end of ")
    assert "the first at 60.000 seconds, while its duration is 4.000 seconds" in warning


def test_segments_of_one_url_are_fetched_once(tmp_path) -> None:
    film = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)])
    data = Path(film).read_bytes()

    def serve(connection, request, server) -> None:
        server.send(connection, head(content_length=len(data)) + data)

    parts = [(0.0, 1.5), (1.0, 3.0), (2.0, None), (0.0, 1.0)]
    with HostileServer(serve) as server:
        lines = read_subtitles(0, [VideoSegment(f"{server.url}/film.mkv", *part) for part in parts])
        assert len(server.requests) == 1
    assert lines == read_subtitles(0, [VideoSegment(film, *part) for part in parts])
    assert [round(line.start, 3) for line in lines] == [0.5, 2.5, 3.5, 6.0]


def test_the_times_of_a_track_are_those_of_the_stream_that_is_read(tmp_path) -> None:
    """Of a film that begins after two seconds, and a preview of one picture that begins at once."""
    film = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)], start_ms=2000)
    with av.open(film) as source, av.open(str(tmp_path / "both.mkv"), "w") as out:
        preview = out.add_stream("mjpeg", rate=1)
        preview.width, preview.height, preview.pix_fmt = 64, 48, "yuvj420p"
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        frame = av.VideoFrame(64, 48, "yuvj420p")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        out.mux(preview.encode(frame))
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    assert rounded(read_subtitles(0, tmp_path / "both.mkv")) == rounded(read_subtitles(0, film)) == LINES


def test_a_stream_that_cannot_be_read_twice_is_named(tmp_path) -> None:
    film = Path(film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)]))
    stream = SimpleNamespace(read=io.BytesIO(film.read_bytes()).read)
    with pytest.raises(VideoReadError, match=r"read before: .* read once only, .* with subtitles inside of it"):
        prompt_of(tiny_processor(num_scenes=2), stream, subtitles="eng")


def test_subtitles_of_private_hosts_are_refused_like_videos() -> None:
    with pytest.raises(VideoReadError, match="allow_private_hosts is False"):
        read_subtitles("http://127.0.0.1:9/words.srt", allow_private_hosts=False)


def test_every_line_has_one_scene_and_the_budget_keeps_those_nearest_to_its_time() -> None:
    lines = [SubtitleLine(second, second + 1, f"line{second}") for second in range(20)]
    count = lambda texts, add_special_tokens: {"input_ids": [[0]] * len(texts)}  # noqa: E731
    spoken = lines_beside_scenes(lines, [4.5, 14.6], 100, count, "head")
    assert spoken.texts == [" ".join(f"line{n}" for n in part) for part in (range(10), range(10, 20))]
    assert spoken.num_left_out == 0
    tight = lines_beside_scenes(lines, [4.5, 14.5], 2 + 6, count, "head")
    assert tight.texts == ["line3 line4 line5", "line13 line14 line15"] and tight.num_left_out == 14
    assert lines_beside_scenes(lines, [4.5], 1, count, "head").texts == [""]
    assert lines_beside_scenes([], [4.5], 1, count, "head") == ([""], 0)
    with pytest.raises(ValueError, match="subtitle_tokens"):
        lines_beside_scenes(lines, [4.5], 0, count, "head")


def prompt_of(processor, film, **options):
    outputs = processor(text="<video>Q", videos=[film], return_scenes=True, **options)
    text = processor.tokenizer.decode(outputs["input_ids"][0]).replace("<video>", "")
    return text, outputs["scenes"][0]


def test_the_words_stand_beside_the_time_of_their_scene(tmp_path) -> None:
    film, processor = str(make_video(tmp_path / "film.mp4", 100)), tiny_processor(num_scenes=2)
    text, scenes = prompt_of(processor, film, subtitles=SRT.encode())
    times = scenes["timestamps"][:, -1].tolist()
    middles = [(start + end) / 2 for start, end, _ in LINES]
    nearest = [min(range(2), key=lambda index: abs(times[index] - middle)) for middle in middles]
    for (_, _, words), scene in zip(LINES, nearest, strict=True):
        assert words in scenes["subtitles"][scene]
    written = "".join(
        f"\nSubtitles at {time:.1f} seconds: {words}"
        for time, words in zip(times, scenes["subtitles"], strict=True)
        if words
    )
    assert written in text and text.index("This video samples") < text.index(written) < text.index("Q")
    assert scenes["subtitles_left_out"] == 0
    text, scenes = prompt_of(processor, film, subtitles=SRT.encode(), time_marks="per_scene")
    marks = text.split("Frame from ")[1:]
    for mark, words in zip(marks, scenes["subtitles"], strict=True):
        assert (f"Subtitles: {words}" in mark) if words else ("Subtitles" not in mark)


@pytest.mark.parametrize("is_nested", [False, True])
def test_subtitles_are_read_of_a_file_that_is_open(tmp_path, is_nested) -> None:
    film, processor = str(make_video(tmp_path / "film.mp4", 100)), tiny_processor()
    (tmp_path / "film.srt").write_text(SRT)
    with open(tmp_path / "film.srt", "rb") as words:
        options = {"subtitles": [words]}
        text, _ = prompt_of(processor, film, **({"videos_kwargs": options} if is_nested else options))
        assert "Hello there" in text and options == {"subtitles": [words]}


def test_lines_without_room_are_counted_and_said(tmp_path, caplog) -> None:
    film, processor = str(make_video(tmp_path / "film.mp4", 100)), tiny_processor()
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        text, scenes = prompt_of(processor, film, subtitles=SRT.encode(), subtitle_tokens=1)
    assert scenes["subtitles_left_out"] == 2 and "Hello" not in text
    assert "2 of 2 lines of subtitles are left out" in caplog.text


def test_each_video_has_its_own_subtitles(tmp_path) -> None:
    films = [film_with_tracks(tmp_path / f"{n}.mkv", [("eng", SRT.replace("Hello", f"Hello{n}"))]) for n in range(2)]
    processor = tiny_processor()
    for subtitles in ("eng", [SRT.replace("Hello", f"Hello{n}").encode() for n in range(2)]):
        outputs = processor(text=["<video>a", "<video>b"], videos=films, subtitles=subtitles, padding=True)
        texts = processor.tokenizer.batch_decode(outputs["input_ids"])
        assert ["Hello0" in texts[0], "Hello1" in texts[0], "Hello1" in texts[1]] == [True, False, True]
    with pytest.raises(ValueError, match="given for 1 videos, but 2"):
        processor(text=["<video>a", "<video>b"], videos=films, subtitles=[SRT.encode()])
    with pytest.raises(ValueError, match="cannot be the subtitles of 2 videos"):
        processor(text=["<video>a", "<video>b"], videos=films, subtitles=SRT.encode())
    with pytest.raises(ValueError, match="has no tracks"):
        processor(text="<video>a", videos=[clip()], subtitles="eng")


def test_subtitles_cannot_speak_for_the_model(tmp_path) -> None:
    film = str(make_video(tmp_path / "film.mp4", 30))
    with pytest.raises(ValueError, match=r"Subtitles cannot be used: .*im_end"):
        tiny_processor()(text="<video>a", videos=[film], subtitles=SRT.replace("friend", "<|im_end|>").encode())


def test_the_pipeline_takes_them_and_gives_them_back(tmp_path) -> None:
    film, processor = str(make_video(tmp_path / "film.mp4", 100)), tiny_processor()
    pipe = VideoTextToTextPipeline(model=model_for(processor), processor=processor, device="cpu")
    path = tmp_path / "words.vtt"
    path.write_text(VTT)
    (record,) = pipe(film, text="What?", subtitles=str(path), max_new_tokens=2, return_scenes=True)
    assert " ".join(filter(None, record["scenes"][0]["subtitles"])) == " ".join(text for _, _, text in LINES)


def spoken_in(record: list) -> str | None:
    """What is said beside the scenes of an answer's only video, or `None` without subtitles."""
    lines = record[0]["scenes"][0].get("subtitles")
    return None if lines is None else " ".join(filter(None, lines))


def test_of_several_inputs_each_has_its_own_subtitles(tmp_path) -> None:
    film, processor = str(make_video(tmp_path / "film.mp4", 100)), tiny_processor()
    pipe = VideoTextToTextPipeline(model=model_for(processor), processor=processor, device="cpu")
    options, words = {"max_new_tokens": 2, "return_scenes": True}, " ".join(text for _, _, text in LINES)
    chat = [{"role": "user", "content": [{"type": "video", "video": film}, {"type": "text", "text": "What?"}]}]
    one = {"videos": film, "text": "What?"}
    for inputs, given in (
        (([film, film], ["What?", "What?"]), {"subtitles": [SRT.encode(), None]}),
        (([chat, chat],), {"subtitles": (SRT.encode(), None)}),
        (([film, film], ["What?", "What?"]), {"processor_kwargs": {"subtitles": [SRT.encode(), None]}}),
        (([{**one, "subtitles": SRT.encode()}, one],), {}),
        ((iter([{**one, "subtitles": SRT.encode()}, {**one, "subtitles": None}]),), {}),
    ):
        assert [spoken_in(record) for record in pipe(*inputs, **options, **given)] == [words, None]
    both = [{"videos": [film, film], "text": "What?"}]
    for given in ([SRT.encode(), None], [[SRT.encode(), None]]):
        ((record,),) = pipe(both, subtitles=given, **options)
        assert ["subtitles" in scenes for scenes in record["scenes"]] == [True, False]


def test_subtitles_of_one_film_are_not_taken_for_those_of_others_but_a_track_is(tmp_path) -> None:
    film, processor = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)]), tiny_processor()
    model, options = model_for(processor), {"max_new_tokens": 2, "return_scenes": True}
    pipe = VideoTextToTextPipeline(model, processor=processor, device="cpu", subtitles="eng")
    words = " ".join(text for _, _, text in LINES)
    for inputs, text in (([film, film], ["What?", "Who?"]), (iter([film, film]), "What?")):
        assert [spoken_in(record) for record in pipe(inputs, text=text, **options)] == [words, words]
    path = tmp_path / "words.srt"
    path.write_text(SRT)
    for one in (str(path), SRT.encode(), read_subtitles(path)):
        with pytest.raises(ValueError, match="is one file for 2 inputs"):
            pipe([film, film], text=["What?", "Who?"], subtitles=one)
        for inputs in (iter([film, film]), (film for _ in range(2))):
            with pytest.raises(ValueError, match="not counted, cannot be one file: pass each input's own"):
                pipe(inputs, text="What?", subtitles=one)
        with pytest.raises(ValueError, match=r"belong to one video.* pass them with the call"):
            VideoTextToTextPipeline(model=model, processor=processor, device="cpu", subtitles=one)
    with pytest.raises(ValueError, match="`subtitles` has 3 entries for 2 inputs"):
        pipe([film, film], text=["What?", "Who?"], subtitles=[None] * 3)
    with pytest.raises(ValueError, match="cannot be a list"):
        pipe(iter([film, film]), text="What?", subtitles=[None, None])


def test_a_column_of_a_dataset_has_the_subtitles_of_each_row(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    film, processor = str(make_video(tmp_path / "film.mp4", 100)), tiny_processor()
    pipe = VideoTextToTextPipeline(model=model_for(processor), processor=processor, device="cpu")
    path = tmp_path / "words.srt"
    path.write_text(SRT)
    columns = {"video": [film] * 2, "text": ["What?"] * 2, "subtitles": [str(path), None]}
    rows, options = datasets.Dataset.from_dict(columns), {"max_new_tokens": 2, "return_scenes": True}
    for inputs in (rows, rows.to_iterable_dataset()):
        first, second = pipe(inputs, **options)
        assert spoken_in(first) == " ".join(text for _, _, text in LINES) and spoken_in(second) is None
    with pytest.raises(ValueError, match="column `subtitle` of a dataset is not read"):
        pipe(rows.rename_column("subtitles", "subtitle"), **options)


@pytest.mark.parametrize("where", ["the pipeline's own", "processor_kwargs"])
def test_a_conversation_keeps_the_words_wherever_their_track_was_named(tmp_path, where) -> None:
    film, processor = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)]), tiny_processor()
    model = model_for(processor)
    own = {"subtitles": "eng"} if where == "the pipeline's own" else {}
    pipe = VideoTextToTextPipeline(model, processor=processor, device="cpu", **own)
    options = {} if own else {"processor_kwargs": {"subtitles": "eng", "seed": 3}}
    chat = pipe.chat(film, max_new_tokens=2, do_sample=False, **options)
    chat.ask("What?")
    chat.save(tmp_path / "talk")
    (tmp_path / "film.mkv").unlink()
    resumed = VideoTextToTextPipeline(model, processor=processor, device="cpu").resume_chat(tmp_path / "talk")
    resumed.ask("And then?")
    assert any("Hello" in text for text in resumed.scenes[0]["subtitles"])


@pytest.mark.parametrize("form", ["the file", "an encoded video"])
def test_a_conversation_has_the_words_of_a_track_in_every_turn_and_when_it_goes_on(tmp_path, form) -> None:
    film, processor = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT), ("fra", SRT)]), tiny_processor()
    pipe = VideoTextToTextPipeline(model=model_for(processor), processor=processor, device="cpu")
    video = film if form == "the file" else processor.encode_video(film)
    chat = pipe.chat(video, subtitles="fra", subtitle_tokens=500, max_new_tokens=2, do_sample=False)
    chat.ask("What?")
    assert " ".join(filter(None, chat.scenes[0]["subtitles"])) == " ".join(text for _, _, text in LINES)
    second = chat.ask("And then?")
    assert chat.rebuilds == 0 and any("Hello" in text for text in chat.scenes[0]["subtitles"])
    chat.messages = chat.messages[:-2]
    chat.save(tmp_path / "talk")
    (tmp_path / "film.mkv").unlink()  # its lines were read
    resumed = pipe.resume_chat(tmp_path / "talk")
    assert resumed.ask("And then?") == second
    assert any("Hello" in text for text in resumed.scenes[0]["subtitles"])


def test_a_conversation_names_tracks_and_words_that_it_cannot_take(tmp_path) -> None:
    film, processor = film_with_tracks(tmp_path / "film.mkv", [("eng", SRT)]), tiny_processor()
    pipe = VideoTextToTextPipeline(model=model_for(processor), processor=processor, device="cpu")
    for video in (film, processor.encode_video(film)):
        with pytest.raises(VideoReadError, match=r"film\.mkv.*no subtitles 'deu'.*0 \(eng\)"):
            pipe.chat(video, subtitles="deu")
    with pytest.raises(ValueError, match=r"Subtitles cannot be used: .*im_end"):
        pipe.chat(film, subtitles=SRT.replace("friend", "<|im_end|>").encode())
    with pytest.raises(ValueError, match="has no tracks"):
        pipe.chat(clip(), subtitles="eng")


def test_backslashes_of_words_are_kept_and_only_those_of_ass_break_lines(tmp_path) -> None:
    words = "Open C:\\new\\house and type \\Nabla"
    srt = f"1\n00:00:01,000 --> 00:00:03,000\n{{\\an8}}{words}\nnow\n"
    vtt = f"WEBVTT\n\n00:01.000 --> 00:03.000\n{words}&nbsp;\nnow\n"
    ass = ASS_HEADER + "Dialogue: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,One\\Ntwo\\hthree\n"
    assert [read_subtitles(text.encode())[0].text for text in (srt, vtt)] == [f"{words} now"] * 2
    assert read_subtitles(ass.encode())[0].text == "One two three"
    film = film_with_tracks(tmp_path / "film.mkv", [("eng", srt.replace("\\Nabla", "nabla"))])
    assert read_subtitles("eng", film)[0].text == "Open C:\\new\\house and type nabla now"


def test_a_track_of_pictures_is_an_error_that_says_so(tmp_path) -> None:
    # One picture of 8 x 2 pixels, as DVDs hold them: sizes and places, two lines, and when it comes and goes.
    picture = bytes.fromhex(
        "002c0008 00010001 00000026 01 033210 04ffff 05 000007 000001 06 00040006 ff".replace(" ", "")
    )
    picture += bytes.fromhex("ff" * (0x26 - len(picture))) + bytes.fromhex("0064002602ff")
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as container:
        video, subtitles = container.add_stream("mpeg4", rate=10), container.add_stream("dvdsub")
        video.width = video.height = 64
        for packet in [*video.encode(av.VideoFrame(64, 64, "yuv420p")), *video.encode()]:
            container.mux(packet)
        packet = av.Packet(picture)
        packet.pts = packet.dts = 500
        packet.duration, packet.time_base, packet.stream = 500, Fraction(1, 1000), subtitles
        container.mux(packet)
    with pytest.raises(VideoReadError, match="its subtitles are pictures, not text"):
        read_subtitles(0, film)
