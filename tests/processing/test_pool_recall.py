"""The benchmark of the pool of long videos at its smallest size, and what it measures."""

import json

from fila_video.benchmarks.pool_recall import main


def test_the_adaptive_pool_holds_more_short_events_than_an_even_one(capsys) -> None:
    assert main(["--minutes", "10", "--films", "2", "--max-candidates", "64", "--side", "48"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["minutes"] == 10 and row["events"] >= 8
    assert row["even"] < row["adaptive"] <= row["events"]
