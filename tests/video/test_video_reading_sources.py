"""Where videos come from: what is read, what is refused, and what is freed."""

import functools
import http.server
import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
from fila_video.video_reading_fila_video import VideoReadError, VideoSegment, iter_frames, probe_video, read_frames
from helpers.video_files import make_video, number_of, picture


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("sources") / "video.mp4", 50)


def numbers(source, **arguments):
    return [number_of(frame) for frame in read_frames(source, **(arguments or {"num_frames": 3})).frames]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data` at /video.mp4; /redirect goes to `server.target`."""

    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        self.server.secrets.append(self.headers.get("Authorization"))
        data = self.server.data
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", self.server.target)
            self.end_headers()
        elif self.path.startswith("/video"):
            self.answer(200, data)
        else:
            self.send_error(404)

    def answer(self, status, data) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


@pytest.fixture
def server(path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.data, server.requests, server.secrets, server.target = path.read_bytes(), [], [], ""
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.daemon_threads = True
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.02))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_paths_urls_bytes_and_file_objects_give_the_same_frames(path, server) -> None:
    sources_of_one_video = [path, str(path), path.as_uri(), path.read_bytes(), bytearray(path.read_bytes())]
    sources_of_one_video += [io.BytesIO(path.read_bytes()), VideoSegment(path), [VideoSegment(str(path))]]
    sources_of_one_video += [f"{server.url}/video.mp4"]
    for source in sources_of_one_video:
        assert numbers(source) == [0, 24, 49], source


def test_a_path_relative_to_the_working_directory_and_with_odd_characters_is_read(path, tmp_path, monkeypatch) -> None:
    name = "concat:%03d ü #?.mp4"
    (tmp_path / name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert numbers(name) == numbers(Path(name)) == numbers((tmp_path / name).as_uri()) == [0, 24, 49]


def test_the_content_decides_and_not_the_name(path, tmp_path) -> None:
    (tmp_path / "video.m3u8").write_bytes(path.read_bytes())
    assert numbers(tmp_path / "video.m3u8") == [0, 24, 49]


def test_a_file_object_is_left_open_where_it_stood(path) -> None:
    with open(path, "rb") as file:
        file.seek(5)
        assert numbers(file) == [0, 24, 49]
        assert file.tell() == 5 and not file.closed


def test_a_file_object_that_cannot_seek_is_read(path) -> None:
    class Stream:
        def __init__(self, data) -> None:
            self.file = io.BytesIO(data)

        def read(self, size=-1):
            return self.file.read(size)

    assert numbers(Stream(path.read_bytes())) == [0, 24, 49]


def test_a_file_object_that_gives_more_than_asked_for_is_cut_short(path) -> None:
    class Greedy(io.BytesIO):
        def read(self, size=-1):
            return super().read(size + 100 if size >= 0 else size)

    assert numbers(Greedy(path.read_bytes())) == [0, 24, 49]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.mp4", "there is no such file"),
        (lambda folder: "none.mp4", "'none.mp4': there is no such file"),
        (lambda folder: folder, "it is a directory"),
        (lambda folder: b"", r"given as 0 bytes: it is empty"),
        (lambda folder: b"hello, I am no video at all" * 100, "not a video"),
        (lambda folder: os.urandom(4096), "not a video"),
        (lambda folder: "a\0b.mp4", "cannot be read .*null"),
        (lambda folder: 42, "given as a int: expected a path"),
        (lambda folder: None, "expected a path"),
        (lambda folder: [], "at least one VideoSegment"),
        (lambda folder: ["a.mp4"], "at least one VideoSegment"),
        (lambda folder: "ftp://127.0.0.1/a.mp4", "protocol 'ftp' is not supported"),
        (lambda folder: "rtmp://127.0.0.1/a", "protocol 'rtmp' is not supported"),
        (lambda folder: "concat://a.mp4|b.mp4", "protocol 'concat' is not supported"),
        (lambda folder: "file://elsewhere/a.mp4", "on this machine"),
        (lambda folder: "http://127.0.0.1:9/none.mp4", "did not give it"),
        (lambda folder: "http://[::1/none.mp4", "not a URL"),
        (lambda folder: "http://127.0.0.1:a/none.mp4", "not a URL"),
        (lambda folder: io.StringIO("text"), "bytes"),
    ],
)
def test_what_is_no_video_is_refused_by_name_and_reason(tmp_path, make, message) -> None:
    with pytest.raises(VideoReadError, match=message):
        read_frames(make(tmp_path), num_frames=1)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    program = f"from fila_video import read_frames\nread_frames({str(tmp_path / 'pipe.mp4')!r}, num_frames=1)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert "VideoReadError: Cannot read the video" in done.stderr and "it is a device, pipe or socket" in done.stderr


def test_sound_without_pictures_is_refused(tmp_path) -> None:
    with av.open(str(tmp_path / "sound.m4a"), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(VideoReadError, match=r"sound\.m4a.*sound only"):
        probe_video(tmp_path / "sound.m4a")


def test_a_cover_picture_is_not_a_video(tmp_path) -> None:
    with av.open(str(tmp_path / "song.mkv"), "w") as out:
        cover = io.BytesIO()
        PIL.Image.new("RGB", (32, 32)).save(cover, "JPEG")
        out.add_attachment("cover.jpg", "image/jpeg", cover.getvalue())
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(VideoReadError, match="only picture is a cover"):
        probe_video(tmp_path / "song.mkv")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_a_still_picture_is_not_a_video(kind) -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(picture(1)).save(file, kind)
    with pytest.raises(VideoReadError, match="it is a TIFF, not" if kind == "TIFF" else "it is a still picture, not"):
        probe_video(file.getvalue())


def test_encryption_is_named(path) -> None:
    data = path.read_bytes().replace(b"avc1\0\0", b"encv\0\0").replace(b"btrt", b"sinf")
    assert b"encv" in data and b"sinf" in data
    with pytest.raises(VideoReadError, match="encrypted"):
        probe_video(data)


@pytest.mark.parametrize(
    "make",
    [
        lambda name, url: f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{name}\n#EXT-X-ENDLIST\n",
        lambda name, url: f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n",
        lambda name, url: f"\ufeff\n#EXTM3U\n#EXTINF:2,\n{url}\n",
        lambda name, url: f"ffconcat version 1.0\nfile '{name}'\n",
        lambda name, url: f"ffconcat version 1.0\nfile '{url}'\n",
        lambda name, url: f"# a comment\nffconcat version 1.0\nfile '{name}'\n",
        lambda name, url: f'<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{url}</BaseURL></Period></MPD>',
        lambda name, url: f"ffconcat version 1.0\nfile {name.name}\n",
        lambda name, url: f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{name.name}\n#EXT-X-ENDLIST\n",
        lambda name, url: f"[playlist]\nFile1={url}\n",
        lambda name, url: f"1\n00:00:00,000 --> 00:00:02,000\n<img src='{url}'>\n",
        lambda name, url: (
            f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video {url.split(':')[-1]} RTP/AVP 96\r\n"
        ),
        lambda name, url: f"<smil><body><video src='{url}'/></body></smil>",
        lambda name, url: f"[Script Info]\n[Events]\nDialogue: 0,0:00:00.00,0:00:02.00,,,{url}\n",
    ],
)
def test_playlists_and_indirections_neither_read_files_nor_call_out(path, server, tmp_path, monkeypatch, make) -> None:
    monkeypatch.chdir(path.parent)
    text = make(path, f"{server.url}/video.mp4").encode()
    for name in ("list.m3u8", "list.txt", "list.mp4", "list.mpd"):
        (tmp_path / name).write_bytes(text)
        for source in (tmp_path / name, text):
            with pytest.raises(VideoReadError):
                read_frames(source, num_frames=1)
    assert server.requests == []


def test_a_playlist_from_a_server_is_not_followed(server, path) -> None:
    server.data = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{path}\n#EXT-X-ENDLIST\n".encode()
    with pytest.raises(VideoReadError, match="playlist"):
        read_frames(f"{server.url}/video.mp4", num_frames=1)


def test_a_movie_whose_media_lie_in_another_file_does_not_open_it(path, server) -> None:
    data = path.read_bytes()
    at = data.index(b"dref")
    for target in (str(path), f"{server.url}/video.mp4"):
        reference = struct.pack(">I4sI", 12 + len(target) + 1, b"url ", 0) + target.encode() + b"\0"
        dref = struct.pack(">I4sII", 16 + len(reference), b"dref", 0, 1) + reference
        size = struct.unpack(">I", data[at - 4 : at])[0]
        changed = data[: at - 4] + dref + data[at - 4 + size :]
        growth = len(dref) - size
        for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            where = changed.index(name) - 4
            length = struct.unpack(">I", changed[where : where + 4])[0]
            changed = changed[:where] + struct.pack(">I", length + growth) + changed[where + 4 :]
        moving = changed[changed.index(b"mdat") + 4 :]
        changed = changed.replace(moving[:2000], bytes(2000))  # its own media are gone
        try:
            frames = read_frames(changed, num_frames=1).frames
        except VideoReadError:
            continue
        assert number_of(frames[0]) != 0 or frames.std() < 30
    assert server.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a.mp4", "data:video/mp4;base64,AAAA"])
def test_a_redirect_to_another_protocol_is_refused(server, target) -> None:
    server.target = target
    with pytest.raises(VideoReadError, match="did not give it"):
        read_frames(f"{server.url}/redirect", num_frames=1)


def test_a_redirect_to_a_file_of_the_server_does_not_read_it(server, path) -> None:
    server.target = path.as_uri()
    with pytest.raises(VideoReadError, match="did not give it"):
        read_frames(f"{server.url}/redirect", num_frames=1)


def test_a_redirect_within_http_is_followed(server) -> None:
    server.target = f"{server.url}/video.mp4"
    assert numbers(f"{server.url}/redirect") == [0, 24, 49]


def test_secrets_of_a_url_do_not_appear_in_messages(server) -> None:
    with pytest.raises(VideoReadError) as caught:
        read_frames(f"{server.url.replace('//', '//me:secret@')}/none.mp4?token=secret", num_frames=1)
    assert "secret" not in str(caught.value) and "HTTP 404" in str(caught.value)
    assert server.secrets == ["Basic bWU6c2VjcmV0"]


def test_private_hosts_are_refused_where_the_caller_says_so(server) -> None:
    for read in (probe_video, functools.partial(read_frames, num_frames=1)):
        with pytest.raises(VideoReadError, match="not public"):
            read(f"{server.url}/video.mp4", allow_private_hosts=False)


def test_closing_the_generator_early_frees_decoder_and_files(path) -> None:
    before, threads = open_files(), threading.active_count()
    for _ in range(20):
        frames = iter_frames(path, num_frames=50)
        next(frames)
        frames.close()
    assert open_files() <= before
    assert threading.active_count() == threads


def test_reading_and_failing_leave_no_file_open(path, server, tmp_path) -> None:
    (tmp_path / "broken.mp4").write_bytes(path.read_bytes()[:700])
    read_frames(f"{server.url}/video.mp4", num_frames=2)
    before = open_files()
    for _ in range(10):
        read_frames(path, num_frames=4)
        read_frames([VideoSegment(path, 0, 1), VideoSegment(path, 1, 2)], num_frames=4)
        with pytest.raises(VideoReadError):
            read_frames(tmp_path / "broken.mp4", num_frames=4)
        with pytest.raises(VideoReadError):
            read_frames([VideoSegment(path), VideoSegment(tmp_path / "none.mp4")], num_frames=4)
    assert open_files() <= before


def test_several_readers_share_one_file_object(path) -> None:
    data = io.BytesIO(path.read_bytes())
    segments = [VideoSegment(data, 0, 1), VideoSegment(data, 1, 2)]
    assert numbers(segments, num_frames=50) == list(range(50))
