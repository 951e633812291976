"""A clock for the limits of time of a reading, so that no test waits and none depends on speed."""

import pytest


class Clock:
    """A time that passes where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("fila_video.video_limits_fila_video.time", self)

    def monotonic(self) -> float:
        return self.now
