"""The index of a video stream: when each of its frames is shown, and from which packets decoding can start.

Where a container stores when each frame is shown, frames are found by their times. Where it does not (AVI with
B-frames, raw streams), they are decoded from the start and counted.
"""

from array import array
from collections import Counter
from fractions import Fraction

import av
import numpy as np
from transformers.utils import logging

from .video_decoding_fila_video import NOPTS, Index, Track, all_frames
from .video_pixels_fila_video import display_size, webp_frames, webp_times
from .video_sources_fila_video import OpenedSource

logger = logging.get_logger(__name__)

_UNTIMED = {"avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu"}  # formats that store no presentation times
_NOT_CODED = 20  # bytes: an MPEG-4 packet below this may hold no picture ("show the last one again")
_FAR = 3600.0  # seconds between the first or last times and all others, from which on they are taken for damage


def index_video(source: OpenedSource) -> Index:
    """
    Reads every packet of the stream. Only its first frame is decoded, and all where they have to be counted.

    Raises:
        VideoReadError: If no frame can be decoded, or a limit is passed.
    """
    if source.is_webp:
        times = np.array(webp_times(source), dtype=np.int64)
        with_first = webp_frames(source)
        first = next(with_first, None)
        with_first.close()
        if first is None:
            raise source.error("no frame of it can be decoded")
        return _counted(times[:-1], np.ones(len(times) - 1, dtype=bool), times[-1], Fraction(1, 1000), first, None, 0)
    track = Track(source, stream=_find_stream(source))
    try:
        index = _index(track)
    finally:
        track.close()
    if index.damage:
        _check_readable(source)
    return index


def _check_readable(source) -> None:
    """Raises where it is the machine that cannot read the file: FFmpeg ends such a video early, like a damaged one."""
    try:
        with source.open() as file:
            while file.read(1 << 20):
                source.budget.spend()
    except OSError as error:
        raise source.error(f"it cannot be read ({error})") from error


def _index(track) -> Index:
    pts, dts, lengths, sizes, flags = array("q"), array("q"), array("q"), array("i"), array("b")
    first, corrupt = None, False
    for packet in track.packets:
        if first is None:
            first = next(iter(track.decode(packet)), None)
        pts.append(NOPTS if packet.pts is None else packet.pts)
        dts.append(NOPTS if packet.dts is None else packet.dts)
        lengths.append(packet.duration or 0)
        sizes.append(packet.size)
        flags.append(packet.is_keyframe + 2 * packet.is_discard)
        corrupt = packet.is_corrupt
        track.errors += corrupt
    if first is None:
        first = next(iter(track.decode(None)), None)
    stream, codec, name = track.stream, track.stream.codec_context, track.container.format.name
    if first is None or len(pts) == 0:
        raise track.source.error("no frame of it can be decoded")
    if not stream.time_base:
        raise track.source.error("its times have no unit")
    pts, dts, lengths = (np.frombuffer(column, dtype=np.int64) for column in (pts, dts, lengths))
    sizes, flags = np.frombuffer(sizes, dtype=np.int32), np.frombuffer(flags, dtype=np.int8)
    keys, shown = flags % 2 == 1, (pts != NOPTS) & (flags < 2)
    if corrupt and len(pts) > 1:
        shown[-1] = False  # the file ends within this frame
    shown = np.flatnonzero(shown)
    # FFmpeg makes presentation times up where a container has none, and cannot do so where frames are reordered.
    reordered = codec.has_b_frames or (pts != dts).any() or len(np.unique(pts[shown])) < len(pts)
    not_coded = codec.name == "mpeg4" and sizes.min() < _NOT_CODED
    if len(shown) == 0 or (name in _UNTIMED and (reordered or not_coded)):
        index = _count(track, dts[flags < 2], first)
        index.damage = _damage(track, index, len(pts), 0)
        return index
    wild = _wild(pts[shown], float(stream.time_base))
    kept = shown[~wild]
    shifts = _shifts_of_restarts(pts, kept[keys[kept]])
    moments = pts[kept] if shifts is None else pts[kept] + shifts[kept]
    # Of packets with one time, the last completes the frame.
    times, last = np.unique(moments[::-1], return_index=True)
    packets = kept[::-1][last].astype(np.int32)
    length, usual = int(lengths[packets[-1]]), int(np.median(np.diff(times[-100:]))) if len(times) > 1 else 1
    if length <= 0 or length * float(stream.time_base) > max(_FAR, 20 * float(np.ptp(times) * stream.time_base)):
        length = max(1, usual)
    index = Index(
        pts, sizes, keys, times, packets, int(times[-1]) + length, stream.time_base, _shown_size(first, stream, name),
        stream.index, restarts=shifts is not None, interlaced=first.interlaced_frame,
        palette=codec.pix_fmt == "pal8" and codec.name != "png",
    )  # fmt: skip
    index.damage = _damage(track, index, len(pts), int(wild.sum()))
    return index


def _shown_size(first, stream, format_name):
    aspect = None if format_name == "gif" else stream.sample_aspect_ratio  # every viewer ignores GIF's aspect byte
    return display_size(first, aspect)


def _count(track, dts, first) -> Index:
    """The index of a stream that says in which order frames are decoded, but not when they are shown."""
    came, keys = array("q"), array("b")
    for frame in all_frames(track):
        came.append(NOPTS if frame.dts is None else frame.dts)
        keys.append(bool(frame.key_frame))
    came, keys = np.frombuffer(came, dtype=np.int64), np.frombuffer(keys, dtype=bool)
    if len(came) == 0:
        raise track.source.error("no frame of it can be decoded")
    stream, name = track.stream, track.container.format.name
    step = 1 / (stream.average_rate or stream.guessed_rate or 25) / stream.time_base
    slots = np.unique(dts)
    if len(slots) >= len(came) and slots[0] != NOPTS:
        # A slot without a picture of its own (not coded) shows the picture before it again.
        times = slots if len(slots) == len(came) else _slots_of(came, slots)
        end = max(int(times[-1]) + max(1, round(step)), int(slots[-1]) + 1)
    else:
        times = np.array([int(number * step) for number in range(len(came))], dtype=np.int64)
        end = int(times[-1]) + max(1, round(step))
    return _counted(times, keys, end, stream.time_base, first, _shown_size(first, stream, name), stream.index)


def _counted(times, keys, end, time_base, first, size, stream) -> Index:
    numbers = np.arange(len(times), dtype=np.int32)
    size = size or display_size(first, None)
    return Index(times, numbers, keys, times, numbers, int(end), time_base, size, stream, counted=True)


def _damage(track, index, held, wild) -> str | None:
    """What the file holds less than its header promises, or what of it cannot be read."""
    name = track.container.format.name
    entries = getattr(track.stream, "index_entries", ())
    announced = len(entries) if "mov" in name else track.stream.frames
    seconds = (track.container.duration or 0) / av.time_base
    if name == "avi" and len(entries):  # it counts chunks, also those of 0 bytes, which show the last picture again
        held, seconds = max(held, entries[-1].timestamp + 1), 0.0
    if announced > held:
        return f"is cut off or damaged: {announced - held} of its {announced} frames are missing"
    if wild:
        return f"is damaged: the times of {wild} of its {held} frames are far from all others; they are left out"
    if seconds > index.duration + max(1.0, 0.02 * seconds):
        return (
            "is cut off, or its sound outlasts its video: there are frames for "
            f"{index.duration:.1f} of its {seconds:.1f} seconds"
        )
    return f"is damaged: {track.errors} places of it cannot be read" if track.errors else None


def _wild(pts: np.ndarray, unit: float) -> np.ndarray:
    """
    (S,) bool: which of the times `pts` (S,), in the order of decoding, are damaged.

    One is that jumps away from those around it, which agree, further than frames are reordered. At both ends, where
    there is nothing to come back to, it takes an hour and 20 times the length of everything else.
    """
    seconds = pts * unit
    wild = np.zeros(len(pts), dtype=bool)
    reach = 4  # times before and after, of which the middle is taken
    if len(pts) > 2 * reach:
        around = np.lib.stride_tricks.sliding_window_view(seconds, reach)
        before, after = np.median(around, axis=1)[: -reach - 1], np.median(around, axis=1)[reach + 1 :]
        here = seconds[reach:-reach]
        steps = np.abs(np.diff(seconds))
        usual = np.median(np.lib.stride_tricks.sliding_window_view(steps, 2 * reach), axis=1)
        far = 1 + 32 * usual
        jumps = (here > np.maximum(before, after) + far) | (here < np.minimum(before, after) - far)
        wild[reach:-reach] = jumps & (np.abs(after - before) < far)
    rest = np.sort(seconds[~wild])
    low, high = np.quantile(rest, (0.1, 0.9), method="nearest")
    far = max(_FAR, 20 * (high - low))
    ends = ~wild & ((seconds < low - far) | (seconds > high + far))
    if len(pts) > 2 and ends.sum() <= max(1, len(pts) // 50):
        wild |= ends
    return wild


def _shifts_of_restarts(pts: np.ndarray, starts: np.ndarray) -> np.ndarray | None:
    """
    (P,) int64: shifts that put recordings that were joined, each with a clock of its own, behind one another.

    Keyframes, the packets `starts`, are stored in the order in which they are shown; one that is not later than the
    one before it starts a new clock, and follows the last frame at the usual distance. `None` where there is none.
    """
    restarts = starts[1:][pts[starts[1:]] <= pts[starts[:-1]]].tolist()
    if not restarts:
        return None
    shifts = np.zeros(len(pts), dtype=np.int64)
    shift, top = 0, NOPTS
    for low, at, high in zip([0, *restarts], restarts, [*restarts[1:], len(pts)], strict=False):
        part = pts[low:at][pts[low:at] != NOPTS]
        gaps = np.diff(np.unique(part[-100:]))
        top = max(top, int(part.max()) + shift) if len(part) else top
        shift = top + (int(np.median(gaps)) if len(gaps) else 1) - int(pts[at])
        shifts[at:high] = shift
    return shifts


def _slots_of(came: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(T,) int64, strictly ascending: the slots of T frames of which each came out of the decoder at a slot of `came`
    (`NOPTS` at the end, where the decoder was emptied), a constant number of slots after its own."""
    at = np.where(came == NOPTS, 0, np.searchsorted(slots, came))
    steps = np.arange(len(came))
    at = np.maximum.accumulate(np.maximum(at - at[0], 0) - steps) + steps
    return slots[np.minimum(at, len(slots) - len(came) + steps)]


def _find_stream(source: OpenedSource) -> int:
    """The number of the stream to read: of several that can be decoded, the one that FFmpeg thinks best, unless it
    holds a few pictures only and another one moves."""
    with source.container() as container:
        streams = container.streams
        if not streams.video:
            raise source.error("it holds sound only, no video stream" if streams.audio else "it holds no video stream")
        kinds = type(streams.video[0].disposition)
        still = kinds.attached_pic | kinds.timed_thumbnails
        videos = [stream for stream in streams.video if not stream.disposition & still]
        if not videos:
            raise source.error("its only picture is a cover; it holds no video stream")
        videos = [stream for stream in videos if stream.codec_context is not None]
        if not videos:
            raise source.error("its video codec is unknown, or not decoded by the installed PyAV")
        best = streams.best("video")
        best = best if best in videos else videos[0]
        counts: Counter[int] = Counter()
        if len(videos) > 1:
            try:
                for packet in container.demux(videos):
                    source.budget.spend(packets=1)
                    counts[packet.stream_index] += packet.size > 0
            except av.FFmpegError:
                logger.debug("%s: its streams cannot be read to their end", source.name)
        most = max(videos, key=lambda stream: counts[stream.index])
        return (best if counts[best.index] * 10 >= counts[most.index] else most).index


__all__ = ["index_video"]
