"""What the tests of the command line share."""

import pytest
from helpers.video_files import make_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("videos") / "a film.mp4"
    make_video(path, 120)
    return str(path)
