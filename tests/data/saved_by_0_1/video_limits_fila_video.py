"""What a video may ask for, and the error where it asks for more or cannot be read."""

MAX_PIXELS = 1 << 26  # 8192 x 8192; larger pictures are refused before a frame is allocated
MAX_PACKETS = 10_000_000  # two days at 60 frames a second
STALL_SECONDS = 60.0  # longest wait for one packet, or for one block of a download
MAX_DOWNLOAD = 1 << 34  # bytes of a source that is copied to a temporary file
DECODE_SECONDS = 600.0  # longest decoding without one wanted frame


class VideoReadError(ValueError):
    """A video that cannot be read; the message names the source and says what is wrong with it."""


__all__ = ["DECODE_SECONDS", "MAX_DOWNLOAD", "MAX_PACKETS", "MAX_PIXELS", "STALL_SECONDS", "VideoReadError"]
