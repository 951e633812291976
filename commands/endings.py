"""Endings of files: by them a folder's videos are known, and outputs are kept from taking the place of media."""


def _endings(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


# Of the formats that the reader takes.
VIDEO_ENDINGS = _endings(
    "3g2 3gp 264 265 asf avi divx dv f4v flv gif h264 h265 hevc ivf m1v m2p m2t m2ts m2v m4v mj2 mjpeg mjpg mk3d mkv "
    "mov mp4 mpe mpeg mpg mpv mts mxf obu ogm ogv qt tod trp ts vob webm wmv y4m"
)
PICTURE_ENDINGS = _endings(
    "avif bmp dib heic heif j2k jfif jp2 jpe jpeg jpg jpx pbm pcx pfm pgm png pnm ppm qoi sgi svg tbn tga tif tiff "
    "webp"
)
SOUND_ENDINGS = _endings("aac ac3 dts eac3 flac m4a mp3 opus wav wma")
SUBTITLE_ENDINGS = _endings("ass idx lrc srt ssa sub sup ttml vtt")
# What lies beside films and is none: also texts, tables, and the tables of contents of DVDs.
BESIDE_VIDEOS = PICTURE_ENDINGS | SOUND_ENDINGS | SUBTITLE_ENDINGS
BESIDE_VIDEOS |= _endings(
    "bup cfg csv htm html ifo ini json jsonl log m3u m3u8 md md5 nfo parquet pdf py sfv sha256 toml torrent tsv txt "
    "url xml yaml yml"
)
KINDS = {
    "video": VIDEO_ENDINGS,
    "picture": PICTURE_ENDINGS,
    "sound": SOUND_ENDINGS | {".ogg"},  # which may also be a video
    "subtitles": SUBTITLE_ENDINGS,
}


def kind_of(path: str) -> str | None:
    """The kind of media that a file is by its ending, or `None`."""
    name = str(path).lower()
    return next((kind for kind, known in KINDS.items() if name.endswith(tuple(known))), None)


__all__ = ["BESIDE_VIDEOS", "VIDEO_ENDINGS", "kind_of"]
