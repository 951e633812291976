"""Storyboards: the shape of the board, what stands where, and arguments that do not fit."""

import numpy as np
import pytest
from fila_video.commands import storyboard
from fila_video.commands.storyboard import REPRESENTATIVE, SUPPLEMENT, clock, clocks, draw_storyboard
from PIL import ImageFont

COLORS = [(10 * n, 200 - 10 * n, (37 * n) % 256) for n in range(12)]


def plain_frames(height=90, width=160):
    return np.stack([np.full((height, width, 3), color, dtype=np.uint8) for color in COLORS])


def draw(scenes, frames=None, **options):
    frames = plain_frames() if frames is None else frames
    return np.asarray(draw_storyboard(frames, np.array(scenes), np.arange(len(frames)) * 2.5, **options))


def center(board, color):
    """Where the pixels of exactly this color lie: their mean x and y."""
    y, x = np.nonzero((board == color).all(axis=-1))
    assert len(x) > 1000, f"no area of {color}"
    return x.mean(), y.mean()


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0:00.0"),
        (62.46, "1:02.5"),
        (59.96, "1:00.0"),
        (3600, "1:00:00.0"),
        (3599.97, "1:00:00.0"),
        (7265.1, "2:01:05.1"),
    ],
)
def test_times_are_minutes_and_seconds_with_a_tenth(seconds, text) -> None:
    assert clock(seconds) == text


def test_a_row_holds_the_frames_of_a_scene_in_their_order() -> None:
    board = draw([[0, 4, 7], [2, 8, 11]], columns=1)
    places = [[center(board, COLORS[index]) for index in scene] for scene in ([0, 4, 7], [2, 8, 11])]
    for row in places:
        assert row[0][0] < row[1][0] < row[2][0]
    for above, below in zip(*places, strict=True):
        assert below[1] - above[1] > 100


def test_scenes_run_from_left_to_right_and_then_down() -> None:
    board = draw([[0], [3], [6], [9]], columns=2)
    first, second, third, fourth = (center(board, COLORS[index]) for index in (0, 3, 6, 9))
    assert first[0] < second[0] and abs(first[1] - second[1]) < 20
    assert third[1] > first[1] + 50 and abs(third[0] - first[0]) < 20
    assert fourth[0] > third[0]


def test_only_the_last_frame_of_a_scene_is_framed_as_the_representative() -> None:
    board = draw([[0, 4, 7]])
    _, x = np.nonzero((board == REPRESENTATIVE).all(axis=-1))
    frame_x, _ = center(board, COLORS[7])
    other_x, _ = center(board, COLORS[4])
    assert len(x) > 500
    assert other_x + 104 < x.min() < frame_x, "beyond the right edge of the frame before"


def test_a_repeated_frame_is_faded() -> None:
    board = draw([[7, 7, 7]])
    _, x = np.nonzero((board == COLORS[7]).all(axis=-1))
    assert len(x) > 1000
    assert x.max() - x.min() < 208, "the frame in full color stands there once"


def test_the_time_line_shows_where_in_the_video_the_frames_lie() -> None:
    board = draw([[0, 4, 8]], duration=40.0)
    line = board[: 36 + 120]
    marks = np.nonzero((line == REPRESENTATIVE).all(axis=-1).any(axis=0))[0]
    supplements = np.nonzero((line == SUPPLEMENT).all(axis=-1).any(axis=0))[0]
    left, right = 36, board.shape[1] - 36
    assert np.allclose(marks.mean(), (left + right) / 2, atol=2)  # frame 8 is shown at 20 of 40 seconds
    assert np.allclose([supplements.min(), supplements.max()], [left, left + (right - left) / 4], atol=3)


def test_thirty_two_scenes_make_a_board_of_a_pleasant_shape() -> None:
    frames = plain_frames()
    board = draw_storyboard(frames, np.arange(96).reshape(32, 3) % 12, np.arange(12.0), title="x" * 500, duration=12.0)
    assert 1.2 < board.width / board.height < 2.0


@pytest.mark.parametrize("shape", [(160, 90), (90, 160), (40, 40)])
def test_frames_keep_their_shape(shape) -> None:
    board = draw([[0]], plain_frames(*shape))
    y, x = np.nonzero((board == COLORS[0]).all(axis=-1))
    ratio = (y.max() - y.min() + 1) / (x.max() - x.min() + 1)
    assert ratio == pytest.approx(shape[0] / shape[1], rel=0.08)  # the border covers a little


@pytest.mark.parametrize("shape, place", [((640, 16), (416, 208)), ((16, 640), (62, 208))])
def test_frames_of_extreme_shapes_are_whole_in_a_place_of_bounded_shape(shape, place) -> None:
    board = draw([[0]], plain_frames(*shape))
    assert board.shape[0] < place[0] + 250 and board.shape[1] < place[1] + 150
    y, x = np.nonzero((board == COLORS[0]).all(axis=-1))
    shown = y.max() - y.min() + 1, x.max() - x.min() + 1
    assert shown[0] == pytest.approx(min(place[0], place[1] * shape[0] / shape[1]), abs=12)
    assert shown[1] == pytest.approx(min(place[1], place[0] * shape[1] / shape[0]), abs=12)


def test_twice_the_frame_width_gives_twice_the_board() -> None:
    small, large = draw([[0, 1, 2]], duration=9.0), draw([[0, 1, 2]], duration=9.0, frame_width=416)
    assert np.allclose(np.array(large.shape[:2]) / small.shape[:2], 2, atol=0.02)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"frames": np.zeros((2, 8, 8, 3), dtype=np.float32)}, "uint8"),
        ({"frames": np.zeros((2, 8, 8), dtype=np.uint8)}, "num_frames, height, width, 3"),
        ({"scenes": np.zeros((0, 3), dtype=int)}, "num_scenes, scene_size"),
        ({"scenes": np.array([[0, 2]])}, "0 to 2, but there are 2"),
        ({"scenes": np.array([[-1, 1]])}, "-1 to 1"),
        ({"timestamps": np.arange(3.0)}, "there are 2 frames"),
        ({"columns": 0}, "`columns` must be at least 1, got 0"),
        ({"frame_width": 10}, "at least 64 pixels, got 10"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message) -> None:
    given = {
        "frames": np.zeros((2, 8, 8, 3), dtype=np.uint8),
        "scenes": np.array([[0, 1]]),
        "timestamps": np.arange(2.0),
    }
    with pytest.raises(ValueError, match=message):
        draw_storyboard(**given | arguments)


def test_different_times_of_a_scene_have_different_labels() -> None:
    assert clocks([0.52, 0.56, 0.6]) == ["0:00.52", "0:00.56", "0:00.60"]
    assert clocks([0.5, 0.5, 61.0]) == ["0:00.5", "0:00.5", "1:01.0"]
    assert clocks([3599.998, 3599.999, 3600.0]) == ["59:59.998", "59:59.999", "1:00:00.000"]


def test_frames_beside_the_scenes_are_a_film_strip_of_small_pictures_under_them() -> None:
    board = draw([[0], [1]], columns=2, film=[4, 6, 7])
    alone = draw([[0], [1]], columns=2)
    assert board.shape[0] > alone.shape[0] and board.shape[1] == alone.shape[1]
    assert (board[: alone.shape[0] - 36] == alone[:-36]).all()  # but for the margin below
    strip = [center(board, COLORS[index]) for index in (4, 6, 7)]
    assert strip[0][0] < strip[1][0] < strip[2][0]
    assert len({round(y) for _, y in strip}) == 1 and strip[0][1] > center(board, COLORS[0])[1] + 100
    area = [(board == COLORS[index]).all(axis=-1).sum() for index in (0, 4)]
    assert 5 < area[0] / area[1] < 12
    many = draw([[0]], film=[number % 12 for number in range(40)])
    assert many.shape[0] > 2 * draw([[0]], film=[1]).shape[0]
    with pytest.raises(ValueError, match="`film` names the frames 1 to 12, but there are 12"):
        draw([[0]], film=[1, 12])


def test_letters_that_no_font_has_are_drawn_as_their_parts_or_as_question_marks(monkeypatch) -> None:
    monkeypatch.setattr(storyboard, "FONTS", ())
    for title, shown in {"Ame\u0301lie": "Amelie", "Über 東京.mp4": "Uber ??.mp4", "a\u2009b": "a b"}.items():
        assert (draw([[0]], title=title) == draw([[0]], title=shown)).all()


class OneLetterMore(ImageFont.FreeTypeFont):
    """Pillow's own font with one more letter, which it draws as an E."""

    def __init__(self, size) -> None:
        vars(self).update(vars(ImageFont.load_default(size)))

    def getlength(self, text, *args, **options):
        return super().getlength(text.replace("\u6771", "E"), *args, **options)

    def getmask2(self, text, *args, **options):
        return super().getmask2(text.replace("\u6771", "E"), *args, **options)


def test_a_font_of_the_system_draws_what_the_default_one_lacks(monkeypatch) -> None:
    known = ImageFont.truetype

    def truetype(font, *args, **options):
        if font == "none.ttf":
            raise OSError("cannot open resource")
        return OneLetterMore(*args) if font == "ours.ttf" else known(font, *args, **options)

    plain = draw([[0]], title="E, ?")
    monkeypatch.setattr(storyboard, "FONTS", ("none.ttf", "ours.ttf"))
    monkeypatch.setattr(storyboard.ImageFont, "truetype", truetype)
    assert (draw([[0]], title="\u6771, \u4eac") == plain).all()
