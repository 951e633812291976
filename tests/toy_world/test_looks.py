"""How films are shown: bars, light, codecs, frame rates and cameras; and sets that were broken off."""

import hashlib
import json
from dataclasses import asdict, replace
from random import Random

import av
import numpy as np
import pytest
from fila_video.toy_world.looks import CODECS, WIDEST, draw_look
from fila_video.toy_world.make_videos import make_videos
from fila_video.toy_world.sets import Settings
from fila_video.toy_world.world import Background
from fila_video.video_reading_fila_video import probe_video, read_frames
from PIL import Image

SMALL = {"side": 32, "fps": 4, "duration": (5, 6)}


def videos(folder, settings, count):
    path = make_videos(folder, settings, count)
    return [folder / json.loads(line)["video"] for line in path.read_text().splitlines()]


def test_boxed_videos_have_black_bars_of_any_shape_round_the_same_picture(tmp_path) -> None:
    plain = videos(tmp_path / "plain", Settings("short", **SMALL), 12)
    boxed = videos(tmp_path / "boxed", Settings("short", **SMALL, boxed=1.0), 12)
    shapes = set()
    for before, after in zip(plain, boxed, strict=True):
        square, frames = (read_frames(path, fps=4).frames.astype(int) for path in (before, after))
        height, width = frames.shape[1:3]
        assert min(height, width) == 32 < max(height, width) <= round(32 * WIDEST) + 1
        top, left = (height - 32) // 2, (width - 32) // 2
        inside = frames[:, top : top + 32, left : left + 32]
        assert np.abs(inside - square).mean() < 8
        bars = np.ones((height, width), bool)
        bars[top : top + 32, left : left + 32] = False
        assert frames[:, bars].mean() < 12
        shapes.add((height, width))
    assert len(shapes) > 4 and len({height > width for height, width in shapes}) == 2


def test_a_share_of_the_pictures_is_boxed(tmp_path) -> None:
    make_videos(tmp_path, Settings("picture", side=32, boxed=0.5), count=40)
    sizes = [Image.open(path).size for path in sorted((tmp_path / "images").iterdir())]
    assert 10 < sum(size != (32, 32) for size in sizes) < 30


def test_darker_and_brighter_videos_show_the_same(tmp_path) -> None:
    def brightness(name, light):
        paths = videos(tmp_path / name, Settings("short", **SMALL, light=light), 4)
        return np.array([read_frames(path, fps=2).frames.mean() for path in paths])

    plain, darker = brightness("plain", (1.0, 1.0)), brightness("darker", (0.6, 0.6))
    assert darker == pytest.approx(0.6 * plain, rel=0.06)
    varied = brightness("varied", (0.5, 1.3)) / plain
    assert varied.min() > 0.45 and varied.max() < 1.35 and np.ptp(varied) > 0.1


def test_looks_are_as_often_wide_as_high_and_even() -> None:
    looks = [draw_look(Random(seed), 64, 1.0, (1.0, 1.0)) for seed in range(400)]
    assert 150 < sum(look.width > look.height for look in looks) < 250
    assert all(look.height % 2 == look.width % 2 == 0 and look.height != look.width for look in looks)


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_is_what_it_is_called_and_read_as_the_others(tmp_path, codec) -> None:
    (path,) = videos(tmp_path / codec, Settings("short", **SMALL, codecs=(codec,)), 1)
    (plain,) = videos(tmp_path / "plain", Settings("short", **SMALL), 1)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name.replace("lib", "").startswith(codec)
    one, other = (read_frames(name, fps=4) for name in (path, plain))
    assert one.timestamps == pytest.approx(other.timestamps)
    assert np.abs(one.frames.astype(int) - other.frames).mean() < 10


def test_a_relative_folder_with_a_colon_is_no_protocol(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_videos("world:1", Settings("clip", side=32, fps=4), count=1)
    assert probe_video(tmp_path / "world:1" / "videos" / "train_clip_000000.mp4").fps == 4


def test_codecs_and_frame_rates_are_mixed(tmp_path) -> None:
    settings = Settings("short", **SMALL, codecs=("h264", "mpeg4"), rates=(3, 6, 12.5))
    seen = set()
    for path in videos(tmp_path, settings, 12):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            seen |= {stream.codec_context.name, float(stream.average_rate)}
        assert 4.9 <= probe_video(path).duration <= 6.1
    assert seen == {"h264", "mpeg4", 3, 6, 12.5}


def test_fast_cameras_move_much_and_places_change(tmp_path) -> None:
    def change(name, moving):
        paths = videos(tmp_path / name, Settings("empty", side=32, fps=4, duration=(20, 21), moving=moving), 3)
        frames = [read_frames(path, fps=4).frames.astype(int) for path in paths]
        return np.mean([np.abs(np.diff(each, axis=0)).mean() for each in frames])

    assert change("fast", 1.0) > 3 * change("slow", 0.0)
    slow, fast = Background(Random(1), 64), Background(Random(1), 64, 0.4, 0.35)
    assert fast.texture.std() > slow.texture.std()


# Of sets that were made before there was any choice of wordings and looks: published figures are about those of films.
# The records of pictures have their `things` since.
PLAIN = {
    "short": "e975f88d8b582f94",
    "row": "5a602616a4555e0c",
    "picture-questions": "070d5713e9525519",
}


@pytest.mark.parametrize("kind", PLAIN)
def test_sets_of_plain_settings_stay_as_they_were(tmp_path, kind) -> None:
    duration = None if kind.startswith("picture") else (5, 7)
    path = make_videos(tmp_path, Settings(kind, "test", side=32, fps=2, duration=duration), count=3)
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == PLAIN[kind]


def test_a_set_that_was_broken_off_goes_on_and_one_of_other_settings_is_made_anew(tmp_path) -> None:
    settings = Settings("short", **SMALL)
    whole = make_videos(tmp_path / "whole", settings, count=3)
    made = make_videos(tmp_path / "again", settings, count=3)
    names = [f"videos/train_short_00000{number}.mp4" for number in range(3)]
    expected = [(tmp_path / "whole" / name).read_bytes() for name in names]
    # As a kill in the second video leaves it: no records, and one video that is there.
    made.unlink()
    for name in names[1:]:
        (tmp_path / "again" / name).unlink()
    marker = tmp_path / "again" / ".train_short.jsonl"
    kept = tmp_path / "again" / names[0]
    marker.write_text(json.dumps(asdict(settings)))
    kept.write_bytes(b"kept")
    make_videos(tmp_path / "again", settings, count=3)
    assert made.read_bytes() == whole.read_bytes() and not marker.exists()
    assert kept.read_bytes() == b"kept"
    assert [(tmp_path / "again" / name).read_bytes() for name in names[1:]] == expected[1:]

    made.unlink()
    marker.write_text(json.dumps(asdict(replace(settings, seed=1))))
    make_videos(tmp_path / "again", settings, count=3)
    assert [(tmp_path / "again" / name).read_bytes() for name in names] == expected
    files = {path.name for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert files == {"train_short.jsonl", *(name.split("/")[1] for name in names)}


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"wordings": "some"}, "`wordings` must be one of plain, train, held-out, all, got 'some'"),
        ({"style": "shouted"}, "`style` must be one of"),
        ({"compositions": "new"}, "`compositions` must be one of"),
        ({"ask": ("what", "why")}, "`ask` must be one of .*motion, there, got 'why'"),
        ({"ask": ()}, "`ask` must name at least one"),
        ({"codecs": ("divx",)}, "`codecs` must be one of h264"),
        ({"rates": (8, 0.5)}, "`fps` and `rates` must be from 1 to 60, got 0.5"),
        ({"boxed": 2}, "`boxed` must be a share from 0 to 1, got 2"),
        ({"moving": -1}, "`moving` must be a share"),
        ({"light": (0, 1)}, r"`light` must be above 0 .* got \(0, 1\)"),
        ({"refusals": -1}, "`refusals` must be 0 or more"),
        ({"colors": 3, "compositions": "held-out"}, "up to 5 different things, and there are 3 in 3 colors"),
        ({"kind": "crowded", "compositions": "held-out"}, "'held-out' has too few of them"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, problem) -> None:
    with pytest.raises(ValueError, match=problem):
        Settings(**{"kind": "short", **settings})
