"""Writing a long video as one mp4 file: packets copied where the sub-videos agree, else encoded anew as H.264.

A sub-video begins at the sum of the durations before it, to the tick, whichever way the file is written. Sound is
left out.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ..commands.files import replacing
from ..video_decoding_fila_video import Track, display_turn
from ..video_index_fila_video import index_video
from ..video_reading_fila_video import VideoSegment, iter_frames, probe_video
from ..video_sources_fila_video import OpenedSource

_TICKS = 90000  # a second, of the encoded files
_OPTIONS = {"preset": "veryfast", "crf": "23", "bf": "0"}  # without B-frames, a track ends when its last frame does
_BT709 = 1  # for color space, primaries and transfer


class _CannotCopy(Exception):
    """The sub-videos' packets do not fit behind one another in one file."""


@dataclass
class _Stream:
    """What must be equal for packets of several files to be one stream, and how the file lies in time."""

    signature: tuple
    number: int
    time_base: Fraction
    first: int
    length: int


def write_video(segments: list[VideoSegment], target: str | os.PathLike) -> str:
    """Joins whole files into `target` (mp4), which appears whole or not at all.

    Args:
        segments (`list[VideoSegment]`):
            Each a path from 0 seconds to its end.
        target (`str` or `os.PathLike`):
            The file to write; it is replaced where it exists, or what a link leads to; its folder is made.

    Returns:
        `"copied"` or `"encoded"`.

    Raises:
        VideoReadError: Where a sub-video cannot be read.
    """
    Path(os.path.realpath(target)).parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as unfinished:
        try:
            _copy(segments, unfinished)
            _check_length(segments, unfinished)
            return "copied"
        except _CannotCopy:
            _encode(segments, unfinished)
            return "encoded"


def _copy(segments: list[VideoSegment], target: Path) -> None:
    streams = []
    for segment in segments:
        streams.append(_describe(segment))
        if streams[-1].signature != streams[0].signature:
            raise _CannotCopy
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream, at, last = None, 0, None
        for segment, described in zip(segments, streams, strict=True):
            with OpenedSource(segment.source) as opened, opened.container() as container:
                source = container.streams[described.number]
                if stream is None:
                    stream = out.add_stream_from_template(source)
                    stream.time_base = described.time_base
                for packet in container.demux(source):
                    if packet.dts is None:
                        continue
                    packet.pts += at - described.first
                    packet.dts += at - described.first
                    if last is not None and packet.dts <= last:
                        raise _CannotCopy
                    last = packet.dts
                    packet.stream = stream
                    out.mux(packet)
            at += described.length


def _check_length(segments: list[VideoSegment], target: Path) -> None:
    """Players go by the length of the track, which unequal frame lengths at its end can make wrong."""
    wanted = sum(segment.end - segment.start for segment in segments)
    with av.open(str(target)) as container:
        track, whole = container.streams.video[0], container.duration / av.time_base
        lengths = (whole, float(track.duration * track.time_base), probe_video(target).duration)
    if any(abs(length - wanted) > 0.005 for length in lengths):
        raise _CannotCopy


def _describe(segment: VideoSegment) -> _Stream:
    """Raises [`_CannotCopy`] where players or the mp4 format may not take the file's packets as they are."""
    with OpenedSource(segment.source) as source:
        with closing(Track(source)) as track:
            index = index_video(track)
        if source.is_webp:
            raise _CannotCopy
        with source.container() as container:
            stream = container.streams[track.number]
            first, codec = next(container.decode(stream), None), stream.codec_context
            plain = (
                first is not None
                and codec.name == "h264"
                and codec.pix_fmt == "yuv420p"
                and bytes(codec.extradata or b"")[:1] == b"\x01"  # packets as mp4 and Matroska store them
                and display_turn(first) == (0, False)
                and not index.counted
                and len(index.times) == len(index.pts)
                and bool((index.times == index.pts[index.packets]).all())  # one clock
                and bool(index.keys[0])
                and index.pts[0] == index.times[0]
            )
            if not plain:
                raise _CannotCopy
            size = (codec.width, codec.height, codec.sample_aspect_ratio)
            signature = (bytes(codec.extradata), *size, stream.average_rate, stream.time_base)
            length = int(index.end - index.times[0])
            return _Stream(signature, track.number, stream.time_base, int(index.times[0]), length)


def _encode(segments: list[VideoSegment], target: Path) -> None:
    height, width = _even(_size_of(segments[0]))
    rate = max(Fraction(probe_video(segment.source).fps or 25).limit_denominator(1001) for segment in segments)
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.time_base = Fraction(1, _TICKS)
        codec.thread_count = 1  # the bytes depend on the number of threads
        codec.options = {**_OPTIONS, "g": str(max(1, round(2 * rate)))}
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        lengths = {}  # how long each frame is shown, by its time, until its packet is written
        for frame, length in _frames(segments, (height, width)):
            lengths[frame.pts] = length
            _mux(out, stream.encode(frame), lengths)
        _mux(out, stream.encode(None), lengths)


def _mux(out: av.container.OutputContainer, packets: Iterable[av.Packet], lengths: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = lengths.pop(packet.pts)
        out.mux(packet)


def _frames(segments: list[VideoSegment], size: tuple[int, int]) -> Iterator[tuple[av.VideoFrame, int]]:
    """`(frame, ticks it is shown)` of all segments; those of another size are scaled to it, as the reader does."""
    held, at = None, 0.0
    for segment in segments:
        for seconds, pixels in iter_frames(segment, num_frames=_all_frames, size=size):
            start = round((at + seconds) * _TICKS)
            if held is not None:
                if start <= held.pts:  # nearer than a tick
                    continue
                yield held, start - held.pts
            held = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            held.pts, held.time_base = start, Fraction(1, _TICKS)
        at += segment.end
    yield held, max(1, round(at * _TICKS) - held.pts)


def _all_frames(metadata: Any) -> int:
    return metadata.total_num_frames


def _size_of(segment: VideoSegment) -> tuple[int, int]:
    metadata = probe_video(segment)
    return metadata.height, metadata.width


def _even(size: tuple[int, int]) -> tuple[int, int]:
    """H.264 in yuv420p takes even sizes only."""
    return tuple(max(2, side + side % 2) for side in size)


__all__ = ["write_video"]
