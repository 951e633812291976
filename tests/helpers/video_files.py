"""Makes small real videos with PyAV's own encoders. Every frame carries its number, for a test to tell which it is."""

from fractions import Fraction

import av
import numpy as np

# Milliseconds of the frames of a video with a variable rate.
UNEVEN_TIMES = [0, 40, 80, 200, 700, 740, 1500, 1540, 1600, 2500, 2540, 2580, 4000, 4100, 4200, 5000, 5040, 5100]


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """(height, width, 3) uint8: the number in 8 x 2 blocks of black or white, on a gray that moves with it.

    Blocks of an eighth of the width survive any codec at any size used here: `number_of` reads them back.
    """
    image = np.full((height, width, 3), 96 + number * 7 % 64, dtype=np.uint8)
    image[:, :, 1] += np.linspace(0, 32, width).astype(np.uint8)
    for bit in range(16):
        row, column = divmod(bit, 8)
        block = image[row * height // 4 : (row + 1) * height // 4, column * width // 8 : (column + 1) * width // 8]
        block[:] = 255 if number >> bit & 1 else 0
    return image


def number_of(image: np.ndarray) -> int:
    """The number that `picture` wrote, read from a decoded frame of any size."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(16):
        row, column = divmod(bit, 8)
        y, x = int((row + 0.5) * height / 4), int((column + 0.5) * width / 8)
        number |= int(image[y, x].mean() > 127) << bit
    return number


def make_video(
    file,
    num_frames: int = 50,
    *,
    codec: str = "libx264",
    container: str | None = None,
    fps: int = 25,
    width: int = 64,
    height: int = 48,
    pix_fmt: str = "yuv420p",
    times=None,
    options: dict | None = None,
    rotation: int | None = None,
    mirror: bool = False,
    pixel_aspect: Fraction | None = None,
    audio: bool = False,
    draw=picture,
    container_options: dict | None = None,
):
    """Encodes frames 0 to `num_frames - 1` into `file` (a path or a file object) and returns `file`.

    `times`: a presentation time in milliseconds for each frame, for a variable rate.
    """
    with av.open(
        file if hasattr(file, "write") else str(file), "w", format=container, options=container_options
    ) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = options if options is not None else DEFAULT_OPTIONS.get(codec, {})
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None or mirror:
            stream.set_display_rotation(rotation or 0, hflip=mirror)
        sound = out.add_stream("aac", rate=8000) if audio else None
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(draw(number, width, height), format="rgb24")
            frame.pts = number if times is None else int(times[number])
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            out.mux(stream.encode(frame))
            if sound is not None:
                out.mux(sound.encode(_silence(number, fps)))
        out.mux(stream.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))
    return file


DEFAULT_OPTIONS = {
    "libx264": {"preset": "ultrafast", "bf": "2", "g": "12", "crf": "18"},
    "libx265": {"preset": "ultrafast", "x265-params": "keyint=12:bframes=3:log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "12"},
    "libsvtav1": {"preset": "12", "g": "12", "svtav1-params": "lp=1"},
    "mpeg4": {"bf": "2", "g": "12", "qmin": "2", "qmax": "4"},
}


def _silence(number, fps, rate=8000):
    samples = rate // fps
    frame = av.AudioFrame.from_ndarray(np.zeros((1, samples), dtype=np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, number * samples, Fraction(1, rate)
    return frame


def straight_decode(file, **convert) -> list[tuple[float, np.ndarray]]:
    """Every frame in turn, decoded from the start by PyAV alone: `(seconds from the first frame, RGB)`."""
    with av.open(file if hasattr(file, "read") else str(file)) as container:
        stream = container.streams.video[0]
        frames = [(frame.pts, frame) for frame in container.decode(stream)]
        start = frames[0][0]
        return [(float((pts - start) * stream.time_base), frame) for pts, frame in frames]


HUGE_OR_SMALL = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1")


def damaged_copies(seeds: list[bytes], first: int, count: int):
    """`(number, bytes)`: files cut, flipped, overwritten, spliced, with numbers made huge; the same at every call."""
    for number in range(first, first + count):
        random = np.random.default_rng(number)
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(random.integers(1, 4)):
            kind = random.integers(6)
            # Half of the damage is done to the first kilobyte and to the last two, where the headers are.
            reach = len(data) if random.random() < 0.5 else min(1000, len(data))
            at = int(random.integers(reach))
            if random.random() < 0.3:
                at = max(0, len(data) - 1 - int(random.integers(2000)))
            length = int(random.integers(1, 64))
            if kind == 0:
                del data[max(at, 16) :]
            elif kind == 1:
                for place in random.integers(0, len(data), size=length):
                    data[place] ^= 1 << int(random.integers(8))
            elif kind == 2:
                data[at : at + length] = random.bytes(length)
            elif kind == 3:
                data[at : at + 4] = HUGE_OR_SMALL[random.integers(4)]
            elif kind == 4:
                del data[at : at + length]
            else:
                data[at:at] = data[max(0, at - 10 * length) : at]
        yield number, bytes(data)


__all__ = [
    "DEFAULT_OPTIONS",
    "damaged_copies",
    "make_video",
    "number_of",
    "picture",
    "straight_decode",
]
