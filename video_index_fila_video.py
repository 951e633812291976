"""
The index of a video stream: which frames it holds, when each is shown, and from where they are decoded.

Where a container stores when each frame is shown, frames are found by their times. Where it does not (AVI with
B-frames, raw streams, WebP), they are decoded from the start and counted.
"""

import re
from array import array
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from .video_sources_fila_video import NOT_ON_DEVICE

if TYPE_CHECKING:
    from .video_decoding_fila_video import Track

NOPTS = np.iinfo(np.int64).min
SHORT_RUN = 48  # packets: gaps up to this length are read over rather than sought over
_FAR = 3600.0  # seconds between the first or last times and all others, from which on they are taken for damage
_UNTIMED = {"avi", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu"}  # formats that store no presentation times
# Formats that store the times of these codecs in the order of decoding.
_DECODED = {"asf": ("h264", "hevc", "mpeg1video", "mpeg2video"), "mxf": ("h264", "hevc")}
_TO_THE_END = ("matroska,webm", "asf")  # their header names a duration that counts from 0, wherever times start
_REORDERED = 33  # packets after which the clock has gone on: the longest run of B-frames behind one, and the next
_PROBED = 64  # packets that are decoded where a file may say what is not so
_INTER = (2, 3)  # FFmpeg's numbers of pictures that lean on others, P and B
# The start of a B-picture of MPEG-1 and 2, of which FFmpeg says that they may hold such, whether or not they do.
_B_PICTURE = re.compile(rb"\0\0\x01\0.[\x18-\x1f\x58-\x5f\x98-\x9f\xd8-\xdf]", re.DOTALL)
_NOT_CODED = 20  # bytes: an MPEG-4 packet below this may hold no picture ("show the last one again")


@dataclass
class Index:
    """
    What a stream holds: P packets in the order of decoding, T frames in the order of presentation. Its times are
    integers, in units of `time_base` seconds.
    """

    pts: np.ndarray  # (P,) int64: presentation times of the packets, `NOPTS` where there is none
    sizes: np.ndarray  # (P,): bytes of the packets
    keys: np.ndarray  # (P,) bool: the keyframes
    starts: np.ndarray  # packets from which decoding can start, ascending
    times: np.ndarray  # (T,) int64, ascending: when each frame is shown, also in joined recordings
    frames: np.ndarray  # (P,): the frame that each packet belongs to; -1 where it shows none
    end: int  # the time at which the last frame disappears
    time_base: Fraction
    size: tuple[int, int]  # (height, width) of the frames as a player shows them
    counted: bool = False  # times are not stored: packet n stands for the n-th frame that the decoder gives
    interlaced: bool = False  # the two fields of a frame may be packets of their own, so that none is skipped
    damage: str | None = None  # what is missing or cannot be read

    def __post_init__(self) -> None:
        shown = np.flatnonzero(self.frames >= 0)
        self.packets = np.zeros(len(self.times), dtype=np.int32)  # of each frame, the one that completes it
        self.packets[self.frames[shown]] = shown

    @property
    def keyframes(self) -> np.ndarray:
        """(T,) bool: the frames of which a packet, such as that of the first field, is a keyframe."""
        keyframes = np.zeros(len(self.times), dtype=bool)
        keyframes[self.frames[self.keys & (self.frames >= 0)]] = True
        return keyframes

    @property
    def seconds(self) -> np.ndarray:
        """(T,) float64: seconds from the first frame to each frame."""
        return (self.times - self.times[0]) * float(self.time_base)

    @property
    def rounding(self) -> float:
        """How many seconds the times of frames may be from the true ones; 0 where they lie on one grid."""
        steps = np.diff(self.times)
        return float(self.time_base) if len(steps) and (steps % int(np.median(steps))).any() else 0.0

    @property
    def duration(self) -> float:
        return float((self.end - int(self.times[0])) * self.time_base)


@dataclass
class Run:
    """An unbroken stretch of decoding from the packet `start` to the packet `stop` (inclusive) of a track, for the
    wanted `frames`: ascending indices into `Index.times`, which are `offset` lower than within the video."""

    track: "Track"
    offset: int
    start: int
    stop: int
    frames: list[int]


def pts_of(packet: av.Packet | av.VideoFrame) -> int:
    return NOPTS if packet.pts is None else packet.pts


def index_video(track: "Track") -> Index:
    """
    Reads every packet of a track, which then knows what it holds. Only its first frame is decoded, some where the file
    says of them what may not be so, and all where they have to be counted.

    Raises:
        VideoReadError: If no frame can be decoded, or a limit is passed.
    """
    index = track.index = _index_webp(track) if track.source.is_webp else _index(track)
    if index.damage:  # FFmpeg also ends a video early that the machine cannot read
        try:
            with track.source.open() as file:
                while file.read(1 << 20):
                    track.source.budget.spend()
        except OSError as error:
            raise track.source.error(f"it cannot be read ({error})") from error
    return index


def _index(track: "Track") -> Index:
    track.open()
    stream, codec, name = track.stream, track.decoder(), track.container.format.name
    is_untimed = name in _UNTIMED or codec.name in _DECODED.get(name, ())
    # A column each, as compact as can be: of a long video they are what its reading costs in memory.
    pts, lengths, sizes, flags, undated = array("q"), array("q"), array("i"), array("b"), array("q")
    clock = array("q")  # of the keyframes: when they are decoded
    first, opening, corrupt, reordered, is_vp8 = None, 0, False, False, codec.name == "vp8"
    has_b = codec.name not in ("mpeg1video", "mpeg2video")
    configuration = stream.codec_context.extradata or b""
    track.configurations = {0: configuration}
    for packet in track.packets:
        opening += first is None
        if first is None:
            first = next(iter(track.decode(codec, packet)), None)
        if packet.has_sidedata("new_extradata"):
            before, configuration = configuration, bytes(packet.get_sidedata("new_extradata"))
            if configuration != before:
                track.configurations[len(pts)] = configuration
        has_b = has_b or (len(pts) < _PROBED and _B_PICTURE.search(packet) is not None)
        pts.append(pts_of(packet))
        lengths.append(packet.duration or 0)
        sizes.append(packet.size)
        # A picture of VP8 that others lean on may itself never be shown.
        hidden = is_vp8 and packet.size > 0 and not memoryview(packet)[0] & 16
        flags.append(packet.is_keyframe + 2 * (packet.is_discard or hidden))
        dts = NOPTS if packet.dts is None else packet.dts
        if packet.is_keyframe:
            clock.append(dts)
        if not packet.is_discard and (is_untimed or packet.pts is None):
            undated.append(dts)
        reordered |= packet.pts != packet.dts
        corrupt = packet.is_corrupt
        track.errors += corrupt
    if first is None:
        first = next(iter(track.decode(codec, None)), None)
    track.at = len(pts)
    if first is None and track.oversized:
        budget = track.source.budget
        raise budget.refuse("its pictures have no size or too many pixels", budget.frame_field)
    if first is None or len(pts) == 0:
        raise track.source.error("no frame of it can be decoded" if track.device is None else NOT_ON_DEVICE)
    time_base = stream.time_base  # which a stream loses where the file is opened anew
    if not time_base:
        raise track.source.error("its times have no unit")
    size = track.display_size(first)
    pts, lengths, sizes, flags, clock, undated = (
        np.frombuffer(column, dtype=column.typecode) for column in (pts, lengths, sizes, flags, clock, undated)
    )
    keys, kept = flags % 2 == 1, (pts != NOPTS) & (flags < 2)
    marked = np.flatnonzero(keys)
    if corrupt and len(pts) > 1:
        kept[-1] = False  # the file ends within this frame
    # Several frames may share one packet of a program or transport stream, of which the first alone has a time. Where
    # they are fields, it is that of the frame.
    is_sparse = not is_untimed and len(undated) * 50 > len(pts)
    if is_sparse and first.interlaced_frame and name != "mpeg":
        is_sparse = not _are_fields(track, pts, keys)
    is_timed = kept.any() and not is_sparse
    if is_timed and is_untimed:
        # FFmpeg makes presentation times up where a container has none, and cannot do so where frames are reordered.
        not_coded = codec.name == "mpeg4" and sizes.min() < _NOT_CODED
        twice = len(np.unique(pts[kept])) < len(pts)
        is_timed = not (codec.has_b_frames or reordered or twice or not_coded)
    groups = np.append(marked, len(pts))
    following = min(groups[np.searchsorted(groups, opening)], opening + _REORDERED)
    begin, wild = pts_of(first), 0
    if is_timed and not is_untimed:
        # What else holds B-frames and stores no times for them gives times that ascend in the order of decoding.
        climbs = has_b and codec.has_b_frames > 0 and (np.diff(pts[kept][:_PROBED]) > 0).all()
        # Behind a start between keyframes, what first comes out may be a stand-in with a time of another picture.
        is_late = keys[0] and (pts[opening:following][kept[opening:following]] < begin).any()
        if climbs or is_late or (keys[:2].sum() == 2 and not codec.codec.intra_only):
            frames = track.first_frames(0, _PROBED if climbs or is_late else opening + 2)
            came = np.array([pts_of(frame) for frame in frames], dtype=np.int64)
            if climbs and (np.diff(came) <= 0).any():
                is_timed, undated = False, pts
            # What the decoder gives behind its first frame is not shown before it: where several would be, its time is
            # damaged, else that of the one.
            near = came[(came >= 0) & (came < following)]
            near = near[kept[near]]
            before = near[pts[near] < begin]
            if len(before):
                odd = near[:1] if len(before) > 1 else before
                kept[odd], wild = False, len(odd)
                begin = pts[near[kept[near]]].min()
            # Where a picture that leans on others is called a keyframe, none is believed.
            if len(came) > 1 and came[1] >= 0 and keys[came[1]] and not first.interlaced_frame:
                keys = np.arange(len(pts)) == 0 if int(frames[1].pict_type) in _INTER else keys
    if not is_timed:
        return _count(track, undated, len(pts), size, is_sparse)
    stray = damaged_times(pts[kept] * float(time_base), bool(reordered or codec.has_b_frames))
    kept[kept] = ~stray
    wild += int(stray.sum())
    if _outlasts(track, pts[kept]):
        kept[np.argmax(np.where(kept, pts, NOPTS))] = False
        wild += 1
    shown, dts = pts[marked][kept[marked]], clock[kept[marked]]
    # Keyframes are stored in the order in which they are shown, unless a clock restarts: also where it is only said of
    # such a one that it is decoded later, even than it is shown.
    goes_on = (dts[1:] > dts[:-1]) & (dts[:-1] != NOPTS) & (dts[1:] <= shown[1:])
    if ((shown[1:] < shown[:-1]) & goes_on).any():
        keys = np.arange(len(pts)) == 0
    # Between where a recording begins and its second keyframe, what is shown before its first frame leans on frames
    # that the file does not hold.
    if (pts[kept] == begin).any():
        kept[:following] &= pts[:following] >= begin
    held = np.flatnonzero(kept)
    restarts, mended = restarts_of(pts[held], np.flatnonzero(keys[held]))
    restarts, mended = held[restarts].tolist(), {int(held[at]): time for at, time in mended.items()}
    for at, following in zip(restarts, groups[np.searchsorted(groups, restarts) + 1], strict=True):
        leading = slice(at, min(following, at + _REORDERED))
        kept[leading] &= pts[leading] >= pts[at]
    moments = on_one_clock(pts, restarts, mended)[kept]
    times = np.sort(moments)
    if name == "mpeg" and (times[1:] == times[:-1]).any():
        # FFmpeg made times up for packets without, which are those of other frames.
        return _count(track, np.array([], dtype=np.int64), len(pts), size, is_sparse=True)
    times = times[np.append(True, times[1:] > times[:-1])]  # `np.unique` would take four times the memory
    frames = np.full(len(pts), -1, dtype=np.int32)
    frames[kept] = np.searchsorted(times, moments)
    # The fields of a frame may have one time.
    again = 0 if first.interlaced_frame else len(moments) - len(times)
    if again:
        last = np.zeros(len(times), dtype=np.int64)
        last[frames[kept]] = np.flatnonzero(kept)
        frames[np.setdiff1d(np.arange(len(frames)), last)] = -1
    length = int(lengths[np.flatnonzero(frames == len(times) - 1)[-1]])
    last, promised = length * float(time_base), (track.container.duration or 0) / av.time_base
    is_far = last > max(_FAR, 20 * float(np.ptp(times) * time_base))
    # A picture may be shown for hours, where the header agrees.
    if length <= 0 or (is_far and abs(float(np.ptp(times) * time_base) + last - promised) > 0.02 * promised):
        length = max(1, int(np.median(np.diff(times[-100:])))) if len(times) > 1 else 1
    track.seekable = codec.pix_fmt != "pal8" or codec.name == "png"  # a palette may come with the first packet alone
    # Behind a seek, FFmpeg takes the distance of fields from B-frames that lean on what was not decoded.
    track.seekable &= codec.name != "mpeg4" or not first.interlaced_frame
    # A seek to a wrong time leads anywhere.
    starts = np.setdiff1d(np.flatnonzero(keys), list(mended)) if track.seekable else np.zeros(1, dtype=np.int64)
    index = Index(
        pts, sizes, keys, starts, times, frames, int(times[-1]) + length, time_base, size,
        interlaced=first.interlaced_frame,
    )  # fmt: skip
    index.damage = _damage(track, index, len(pts), wild, again, len(mended))
    return index


def _are_fields(track: "Track", pts: np.ndarray, keys: np.ndarray) -> bool:
    """Whether packets without a time are second fields: they follow others that have one, and where the first is
    decoded, no frame comes out of them."""
    missing = pts == NOPTS
    if (missing[1:] & missing[:-1]).sum() * 50 > len(pts):
        return False
    at = int(np.argmax(missing))
    start = int(np.flatnonzero(keys[: at + 1]).max(initial=0))
    frames = track.first_frames(start, at - start + _PROBED)
    return not any(missing[frame.pts] for frame in frames if frame.pts is not None)


def _outlasts(track: "Track", pts: np.ndarray) -> bool:
    """Whether the last of the times `pts` is damaged: it lies far behind the end that the header names, and that all
    others agree with."""
    seconds, promised = pts * float(track.stream.time_base), (track.container.duration or 0) / av.time_base
    if track.container.format.name not in _TO_THE_END or len(seconds) < 3 or promised <= 0:
        return False
    *_, before, last = np.partition(seconds, -2)
    far = 1 + 32 * np.median(np.abs(np.diff(seconds[-9:])))
    return abs(before - promised) < 1 and last - promised > far


def _index_webp(track: "Track") -> Index:
    frames = [(frame.pts, frame.duration, track.display_size(frame)) for frame in track.all_frames()]
    times, (_, last, size) = np.array([pts for pts, *_ in frames]), frames[-1]
    return _counted(times, np.ones(len(times), dtype=bool), times[-1] + last, Fraction(1, 1000), size)


def _count(track: "Track", dts: np.ndarray, held: int, size: tuple[int, int], is_sparse: bool) -> Index:
    """The index of a stream of `held` packets that says in which order frames are decoded, but not when they are
    shown; or, where its times `is_sparse`, of some of them only."""
    came, keys, shown = array("q"), array("b"), array("q")
    for frame in track.all_frames():
        came.append(NOPTS if frame.dts is None else frame.dts)
        shown.append(pts_of(frame))
        keys.append(bool(frame.key_frame))
    if not came:
        raise track.source.error("no frame of it can be decoded")
    stream, keys = track.stream, np.array(keys, dtype=bool)
    step = 1 / (stream.average_rate or stream.guessed_rate or 25) / stream.time_base
    times = _between(np.array(shown), float(stream.time_base)) if is_sparse else None
    if times is not None:
        end = 2 * times[-1] - times[-2]
    else:
        slots = np.unique(dts)
        if len(slots) < len(came) or slots[0] == NOPTS:
            slots = np.array([int(number * step) for number in range(len(came))], dtype=np.int64)
        # A slot without a picture of its own (not coded) shows the picture before it again.
        times = slots_of(np.array(came), slots)
        end = max(int(times[-1]) + max(1, round(step)), int(slots[-1]) + 1)
    index = _counted(times, keys, end, stream.time_base, size)
    index.damage = _damage(track, index, held)
    return index


def _between(shown: np.ndarray, time_base: float) -> np.ndarray | None:
    """(T,) int64, strictly ascending: the times `shown` of T frames, in their order, and where there is none (`NOPTS`)
    evenly between those around it; `None` where too few have one, or they are no order."""
    known = np.flatnonzero(shown != NOPTS)
    if len(known):
        known = known[~damaged_times(shown[known] * time_base, reordered=False)]
    times, steps = shown[known], np.diff(shown[known]) / np.diff(known)
    if len(steps) == 0 or steps.min() < 1:
        return None
    every, pace = np.arange(len(shown)), float(np.median(steps))
    filled = np.interp(every, known, times)
    filled += pace * (np.minimum(every - known[0], 0) + np.maximum(every - known[-1], 0))
    return np.round(filled).astype(np.int64)


def _counted(times: np.ndarray, keys: np.ndarray, end: int, time_base: Fraction, size: tuple[int, int]) -> Index:
    every = np.arange(len(times), dtype=np.int32)
    return Index(times, every, keys, every[:1], times, every, int(end), time_base, size, counted=True)


def _damage(track: "Track", index: Index, held: int, wild: int = 0, again: int = 0, mended: int = 0) -> str | None:
    """What the file holds less than its header promises, or what of it cannot be read."""
    name = track.container.format.name
    entries = getattr(track.stream, "index_entries", ())
    announced = len(entries) if "mov" in name else track.stream.frames
    seconds = (track.container.duration or 0) / av.time_base
    ends = float(index.end * index.time_base) if name in _TO_THE_END else index.duration
    if name not in _TO_THE_END and track.container.start_time is not None:  # sound may begin before the video
        ends += max(0.0, float(index.times[0] * index.time_base) - track.container.start_time / av.time_base)
    if name == "avi" and len(entries):  # it counts chunks, also those of 0 bytes, which show the last picture again
        held, seconds = max(held, entries[-1].timestamp + 1), 0.0
        # Its header counts the empty chunks behind the last frame too, and its index may not.
        if announced - held < np.diff([entry.timestamp for entry in entries]).max(initial=0):
            announced = held
    if announced > held and name == "gif":  # which may leave out what says how long a frame is shown
        return f"is read in part: FFmpeg gives {held} of its {announced} frames"
    if announced > held:
        return f"is cut off or damaged: {announced - held} of its {announced} frames are missing"
    if wild:
        return f"is damaged: the times of {wild} of its {held} frames are far from all others; they are left out"
    if mended:
        return f"is damaged: the times of {mended} of its {held} frames go back; they are put between their neighbors"
    if again:
        return f"shows {again} of its {held} frames at the time of another one; they are left out"
    if seconds > ends + max(1.0, 0.02 * seconds):
        return (
            "is cut off, or its sound outlasts its video: there are frames for "
            f"{ends:.1f} of its {seconds:.1f} seconds"
        )
    return f"is damaged: {track.errors} places of it cannot be read" if track.errors else None


def damaged_times(seconds: np.ndarray, reordered: bool) -> np.ndarray:
    """
    (S,) bool: which of the times `seconds` (S,), in the order of decoding, are damaged.

    One is that jumps away from those around it, which agree. Where frames are `reordered`, it is none from which the
    clock goes on, as behind a pause; of a jump in the last packets that cannot be told. At both ends, where there is
    nothing to come back to, it takes an hour and 20 times the length of everything else.
    """
    wild = np.zeros(len(seconds), dtype=bool)
    reach = 4  # times before and after, of which the middle is taken
    if len(seconds) > 2 * reach:
        # Only where a time is far from one of those before it is there anything to look at.
        here, doubtful = seconds[reach:-reach], wild[reach:-reach]
        for back in range(1, reach + 1):
            doubtful = doubtful | (np.abs(here - seconds[reach - back : -reach - back]) > 1)
        doubtful = np.flatnonzero(doubtful) + reach
        around = seconds[doubtful[:, None] + np.arange(-reach, reach + 1)]
        here = around[:, reach]
        before, after = np.median(around[:, :reach], axis=1), np.median(around[:, -reach:], axis=1)
        far = 1 + 32 * np.median(np.abs(np.diff(around, axis=1)), axis=1)
        up, down = here > np.maximum(before, after) + far, here < np.minimum(before, after) - far
        if reordered:
            places = doubtful[:, None] + np.arange(-1, 2)  # three, of which one may be damaged itself
            first, last = (
                np.median(seconds[np.clip(places + further, 0, len(seconds) - 1)], axis=1)
                for further in (-_REORDERED, _REORDERED)
            )
            up &= (here > last) & (doubtful + _REORDERED < len(seconds))
            down &= here < first
        wild[doubtful] = (up | down) & (np.abs(after - before) < far)
    low, high = np.quantile(seconds[~wild], (0.1, 0.9), method="nearest", overwrite_input=True)
    far = max(_FAR, 20 * (high - low))
    ends = ~wild & ((seconds < low - far) | (seconds > high + far))
    if len(seconds) > 2 and ends.sum() <= max(1, len(seconds) // 50):
        wild |= ends
    return wild


def restarts_of(pts: np.ndarray, starts: np.ndarray) -> tuple[list[int], dict[int, int]]:
    """Where recordings that were joined start clocks of their own: keyframes, the packets `starts`, are stored in the
    order in which they are shown, and such a one is not later than the one before it. Nor are all packets behind it
    later than those before it, or its own time alone is inexact: nearer to where its recording ends than begins.

    Where those behind it are far from it and go on from those before it, its own time is wrong. Also gives these
    packets, each with the time in the middle of the widest gap there."""
    restarts, mended, begin = [], {}, 0
    for at in starts[1:][pts[starts[1:]] <= pts[starts[:-1]]].tolist():
        own, ahead, after = int(pts[at]), np.unique(pts[max(begin, at - 8) : at]), np.unique(pts[at + 1 : at + 9])
        before, near = int(ahead[-1]), np.append(ahead[-1], after[:5])  # further on, B-frames may not be there yet
        gaps = np.diff(near)
        far = 2.5 * np.append(gaps[1:], np.diff(ahead)).max(initial=0)
        if len(after) and 0 < gaps[0] <= far < near[1] - own:
            mended[at] = int(near[gaps.argmax()] + gaps.max() // 2)
        elif len(ahead) > 2 and own > ahead[-2]:
            continue  # not it is too early, but the last of those before it too late
        elif ((after > own) & (after <= before)).any() or own - int(pts[begin]) <= before - own:
            restarts.append(at)
            begin = at
    return restarts, mended


def on_one_clock(pts: np.ndarray, restarts: list[int], mended: dict[int, int]) -> np.ndarray:
    """(P,) int64: the times of packets, some `mended`, with the recordings that begin at the packets `restarts` put
    behind one another: each follows the last frame at the usual distance."""
    moments, top = pts.copy(), NOPTS
    moments[list(mended)] = list(mended.values())
    for low, at, high in zip([0, *restarts], restarts, [*restarts[1:], len(pts)], strict=False):
        part = moments[low:at][pts[low:at] != NOPTS]
        gaps = np.diff(np.unique(part[-100:]))
        top = max(top, int(part.max())) if len(part) else top
        moments[at:high] += top + (int(np.median(gaps)) if len(gaps) else 1) - int(pts[at])
    return moments


def slots_of(came: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(T,) int64, strictly ascending: the slots of T frames of which each came out of the decoder at a slot of `came`
    (`NOPTS` at the end, where the decoder was emptied), a constant number of slots after its own."""
    at = np.where(came == NOPTS, 0, np.searchsorted(slots, came))
    return slots[ascending(np.maximum(at - at[0], 0), len(slots))]


def ascending(indices: np.ndarray, total: int) -> np.ndarray:
    """Indices below `total`, none twice: where one does not follow the one before it, the next free one is taken."""
    steps = np.arange(len(indices))
    indices = np.maximum.accumulate(indices - steps) + steps
    return np.minimum(indices, total - len(indices) + steps)


def plan_runs(track: "Track", frames: np.ndarray, offset: int) -> list[Run]:
    """
    Groups ascending frame numbers into runs of decoding.

    A frame is decoded from the last keyframe that comes before it in the file and is not shown after it (a frame shown
    before its keyframe leans on the keyframe before that one). Frames of one such stretch share a run. Where the next
    stretch begins right behind and both are short, decoding on is cheaper than a seek, and the runs are joined; but
    not where the clock restarts between them, as the decoder has to be emptied there.
    """
    index = track.index
    if index.counted:
        return [Run(track, offset, 0, len(index.pts) - 1, frames.tolist())] if len(frames) else []
    runs: list[Run] = []
    clock = None
    for frame in frames.tolist():
        packet = int(index.packets[frame])
        at = int(np.searchsorted(index.starts, packet, side="right")) - 1
        while at >= 0 and index.frames[index.starts[at]] > frame:
            at -= 1
        start = int(index.starts[at]) if at >= 0 else 0
        last, clock_before, clock = runs[-1] if runs else None, clock, index.times[frame] - index.pts[packet]
        near = last and start <= last.stop + SHORT_RUN // 4 and packet < last.start + SHORT_RUN
        if last and (start <= last.start or (near and clock == clock_before)):
            last.stop = max(last.stop, packet)
            last.frames.append(frame)
        else:
            runs.append(Run(track, offset, start, packet, [frame]))
    return runs


__all__ = [
    "NOPTS",
    "SHORT_RUN",
    "Index",
    "Run",
    "ascending",
    "index_video",
    "plan_runs",
    "pts_of",
]
