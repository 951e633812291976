"""Sources and budgets: what is opened, what is refused, what it may cost and what is left."""

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile

import av
import PIL.Image
import PIL.ImageCms
import PIL.PngImagePlugin
import pytest
from fila_video.video_limits_fila_video import Budget, VideoLimits, VideoReadError
from fila_video.video_pictures_fila_video import open_picture
from fila_video.video_reading_fila_video import probe_video, read_frames
from fila_video.video_sources_fila_video import OpenedSource
from helpers.clocks import Clock
from helpers.hostile_servers import HostileServer, head
from helpers.tiny_processor import tiny_video_processor
from helpers.video_files import make_video, number_of, picture


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("sources") / "video.mp4", 50)


class Short(io.BytesIO):
    """A file object that gives 3 bytes at a time, as a raw one may."""

    def read(self, size=-1):
        return super().read(min(size, 3) if size > 0 else size)


class NoSeek:
    def __init__(self, data) -> None:
        self.file = io.BytesIO(data)

    def read(self, size=-1):
        return self.file.read(size)


def numbers(container):
    return [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_containers_on_any_kind_of_source_stand_alone(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = path.read_bytes()
    for source in (path, str(path), path.as_uri(), data, bytearray(data), io.BytesIO(data), Short(data), NoSeek(data)):
        with OpenedSource(source) as opened:
            assert opened.head == data[:1024]
            found = []

            def read(opened=opened, found=found) -> None:
                with opened.container() as container:
                    found.append(numbers(container))

            with opened.container() as here:
                first = next(here.decode(video=0))
                threads = [threading.Thread(target=read) for _ in range(3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert first.pts == 0 and len(numbers(here)) == 49
            assert found == [list(range(50))] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_file_object_is_left_open_where_it_stood_also_after_an_error(path) -> None:
    for data, fails in ((path.read_bytes(), False), (b"no video" * 100, True)):
        file = io.BytesIO(data)
        file.seek(5)
        with OpenedSource(file) as opened:
            if fails:
                with pytest.raises(VideoReadError, match="not a video"):
                    opened.container()
            else:
                opened.container().close()
        assert file.tell() == 5 and not file.closed


def box(name, *content):
    return struct.pack(">I4s", 8 + len(b"".join(content)), name) + b"".join(content)


def table_bomb(count=60_000_000, fixed=1, pad=300_000, handler=b"vide", stts=(1, 5)):
    """An mp4 of which a table that stands behind `pad` bytes announces so many samples."""
    media = box(b"hdlr", bytes(8), handler, bytes(13))
    times = box(b"stts", struct.pack(">IIII", 0, 1, count, stts[1]))
    sizes = box(b"stsz", struct.pack(">III", 0, fixed, count))
    return box(b"ftyp", b"isom", bytes(4)) + box(b"moov", box(b"free", bytes(pad)), box(b"trak", media, times, sizes))


def test_a_header_that_announces_more_than_the_file_holds_is_refused_at_once_however_it_is_read(tmp_path) -> None:
    data = table_bomb()
    (tmp_path / "bomb.mp4").write_bytes(data)
    for source in (tmp_path / "bomb.mp4", data, Short(data), NoSeek(data)):
        with pytest.raises(VideoReadError, match=f"announces 60000000 samples in a file of {len(data)} bytes"):
            OpenedSource(source)
    with pytest.raises(VideoReadError, match="announces 2000000 samples in a file"):
        OpenedSource(table_bomb(count=2_000_000, fixed=4))  # four bytes each
    with pytest.raises(VideoReadError, match="announces 2000 samples or more, over the limit of 1000"):
        OpenedSource(table_bomb(count=2000), limits=VideoLimits(packets=1000))


def test_a_table_of_samples_is_found_wherever_ffmpeg_finds_it() -> None:
    table = box(b"stsz", struct.pack(">III", 0, 1, 60_000_000))
    handler = box(b"hdlr", bytes(8), b"mdir", bytes(13))
    for hidden in (
        box(b"stbl", box(b"free", b"trun\0\0\0\0"), table),
        box(b"udta", table),
        box(b"meta", bytes(4), handler, box(b"ilst", table)),
        box(b"meta", box(b"free", bytes(200)), handler, table),
        struct.pack(">I4sQ", 1, b"stbl", 16 + len(table)) + table,
        struct.pack(">I4s", 0, b"minf") + struct.pack(">I", 0x7FFFFFFF) + table[4:],  # sizes up to and beyond the end
    ):
        track = box(b"trak", box(b"hdlr", bytes(8), b"vide", bytes(13)), hidden)
        for name in (b"moov", b"hoov", b"free"):  # FFmpeg looks into the last two where there is no first
            data = box(b"ftyp", b"isom", bytes(4)) + box(name, box(b"mvhd", bytes(100)), track)
            with pytest.raises(VideoReadError, match="announces 60000000 samples"):
                OpenedSource(data)


@pytest.mark.parametrize("name", [b"stsz", b"stz2", b"trun", b"elst", b"stsc", b"stco", b"co64"])
def test_a_table_among_the_settings_of_a_codec_is_refused(name) -> None:
    settings = box(b"mp4v", bytes(78), box(name, struct.pack(">III", 0, 1, 60_000_000)))
    track = box(b"trak", box(b"hdlr", bytes(8), b"vide", bytes(13)), box(b"stsd", struct.pack(">II", 0, 1), settings))
    with pytest.raises(VideoReadError, match=f"has a table '{name.decode()}' among the settings of a codec"):
        OpenedSource(box(b"ftyp", b"isom", bytes(4)) + box(b"moov", track))


def test_the_name_of_a_codec_is_no_table() -> None:
    name = b"\x0ax264 trunk".ljust(32, b"\0")
    settings = box(b"avc1", bytes(42), name, bytes(4), box(b"avcC", bytes(20)))
    track = box(b"trak", box(b"hdlr", bytes(8), b"vide", bytes(13)), box(b"stsd", struct.pack(">II", 0, 1), settings))
    with OpenedSource(box(b"ftyp", b"isom", bytes(4)) + box(b"moov", track)) as opened:
        assert opened.head
    with pytest.raises(VideoReadError, match="has a table 'trun' among the settings"):
        OpenedSource(box(b"ftyp", b"isom", bytes(4)) + box(b"moov", track.replace(b"vide", b"soun")))


@pytest.mark.parametrize("version", [0, 1])
def test_edits_are_counted_by_their_own_length_and_without_a_delay(version) -> None:
    def edited(*times):
        entry = ">QqHH" if version else ">IiHH"
        entries = b"".join(struct.pack(entry, 40, time, 1, 0) for time in times)
        edits = box(b"edts", box(b"elst", struct.pack(">BxxxI", version, len(times)), entries))
        data = table_bomb(count=1000)
        at, first = data.index(b"moov") - 4, data.index(b"trak") - 4
        return data[:at] + box(b"moov", data[at + 8 : first], box(b"trak", data[first + 8 :], edits))

    for times in ((0,), (-1, 0)):
        with OpenedSource(edited(*times), limits=VideoLimits(packets=1000)) as opened:
            assert opened.head
    for times in ((0, 0), (-1, 0, 0), (0, -1)):
        with pytest.raises(VideoReadError, match="with up to 2 edits a track announces 2000 samples or more"):
            OpenedSource(edited(*times), limits=VideoLimits(packets=1999))


def test_every_edit_of_a_track_counts_its_samples_anew() -> None:
    """FFmpeg makes the entries of all samples once for each edit."""

    def edited(edits, handler=b"vide", stts=(1, 512)):
        list_of_edits = box(b"elst", struct.pack(">II", 0, edits), struct.pack(">IiHH", 40, 0, 1, 0) * edits)
        data = table_bomb(count=1000, fixed=1, handler=handler, stts=stts)
        at = data.index(b"moov") - 4
        first, track = data.index(b"trak") - 4, data[data.index(b"trak") + 4 :]
        runs = box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1000, 1))
        places = box(b"stco", struct.pack(">II", 0, 1), bytes(4))
        track = box(b"trak", track, runs, places, box(b"edts", list_of_edits))
        return data[:at] + box(b"moov", data[at + 8 : first], track)

    limits = VideoLimits(packets=50_000)
    with OpenedSource(edited(3), limits=limits) as opened:
        assert opened.head
    with pytest.raises(VideoReadError, match="announces 100000 samples or more, over the limit of 50000"):
        OpenedSource(edited(100), limits=limits)
    with OpenedSource(edited(100, b"soun", (1, 1)), limits=limits) as opened:  # one block of 1,000 samples
        assert opened.head
    with pytest.raises(VideoReadError, match="announces 60000 samples or more, over the limit of 50000"):
        OpenedSource(edited(60_000, b"soun", (1, 1)), limits=limits)


def test_blocks_of_uncompressed_sound_are_counted() -> None:
    """Chunks that claim two billion samples each are blocks of 1,024 of them to FFmpeg."""

    def sound(*runs):
        table = box(b"stsc", struct.pack(">II", 0, len(runs)), *(struct.pack(">III", *run, 1) for run in runs))
        places = box(b"stco", struct.pack(">II", 0, 60), bytes(240))
        data = table_bomb(count=1000, fixed=1, handler=b"soun", stts=(1, 1))
        at, first = data.index(b"moov") - 4, data.index(b"trak") - 4
        return data[:at] + box(b"moov", data[at + 8 : first], box(b"trak", data[first + 8 :], table, places))

    with pytest.raises(VideoReadError, match="announces 125829180 samples or more, over the limit of 10000000"):
        OpenedSource(sound((1, 2**31)))
    with OpenedSource(sound((1, 1024), (60, 2**30))) as opened:  # the last alone is large
        assert opened.head
    with pytest.raises(VideoReadError, match="over the limit"):
        OpenedSource(sound((59, 1024), (1, 2**31)))  # in no order


def test_boxes_without_end_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("fila_video.video_limits_fila_video.MAX_BOXES", 1000)
    with pytest.raises(VideoReadError, match="its header has more than 1000 boxes"):
        OpenedSource(box(b"ftyp", b"isom", bytes(4)) + box(b"free") * 2000)


@pytest.mark.parametrize(
    "title", ["The elephant's trunk holds water", "macmovie night", "encv and sinf, stsz stz2 trun: words of nobody"]
)
def test_words_of_the_metadata_are_not_taken_for_boxes(tmp_path, title) -> None:
    make_video(tmp_path / "plain.mp4", 30)
    with av.open(str(tmp_path / "plain.mp4")) as plain, av.open(str(tmp_path / "video.mp4"), "w") as out:
        out.metadata["title"] = title
        stream = out.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert title.encode() in (tmp_path / "video.mp4").read_bytes()
    assert len(read_frames(tmp_path / "video.mp4", num_frames=5).frames) == 5


def test_a_large_box_that_nobody_reads_is_no_large_header(path, tmp_path) -> None:
    with open(tmp_path / "video.mp4", "wb") as file:
        file.write(path.read_bytes() + struct.pack(">I4s", (1 << 26) + 100, b"uuid"))
        file.truncate(file.tell() + (1 << 26) + 92)
    assert probe_video(tmp_path / "video.mp4").total_num_frames == 50
    data = box(b"ftyp", b"isom", bytes(4)) + struct.pack(">I4s", (1 << 26) + 100, b"moov")
    with open(tmp_path / "large.mp4", "wb") as file:
        file.write(data)
        file.truncate(len(data) + (1 << 26) + 92)
    with pytest.raises(VideoReadError, match="its header of 67108956 bytes is larger than 67108864"):
        OpenedSource(tmp_path / "large.mp4")


def test_an_animated_png_with_a_color_profile_and_words_before_its_animation_is_read() -> None:
    """The profile has a name, which PyAV frees twice where it is asked what a frame carries."""
    pictures = [PIL.Image.fromarray(picture(number)) for number in range(5)]
    words = PIL.PngImagePlugin.PngInfo()
    words.add_text("Comment", "w" * 200_000)
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    for extra in ({"icc_profile": profile}, {"icc_profile": os.urandom(3000)}, {"pnginfo": words}):
        file = io.BytesIO()
        pictures[0].save(file, "PNG", save_all=True, append_images=pictures[1:], duration=40, **extra)
        assert [number_of(frame) for frame in read_frames(file, num_frames=9).frames] == [0, 1, 2, 3, 4]


def test_long_names_are_shortened_in_messages_and_a_data_url_is_named() -> None:
    for source, part in (
        ("data:video/mp4;base64," + "AAAA" * 100_000, "decode it (base64.b64decode) and pass the bytes"),
        ("folder/" * 100_000 + "film.mp4", "film.mp4'"),
        ("http://[" + "a" * 10_000, "not a URL"),
    ):
        with pytest.raises(VideoReadError) as error:
            OpenedSource(source)
        assert part in str(error.value) and len(str(error.value)) < 400


def test_a_file_that_is_open_in_text_mode_is_named(path) -> None:
    with open(path, encoding="utf-8") as file, pytest.raises(VideoReadError, match=r"open it in binary mode \('rb'\)"):
        OpenedSource(file)


def test_a_file_object_that_does_not_wait_is_no_shorter_file(path) -> None:
    class Late(NoSeek):
        def read(self, size=-1):
            return super().read(1000) if self.file.tell() == 0 else None

    with pytest.raises(VideoReadError, match="does not wait for its data"):
        read_frames(Late(path.read_bytes()), num_frames=1)


def test_a_file_object_that_drips_makes_no_progress_and_a_slow_one_does(path, monkeypatch) -> None:
    class Slow(NoSeek):
        def read(self, size=-1):
            clock.now += 0.4
            return super().read(self.at_once)

    clock = Clock(monkeypatch)
    slow = Slow(path.read_bytes() + bytes(1 << 20))
    for slow.at_once in (1, 1000):
        with pytest.raises(
            VideoReadError, match=r"no progress for 1\.2 seconds, over the limit of 1; .*stall_seconds"
        ):
            OpenedSource(slow, limits=VideoLimits(stall_seconds=1))
        slow.file.seek(0)
    slow.at_once = 1 << 16
    with OpenedSource(slow, limits=VideoLimits(stall_seconds=1)) as opened:
        assert clock.now > 6 and len(opened.head) == 1024


def test_a_file_object_that_answers_too_late_is_not_read_on(path, monkeypatch) -> None:
    class Late(NoSeek):
        def read(self, size=-1):
            clock.now += 40
            return super().read(size)

    clock = Clock(monkeypatch)
    for data in (path.read_bytes() + bytes(1 << 20), b""):
        with pytest.raises(VideoReadError, match=r"no progress for 40\.0 seconds, over the limit of 30"):
            OpenedSource(Late(data))


@pytest.mark.parametrize("given", [5, [1, 2], {}, object()])
def test_a_file_object_that_gives_no_bytes_is_named(given) -> None:
    class Other:
        def read(self, size=-1):
            return given

    with pytest.raises(VideoReadError, match=f"the file object gives {type(given).__name__}, not bytes"):
        OpenedSource(Other())


def test_a_packed_file_that_is_cut_off_or_damaged_says_so(path) -> None:
    data = path.read_bytes()
    for packing, kind in ((gzip, "GzipFile"), (bz2, "BZ2File"), (lzma, "LZMAFile")):
        packed, unpack = packing.compress(data), packing.open
        middle = len(packed) // 2
        assert probe_video(unpack(io.BytesIO(packed))).total_num_frames == 50
        for wrong in (packed[:middle], packed[: middle - 200] + bytes(400) + packed[middle + 200 :]):
            for read in (probe_video, open_picture, tiny_video_processor().load_video):
                with pytest.raises(VideoReadError, match=f"given as a {kind}: the file object cannot be re"):
                    read(unpack(io.BytesIO(wrong)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("video.mp4", data)
    wrong = packed.getvalue().replace(data, data[:-4] + b"oops")
    message = r"video 'video\.mp4': the file object cannot be read \(BadZipFile: "
    with zipfile.ZipFile(io.BytesIO(wrong)).open("video.mp4") as file, pytest.raises(VideoReadError, match=message):
        probe_video(file)


@pytest.mark.parametrize("kind", [RuntimeError, EOFError, AssertionError])
def test_whatever_a_file_object_raises_is_an_error_that_names_it(kind) -> None:
    class Failing:
        def read(self, size=-1):
            raise kind("lost")

    with pytest.raises(VideoReadError, match=rf"given as a Failing: .* \({kind.__name__}: lost\)") as caught:
        OpenedSource(Failing())
    assert isinstance(caught.value.__cause__, kind)


def test_a_file_url_may_leave_out_the_host(path, tmp_path) -> None:
    odd = tmp_path / "a film.mp4"
    odd.write_bytes(path.read_bytes())
    for url in (f"file:{path}", f"FILE:{path}", odd.as_uri(), odd.as_uri().replace("file://", "file:")):
        assert probe_video(url).total_num_frames == 50
    with pytest.raises(VideoReadError, match="there is no such file"):
        OpenedSource(f"file:{tmp_path}/nowhere.mp4")
    with pytest.raises(VideoReadError, match="not on 'elsewhere'"):
        OpenedSource("file://elsewhere/video.mp4")


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_file_object_may_give_other_bytes(path, kind) -> None:
    class Other(NoSeek):
        def read(self, size=-1):
            return kind(super().read(size))

    assert probe_video(Other(path.read_bytes())).total_num_frames == 50


def test_a_stream_that_was_read_before_is_named(path) -> None:
    stream = NoSeek(path.read_bytes())
    OpenedSource(stream).close()
    with pytest.raises(VideoReadError, match=r"it is empty \(0 bytes\), or was read before: .* cannot seek"):
        OpenedSource(stream)


def test_such_a_header_on_a_web_server_is_refused_in_no_time_and_no_memory(tmp_path, monkeypatch) -> None:
    """However the server sends it: the tables stand behind what a single read of a socket gives."""
    data = table_bomb()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def serve(connection, request, server) -> None:
        server.send(connection, head(content_length=len(data)))
        for start in range(0, len(data), 5000):
            server.send(connection, data[start : start + 5000])

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with HostileServer(serve) as server:
        for read in (OpenedSource, probe_video, lambda url: read_frames(url, num_frames=1)):
            with pytest.raises(VideoReadError, match=f"announces 60000000 samples in a file of {len(data)} bytes"):
                read(f"{server.url}/bomb.mp4")
        assert len(server.requests) == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 50 * 1024
    assert list(tmp_path.iterdir()) == []


def test_sound_whose_every_value_is_a_sample_is_no_bomb() -> None:
    data = table_bomb(count=30_000, fixed=4, handler=b"soun", stts=(1, 1))
    with OpenedSource(data, limits=VideoLimits(packets=1000)) as opened:
        assert len(opened.head) == 1024
    with pytest.raises(VideoReadError, match="samples in a file"):
        OpenedSource(table_bomb(count=2_000_000, fixed=4, handler=b"soun", stts=(1, 1)))


def test_raw_motion_jpeg_is_opened_and_one_jpeg_is_a_picture(tmp_path) -> None:
    pictures = []
    for number in range(3):
        file = io.BytesIO()
        exif = PIL.Image.Exif()
        exif[0x010E] = "x" * 3000  # longer than what is looked at first
        PIL.Image.fromarray(picture(number)).save(file, "JPEG", exif=exif)
        pictures.append(file.getvalue())
    with OpenedSource(b"".join(pictures)) as opened, opened.container() as container:
        assert numbers(container) == [0, 1, 2]
    for padding in (b"\0", b"\xff\xff", b"\r\n"):
        with OpenedSource(padding.join(pictures)) as opened, opened.container() as container:
            assert numbers(container) == [0, 1, 2]
    for still in (pictures[0], pictures[0] + b"a comment behind it"):
        with pytest.raises(VideoReadError, match="still picture"):
            OpenedSource(still)


def test_a_photograph_with_a_smaller_copy_behind_it_is_a_picture() -> None:
    file = io.BytesIO()
    images = [PIL.Image.new("RGB", size) for size in ((64, 48), (16, 12))]
    images[0].save(file, "MPO", save_all=True, append_images=images[1:])
    assert file.getvalue().count(b"\xff\xd8\xff") == 2
    with pytest.raises(VideoReadError, match="still picture"):
        OpenedSource(file.getvalue())


def test_a_photograph_that_says_something_in_previews_is_a_picture() -> None:
    preview, file = io.BytesIO(), io.BytesIO()
    PIL.Image.new("RGB", (16, 12)).save(preview, "JPEG")
    exif = PIL.Image.Exif()
    exif[0x927C] = preview.getvalue() + bytes(8) + preview.getvalue()  # what makers of cameras note
    PIL.Image.new("RGB", (64, 48)).save(file, "JPEG", exif=exif)
    assert file.getvalue().count(b"\xff\xd8\xff") == 3
    with pytest.raises(VideoReadError, match="still picture"):
        OpenedSource(file.getvalue())


def test_pictures_that_are_no_video_say_what_they_are() -> None:
    heic = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)
    with pytest.raises(VideoReadError, match="it is a picture that Pillow cannot read here: convert it from HEIC"):
        read_frames(heic, num_frames=1)
    file = io.BytesIO()
    pages = [PIL.Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(VideoReadError, match="it is a TIFF, not a video"):
        read_frames(file.getvalue(), num_frames=1)


def test_postscript_is_not_run() -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n"
    with pytest.raises(VideoReadError, match="it is a program in PostScript, which is not run"):
        open_picture(program)
    fields = {(3, 60): b"\1\0", (3, 20): b"\x0a", (3, 30): b"\x0a", (3, 120): b"\5", (8, 10): program}
    news = b"".join(b"\x1c%c%c" % tag + struct.pack(">H", len(data)) + data for tag, data in fields.items())
    with pytest.raises(VideoReadError, match="it holds a file of another format, which is not looked into"):
        open_picture(news)  # IPTC, in which Pillow opens whatever it finds


def test_a_film_that_begins_with_a_large_box_of_its_data_is_read(tmp_path) -> None:
    """As cameras of old write it, without a head that names the format; most of this file is a hole."""
    data = make_video(tmp_path / "plain.mp4", 10).read_bytes()
    header, size = data[data.rindex(b"moov") - 4 :], 1 << 28
    with open(tmp_path / "large.mov", "wb") as file:
        file.write(struct.pack(">I4s", size, b"mdat") + data[8 : -len(header)])
        file.seek(size)
        file.write(header)
    assert [number_of(frame) for frame in read_frames(tmp_path / "large.mov", num_frames=10).frames] == list(range(10))


def test_a_png_that_ends_before_its_picture_is_cut_off() -> None:
    file, texts = io.BytesIO(), PIL.PngImagePlugin.PngInfo()
    texts.add_text("words", "x" * 100)
    PIL.Image.new("RGB", (64, 48)).save(file, "PNG", pnginfo=texts)
    data = file.getvalue()
    for kept in (4, 8, 12, 20, 33, 40, 100, data.index(b"IDAT") + 3):
        with pytest.raises(VideoReadError, match="cut off: a PNG that ends before its first picture"):
            read_frames(data[:kept], num_frames=1)
    with pytest.raises(VideoReadError, match="still picture"):
        read_frames(data, num_frames=1)


def test_limits_of_a_subclass_hold() -> None:
    class Limits(VideoLimits):
        def __init__(self, **limits) -> None:
            super().__init__(**limits)
            object.__setattr__(self, "ours", 1)

    with pytest.raises(VideoReadError, match=r"over the limit of 5; VideoLimits\(packets="):
        Budget(Limits(packets=5), "a.mp4").spend(packets=6)


def test_a_budget_names_the_source_the_limit_and_both_numbers() -> None:
    budget = Budget(VideoLimits(packets=10, total_pixels=1000, frame_pixels=600), "the video 'a.mp4'")
    budget.spend(packets=10, frame=(30, 20))
    with pytest.raises(VideoReadError, match=r"'a\.mp4': 11 of its packets were read, over the limit of 10; Vid"):
        budget.spend(packets=1)
    budget = Budget(VideoLimits(total_pixels=1000, frame_pixels=600), "the video 'a.mp4'")
    budget.spend(frame=(30, 20))
    with pytest.raises(VideoReadError, match=r"1200 pixels in all or more, over the limit of 1000; .*total_pi"):
        budget.spend(frame=(30, 20))
    with pytest.raises(VideoReadError, match="pictures of 601 x 1 have 601 pixels, over the limit of 600"):
        budget.spend(frame=(601, 1))
    with pytest.raises(VideoReadError, match="pictures of 30 x 21 have 630 pixels, over the limit of 600"):
        budget.check_frame(30, 21)


def test_a_budget_is_spent_by_several_threads_without_losing_count() -> None:
    budget = Budget(VideoLimits(packets=40_000), "it")
    threads = [threading.Thread(target=lambda: [budget.spend(packets=1) for _ in range(10_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(VideoReadError, match="40001 of its packets"):
        budget.spend(packets=1)


def test_deadlines_pass_without_progress_and_in_all(monkeypatch) -> None:
    clock = Clock(monkeypatch)
    budget = Budget(VideoLimits(stall_seconds=1), "it")
    for _ in range(3):
        clock.now += 0.75
        budget.check()
        budget.spend(packets=1)
    clock.now += 1.25
    with pytest.raises(VideoReadError, match=r"no progress for 1\.\d seconds, over the limit of 1;"):
        budget.check()
    budget = Budget(VideoLimits(seconds=1, web_seconds=None), "it")
    clock.now += 0.75
    Budget(budget, "a part").check()
    clock.now += 1.25
    with pytest.raises(VideoReadError, match=r"it took 2\.0 seconds, over the limit of 1; VideoLimits\(seconds"):
        budget.spend(packets=1)
    with pytest.raises(VideoReadError, match="a part: it took"):  # it has what is left of the whole
        Budget(budget, "a part").check()
    Budget(VideoLimits(seconds=0.0, web_seconds=None), "it", is_web=True).check()


def test_an_interrupt_while_a_file_object_is_read_is_not_lost(path, capfd) -> None:
    class Interrupted(io.BytesIO):
        countdown = 4

        def read(self, size=-1):
            self.countdown -= 1
            if self.countdown == 0:
                raise KeyboardInterrupt
            return super().read(min(size, 500))

    with (
        pytest.raises(KeyboardInterrupt),
        OpenedSource(Interrupted(path.read_bytes())) as opened,
        opened.container() as container,
    ):
        for packet in container.demux(video=0):
            packet.decode()
    assert "ignored" not in capfd.readouterr().err


def test_a_file_object_that_fails_is_an_error_of_its_own(path) -> None:
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 2000:
                raise OSError(5, "Input/output error")
            return super().read(min(size, 500))

    with pytest.raises(VideoReadError, match="Input/output error"), OpenedSource(Failing(path.read_bytes())) as opened:
        opened.container()


def test_a_stream_without_end_meets_the_limit_of_bytes(tmp_path, monkeypatch) -> None:
    class Endless:
        def read(self, size=-1):
            return bytes(size)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(VideoReadError, match="download_bytes"):
        OpenedSource(Endless(), limits=VideoLimits(download_bytes=10**6))
    assert list(tmp_path.iterdir()) == []


def test_opening_many_times_leaves_no_descriptor(path) -> None:
    for source in (path, path.read_bytes(), NoSeek(path.read_bytes())):
        before = len(os.listdir("/proc/self/fd"))
        with OpenedSource(source) as opened:
            for _ in range(20):
                opened.container().close()
        assert len(os.listdir("/proc/self/fd")) <= before


def test_large_frames_are_refused_by_the_decoder_too(tmp_path) -> None:
    make_video(tmp_path / "video.mkv", 3, width=320, height=240)
    with (
        pytest.raises((VideoReadError, av.FFmpegError)),
        OpenedSource(tmp_path / "video.mkv", limits=VideoLimits(frame_pixels=1000)) as opened,
        opened.container() as container,
    ):
        for frame in container.decode(video=0):
            opened.budget.spend(frame=(frame.width, frame.height))


def test_a_file_object_that_reads_a_file_by_another_way_is_not_taken_for_the_file(path, tmp_path) -> None:
    """What is unpacked on the fly, not yet written, or gone from its folder."""
    data = path.read_bytes()
    with gzip.open(tmp_path / "v.gz", "wb") as file:
        file.write(data)
    with gzip.open(tmp_path / "v.gz") as file, OpenedSource(io.BufferedReader(file)) as opened:
        assert opened.head == data[:1024]
    with open(tmp_path / "unwritten.mp4", "w+b") as file:
        file.write(data)
        with OpenedSource(file) as opened:
            assert opened.head == data[:1024]
    (tmp_path / "gone.mp4").write_bytes(data)
    with open(tmp_path / "gone.mp4", "rb") as file:
        (tmp_path / "gone.mp4").unlink()
        with OpenedSource(file) as opened, opened.container() as container:
            assert numbers(container) == list(range(50))


def test_an_open_file_is_read_in_its_place_and_not_copied(path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open(path, "rb") as file, OpenedSource(file):
        assert list(tmp_path.iterdir()) == []
    with OpenedSource(io.BytesIO(path.read_bytes())):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_old_pyav_is_named_and_not_run_into() -> None:
    program = "import av; av.__version__ = '15.1.0'; import fila_video.video_sources_fila_video"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs PyAV 17.1 or newer, but 15.1.0 is installed" in done.stderr
