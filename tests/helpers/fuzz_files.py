"""Damaged videos of every container, made from seeds: bytes at random, and structures that say what is not so."""

import io
import re
import struct
import tempfile
from pathlib import Path

import av
import numpy as np
import PIL.Image

from helpers.video_files import damaged_copies, make_video, picture

SEEDS = {  # by extension
    "mp4": {"container": "mp4", "container_options": {"movflags": "faststart"}, "audio": True},
    "m4s": {"container": "mp4", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "mov": {"container": "mov", "codec": "libx265"},
    "mkv": {"container": "matroska", "audio": True},
    "webm": {"container": "webm", "codec": "libvpx-vp9"},
    "ts": {"container": "mpegts"},
    "vob": {"container": "vob", "codec": "mpeg2video"},
    "mpg": {"container": "mpeg", "codec": "mpeg1video"},
    "avi": {"container": "avi", "codec": "mpeg4"},
    "flv": {"container": "flv"},
    "wmv": {"container": "asf", "codec": "wmv2"},
    "ogv": {"container": "ogg", "codec": "libvpx"},
    "gif": {"container": "gif", "codec": "gif", "pix_fmt": "rgb8"},
    "apng": {"container": "apng", "codec": "apng", "pix_fmt": "rgb24"},
    "ivf": {"container": "ivf", "codec": "libvpx"},
    "obu": {"container": "obu", "codec": "libsvtav1"},
    "h264": {"container": "h264"},
    "hevc": {"container": "hevc", "codec": "libx265"},
    "m2v": {"container": "mpeg2video", "codec": "mpeg2video"},
    "m4v": {"container": "m4v", "codec": "mpeg4"},
    "mjpeg": {"container": "mjpeg", "codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mxf": {"container": "mxf", "codec": "mpeg2video"},
    "y4m": {"container": "yuv4mpegpipe", "codec": "wrapped_avframe"},
    "3gp": {"container": "3gp", "codec": "mpeg4"},
}
CONCATENABLE = {"ts", "vob", "mpg", "flv", "ivf", "obu", "h264", "hevc", "m2v", "m4v", "mjpeg"}
HEADS = {"flv": 13, "ivf": 32}  # bytes that only the first of two files joined keeps
BOXES = rb"ftyp|moov|mvhd|trak|tkhd|edts|elst|mdia|mdhd|hdlr|minf|dinf|dref|stbl|stsd|avc1|avcC|hvcC|stts|ctts|stsc"
BOXES += rb"|stsz|stco|co64|stss|mdat|moof|mfhd|traf|tfhd|tfdt|trun|mvex|trex"
TABLES = rb"mvhd|tkhd|elst|mdhd|stsd|stts|ctts|stsc|stsz|stco|stss|tfhd|tfdt|trun|trex|avih|strh|idx1|indx"
EBML = rb"\x1f\x43\xb6\x75|\x16\x54\xae\x6b|\x1c\x53\xbb\x6b|\x15\x49\xa9\x66|\x18\x53\x80\x67|\xa3|\xa0|\xe7"
NUMBERS = [0, 1, 2, 7, 8, 255, 0x7FFF, 0xFFFF, 10**6, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


def make_seeds() -> dict[str, list[bytes]]:
    """Two small files of each extension, the second of another size; WebP and DV, which is large, among them."""
    seeds = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video")
        for extension, settings in SEEDS.items():
            files = []
            for width, height in ((64, 48), (96, 64)):
                make_video(path, 24, **{"width": width, "height": height, **settings})
                files.append(path.read_bytes())
            seeds[extension] = files
        make_video(path, 4, container="dv", codec="dvvideo", width=720, height=576, options={})
        seeds["dv"] = [path.read_bytes()] * 2
    for size in ((64, 48), (96, 64)):
        images = [PIL.Image.fromarray(picture(number, *size)) for number in range(8)]
        file = io.BytesIO()
        images[0].save(file, "WEBP", save_all=True, append_images=images[1:], duration=40)
        seeds.setdefault("webp", []).append(file.getvalue())
    return seeds


def fuzz_files(seeds: dict[str, list[bytes]], first: int, count: int):
    """`(number, extension, bytes)`, the same at every call."""
    extensions = sorted(seeds)
    for number in range(first, first + count):
        random = np.random.default_rng(number)
        extension = extensions[number % len(extensions)]
        data, other = seeds[extension]
        kind = number // len(extensions) % 5
        if kind == 1:
            data = _wrong_size(random, data)
        elif kind == 2:
            data = _wrong_table(random, data)
        elif kind == 3:
            data = _jump(random, data)
        elif kind == 4 and extension in CONCATENABLE:
            data = data + other[HEADS.get(extension, 0) :]
            if random.random() < 0.5:
                data = data + data[: int(random.integers(len(data)))]
        if kind == 0 or random.random() < 0.2:
            _, data = next(iter(damaged_copies([data], number, 1)))
        yield number, extension, data


def _wrong_size(random, data):
    """Boxes (MP4), chunks (AVI, WebP, PNG) or elements (Matroska) that are longer or shorter than they are."""
    data = bytearray(data)
    for _ in range(int(random.integers(1, 3))):
        if data[:4] == b"\x1a\x45\xdf\xa3":
            places = [match.end() for match in re.finditer(EBML, bytes(data))]
            if places:
                at = places[int(random.integers(len(places)))]
                size = [b"\x01\xff\xff\xff\xff\xff\xff\xff", b"\xff", b"\x80", b"\x10\xff\xff\xff", b"\x81"]
                new = size[int(random.integers(len(size)))]
                data[at : at + len(new)] = new
            continue
        places = [match.start() for match in re.finditer(BOXES, bytes(data))]
        before = True
        if data[:4] == b"RIFF":
            places, before = (
                [match.end() for match in re.finditer(rb"LIST|hdrl|strh|movi|00dc|ANMF|VP8X", data)],
                False,
            )
        if not places:
            places = list(range(4, min(len(data), 400)))
        at = places[int(random.integers(len(places)))] - 4 * before
        data[max(at, 0) : at + 4] = _number(random, little=not before)
    return bytes(data)


def _wrong_table(random, data):
    """Entries and counts of tables (sample sizes, times, offsets, edit lists) that are made wild."""
    data = bytearray(data)
    places = [match.end() for match in re.finditer(TABLES, bytes(data))] or [0]
    for _ in range(int(random.integers(1, 5))):
        at = places[int(random.integers(len(places)))] + 4 * int(random.integers(0, 12))
        data[at : at + 4] = _number(random, little=data[:4] == b"RIFF")
    return bytes(data)


def _number(random, little=False):
    value = NUMBERS[int(random.integers(len(NUMBERS)))]
    if random.random() < 0.3:
        value = int(random.integers(2**32))
    return struct.pack("<I" if little else ">I", value)


class _Bounded(io.BytesIO):
    """A file that ends after a megabyte: some muxers fill a gap in time with packets, up to a gigabyte."""

    def write(self, data):
        if self.tell() + len(data) > 1 << 20:
            raise ValueError("the file is too long")
        return super().write(data)


def _jump(random, data):
    """The same packets in a new file of the same kind, whose times jump, repeat, fall or have gaps."""
    out, kind, at = _Bounded(), int(random.integers(4)), int(random.integers(1, 20))
    try:
        with av.open(io.BytesIO(data)) as source:
            name = source.format.name.split(",")[0]
            name = {"mpegvideo": "mpeg2video", "matroska": "matroska", "mov": "mp4"}.get(name, name)
            if name == "asf":
                raise ValueError("its muxer may end the process, and keeps an entry for every second of a gap")
            jump = int(10 ** random.uniform(1, 12) / float(source.streams.video[0].time_base or 1) / 1000)
            with av.open(out, "w", format=name) as target:
                stream = target.add_stream_from_template(source.streams.video[0])
                for number, packet in enumerate(source.demux(video=0)):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.stream = stream
                    shift = {0: number >= at, 1: number == at, 2: -(number >= at), 3: number % 2}[kind] * jump
                    packet.pts = packet.pts + shift
                    if kind != 1:
                        packet.dts = packet.dts + shift
                    target.mux(packet)
    except (av.FFmpegError, ValueError, OverflowError):
        pass  # the muxer refused: what it wrote so far, or the seed with another damage
    written = out.getvalue()
    return written if 0 < len(written) < 10 * len(data) else _wrong_table(random, data)


__all__ = ["fuzz_files", "make_seeds"]
