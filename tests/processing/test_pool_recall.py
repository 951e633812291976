"""The benchmark of the pool of long videos at its smallest size, and what it measures."""

import json

from fila_video.benchmarks.pool_recall import main


def test_the_adaptive_pool_holds_more_short_events_than_an_even_one(capsys) -> None:
    assert main(["--minutes", "10", "--films", "2", "--max-candidates", "64", "--side", "48"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["minutes"] == 10 and row["events"] >= 8
    assert row["even"] < row["adaptive"] <= row["events"]


def test_of_encoded_films_the_pool_of_every_second_holds_what_the_keyframes_may_miss(capsys) -> None:
    assert main(["--encoded", "--minutes", "2", "--films", "1", "--max-candidates", "32", "--side", "48"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["exact_looked_at"] == row["auto_looked_at"] == 120 > row["keyframe_looked_at"] > 0
    assert row["keyframe"] <= row["exact"] <= row["events"] and row["exact"] > 0
