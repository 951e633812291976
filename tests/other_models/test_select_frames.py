"""Choosing frames for other models: which, how exactly, from what forms of video, and what is refused."""

import io

import numpy as np
import pytest
import torch
from fila_video import VideoReadError, VideoSegment, read_frames, select_frames
from helpers.video_files import make_video, number_of, picture
from PIL import Image
from transformers.video_utils import VideoMetadata


def still(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A gray film with its number in it, in which frames 77 to 80 are mostly red."""
    image = picture(number, width, height)
    image[height // 2 :] = (200, 30, 30) if 77 <= number <= 80 else (90, 90, 90)
    return image


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> str:
    """Forty seconds with one keyframe, 5 frames a second."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    return str(make_video(path, 200, fps=5, draw=still, options={"g": "400", "bf": "0"}))


def numbers(frames: np.ndarray) -> list[int]:
    # The lower half of a frame shows no number here.
    return [number_of(np.concatenate([frame[: len(frame) // 2], 0 * frame[: len(frame) // 2]])) for frame in frames]


def test_a_short_event_is_among_the_farthest_frames_and_not_among_the_uniform_ones(film) -> None:
    chosen = numbers(select_frames(film, 4)[0])
    assert any(77 <= number <= 80 for number in chosen)
    assert numbers(select_frames(film, 4, selection="uniform")[0]) == [0, 50, 100, 150]


def test_the_chosen_frames_are_those_of_the_file_at_its_own_size(film) -> None:
    frames, metadata = select_frames(film, 6)
    assert numbers(frames) == metadata.frames_indices
    read = read_frames(film, times=metadata.timestamps)
    assert np.array_equal(read.frames, frames)
    assert (metadata.width, metadata.height, metadata.duration) == (64, 48, 40.0)
    assert type(metadata) is VideoMetadata and metadata.total_num_frames == 200


def test_numbers_of_numpy_choose_the_frames_that_pythons_own_do(film) -> None:
    given = {"num_frames": np.int64(4), "candidate_fps": np.float32(2), "seed": np.int32(1), "selection": "kmeans"}
    plain = {"num_frames": 4, "candidate_fps": 2.0, "seed": 1, "selection": "kmeans"}
    assert numbers(select_frames(film, **given)[0]) == numbers(select_frames(film, **plain)[0])


def test_another_size_changes_the_pictures_and_nothing_else(film) -> None:
    frames, metadata = select_frames(film, 6, size=(24, 32))
    assert frames.shape == (6, 24, 32, 3)
    assert metadata == select_frames(film, 6)[1]
    assert np.array_equal(frames, read_frames(film, times=metadata.timestamps, size=(24, 32)).frames)


def test_an_encoder_gets_all_candidates_as_pictures_and_decides(film) -> None:
    seen = []

    def brightness_of_blue(frames: torch.Tensor) -> torch.Tensor:
        assert frames.dtype == torch.uint8 and frames.shape[1:] == (3, 30, 40)
        seen.append(len(frames))
        features = frames[:, 2].float().flatten(1)
        return features[:, None]  # (frames, patches, dim), of one patch

    steps = []
    select_frames(
        film,
        4,
        encoder=brightness_of_blue,
        candidates_size=(30, 40),
        progress=lambda *step: steps.append(step),
    )
    assert sum(seen) == 96
    assert ("encoding", 96, 96) in steps and {name for name, _, _ in steps} == {"reading", "encoding"}


def test_a_film_longer_than_its_pool_keeps_its_event(tmp_path) -> None:
    path = make_video(tmp_path / "long.mp4", 500, fps=1, draw=still)
    chosen = numbers(select_frames(str(path), 4, max_candidates=60)[0])
    assert any(77 <= number <= 80 for number in chosen)


def test_all_forms_of_a_file_give_the_same_frames(film) -> None:
    with open(film, "rb") as file:
        data = file.read()
    frames, metadata = select_frames(film, 5)
    for form in (data, io.BytesIO(data), {"path": film}, VideoSegment(film)):
        again, described = select_frames(form, 5)
        assert np.array_equal(frames, again) and described == metadata


def test_a_segment_counts_from_its_own_start(film) -> None:
    frames, metadata = select_frames([VideoSegment(film, 10.0, 20.0)], 5)
    assert all(50 <= number < 100 for number in numbers(frames))
    assert metadata.timestamps == pytest.approx([(number - 50) / 5 for number in numbers(frames)])
    assert metadata.duration == pytest.approx(10.0)


def test_frames_that_are_given_are_chosen_from_as_they_are(film) -> None:
    whole = read_frames(film, num_frames=200)
    frames, metadata = select_frames(whole.frames, 5, video_metadata={"fps": 5.0, "total_num_frames": 200})
    assert np.array_equal(frames, whole.frames[metadata.frames_indices])
    assert metadata.timestamps == pytest.approx([number / 5 for number in numbers(frames)])
    as_pictures = [Image.fromarray(frame) for frame in whole.frames]
    assert np.array_equal(select_frames(as_pictures, 5)[0], frames)
    read, timed = select_frames(whole, 5)
    assert np.array_equal(read, frames) and timed.timestamps == pytest.approx(metadata.timestamps)
    small, _ = select_frames(whole.frames, 5, size=(24, 32))
    assert small.shape == (5, 24, 32, 3) and abs(small.mean() - frames.mean()) < 2


def test_uniform_frames_of_given_ones_keep_their_own_times() -> None:
    given = np.stack([picture(number) for number in range(10)])
    metadata = VideoMetadata(1000, fps=10.0, duration=100.0, frames_indices=[number * 100 for number in range(10)])
    frames, chosen = select_frames(given, 5, selection="uniform", video_metadata=metadata)
    assert [number_of(frame) for frame in frames] == [0, 2, 4, 6, 8]
    assert chosen.timestamps == [0.0, 20.0, 40.0, 60.0, 80.0]
    assert metadata.frames_indices == [number * 100 for number in range(10)]  # the caller's own is left alone


@pytest.mark.parametrize("selection", ["farthest", "uniform"])
def test_a_decoder_gives_its_own_pixels_at_the_numbers_chosen_of_the_file(film, selection) -> None:
    torchcodec = pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, RuntimeError))
    decoder = torchcodec.VideoDecoder(film)
    frames, metadata = select_frames(decoder, 5, selection=selection)
    expected = decoder.get_frames_at(metadata.frames_indices).data.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(frames, expected) and numbers(frames) == metadata.frames_indices
    assert metadata.timestamps == pytest.approx([number / 5 for number in numbers(frames)])


def test_a_film_with_fewer_frames_gives_all_of_them(tmp_path) -> None:
    path = str(make_video(tmp_path / "short.mp4", 5))
    for selection in ("farthest", "uniform"):
        frames, metadata = select_frames(path, 8, selection=selection)
        assert [number_of(frame) for frame in frames] == metadata.frames_indices == [0, 1, 2, 3, 4]


def test_a_picture_is_a_film_of_one_frame(tmp_path) -> None:
    Image.fromarray(picture(3)).save(tmp_path / "picture.png")
    for selection in ("farthest", "uniform"):
        frames, metadata = select_frames(tmp_path / "picture.png", 8, selection=selection)
        assert np.array_equal(frames, picture(3)[None]) and metadata.frames_indices == [0]


def test_a_rate_in_milliseconds_gives_times_and_not_frame_numbers(tmp_path) -> None:
    milliseconds = [0, 40, 90, 200, 210, 300, 455, 500]
    path = str(make_video(tmp_path / "variable.mp4", 8, times=milliseconds))
    frames, metadata = select_frames(path, 8)
    assert metadata.fps == 1_000_000 and metadata.frames_indices == [1000 * time for time in milliseconds]
    assert [number_of(frame) for frame in frames] == list(range(8))
    copied = VideoMetadata(**metadata)  # as processors copy it
    assert copied.timestamps == [time / 1000 for time in milliseconds]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_frames": 0}, "`num_frames` must be a whole number of at least 1, got 0"),
        ({"num_frames": 2.5}, "`num_frames` must be a whole number of at least 1, got 2.5"),
        ({"num_frames": 600}, "`num_frames` 600 is more than `max_candidates` 512"),
        ({"selection": "best"}, "Unknown `selection` 'best'"),
        ({"selection": lambda metadata, num_frames: np.array([5, 200])}, "frames are 0 to 199"),
        ({"selection": lambda metadata, num_frames: np.array([5, 3])}, "in this order"),
        ({"video_metadata": {"fps": 5.0}}, "a file has its own"),
        ({"encoder": lambda frames: frames.float().mean()}, "The encoder must give"),
        ({"candidate_fps": 0}, "`candidate_fps` must be a positive number"),
        ({"size": (0, 10)}, "height in size"),
    ],
)
def test_wrong_arguments_are_named(film, options, error) -> None:
    arguments = {"num_frames": 4} | options
    with pytest.raises(ValueError, match=error):
        select_frames(film, arguments.pop("num_frames"), **arguments)


def test_one_video_at_a_time_and_one_that_can_be_read(film, tmp_path) -> None:
    with pytest.raises(ValueError, match="one video at a time, got 2"):
        select_frames([film, film], 4)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(VideoReadError, match="broken"):
        select_frames(tmp_path / "broken.mp4", 4)
    with pytest.raises(VideoReadError):
        select_frames(tmp_path / "missing.mp4", 4)


def likes_red(frames: torch.Tensor, question: str) -> torch.Tensor:
    """For a question about red, the redder the better; others tell nothing."""
    red = frames[:, 0].float().mean(dim=(1, 2)) - frames[:, 1].float().mean(dim=(1, 2))
    return red if "red" in question else torch.zeros(len(frames))


def test_with_a_question_the_scorer_decides(film) -> None:
    frames, metadata = select_frames(film, 2, question="When is it red?", scorer=likes_red)
    assert any(77 <= number <= 80 for number in numbers(frames))
    given, _ = select_frames(
        read_frames(film, num_frames=100).frames, 2, question="When is it red?", scorer=likes_red, candidate_fps=1.0
    )
    assert max(given[:, 30:, :, 0].mean(axis=(1, 2))) > 150
    assert metadata.timestamps == sorted(metadata.timestamps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"question": "What?"}, "needs a `scorer`"),
        ({"question": "", "scorer": likes_red}, "belong together"),
        ({"selection": "question"}, "belong together"),
        ({"question": "What?", "scorer": likes_red, "selection": "kmeans"}, "belong together"),
    ],
)
def test_a_question_and_its_scorer_belong_together(film, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        select_frames(film, 2, **arguments)


def mean_color(frames: torch.Tensor) -> torch.Tensor:
    return frames.float().mean(dim=(2, 3))


@pytest.mark.parametrize("selection", ["uniform", lambda metadata, num_frames: np.arange(num_frames)])
@pytest.mark.parametrize(
    "option",
    [
        {"encoder": mean_color},
        {"candidate_fps": 1.0},
        {"max_candidates": 512},
        {"candidates_size": (64, 64)},
        {"seed": 42},
        {"seek_mode": "auto"},
    ],
)
def test_a_selection_by_time_takes_nothing_of_candidates(film, selection, option) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=rf"selection.* goes by time alone: leave out `{name}`\."):
        select_frames(film, 4, selection=selection, **option)


def test_a_selection_by_time_is_bound_to_no_pool(film) -> None:
    assert numbers(select_frames(film, 600, selection="uniform")[0]) == list(range(200))


def test_the_times_of_pictures_are_counted_by_their_rate_whatever_the_selection() -> None:
    given = np.stack([picture(number) for number in range(8)])
    _, metadata = select_frames(given, 4, selection="uniform", candidate_fps=2.0)
    assert metadata.timestamps == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="leave out `max_candidates`"):
        select_frames(given, 4, selection="uniform", max_candidates=8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scorer": likes_red}, "A `scorer` needs a `question`: pass what will be asked, or leave it out"),
        ({"scorer": likes_red, "selection": "kmeans"}, "A `scorer` needs a `question`"),
        (
            {"scorer": likes_red, "question": "When is it red?", "encoder": mean_color},
            "`selection='question'` goes by the scorer alone: leave out `encoder`",
        ),
        ({"scorer": likes_red, "question": "When is it red?", "seed": 3}, "leave out `seed`"),
        ({"seed": 3}, "`selection='farthest'` draws nothing at random: leave out `seed`"),
        ({"selection": "bsm", "seed": 3}, "leave out `seed`"),
    ],
)
def test_options_that_a_selection_does_not_read_are_refused(film, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        select_frames(film, 4, **arguments)


@pytest.mark.parametrize("textured", [False, True])
def test_black_frames_and_flashes_do_not_eat_the_frames_of_what_is_shown(tmp_path, textured) -> None:
    """Eight shots with a thing in the fourth for three frames; fourteen frames are spoiled, one at a time."""
    spoiled = {9 + 14 * place: place % 2 for place in range(14)}

    def draw(number: int, width: int, height: int) -> np.ndarray:
        shot = number // 25
        image = np.empty((height, width, 3), dtype=np.uint8)
        image[:] = [80 + 70 * (shot >> bit & 1) for bit in range(3)]
        if textured:
            image[:, : width // 2] -= 60
        if 85 <= number < 88:
            image[10:30, 10:30] = (250, 60, 10)
        kind = spoiled.get(number)
        if kind is not None:
            image[:] = (0, 255)[kind]
        return image

    path = str(make_video(tmp_path / "spoiled.mp4", 200, fps=5, draw=draw))
    _, metadata = select_frames(path, 12, candidate_fps=5)
    chosen = metadata.frames_indices
    sound = [number for number in chosen if number not in spoiled]
    assert {number // 25 for number in sound} == set(range(8)) and {85, 86, 87} & set(sound)
    # Among pictures of one color, a black one and a white one; where there is more to see, one once all is shown.
    assert len(chosen) - len(sound) <= (1 if textured else 2)


def test_a_film_of_a_frame_an_hour_has_a_clock() -> None:
    frames = np.stack([still(number) for number in range(12)])
    chosen, metadata = select_frames(frames, 4, selection="uniform", video_metadata=VideoMetadata(12, fps=1 / 3600))
    assert len(chosen) == 4 and metadata.fps > 0
    assert metadata.timestamps[0] == 0 and metadata.timestamps[-1] > 3600
