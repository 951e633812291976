"""The table on real footage, from small pools of synthetic clips: nothing is fetched."""

import json

import numpy as np
import pytest
import torch
from fila_video.evaluation import footage
from fila_video.evaluation.footage import KINDS, SIDE, FootagePool, make_pool, markdown, measure
from fila_video.evaluation.selections import SELECTIONS, Mixture, Selection
from fila_video.video_pool_fila_video import thumbnails


@pytest.fixture(scope="module")
def material():
    """Gradients in the colors of their names that brighten from frame to frame: as many as the real material has."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 160)[:, None, None] * np.ones((160, 200, 3))
    sources = {}
    for name in sorted(footage.CLIPS | footage.PHOTOGRAPHS):
        length = 20 if name in footage.CLIPS else 1
        picture = 60 * ramp + rng.uniform(0, 190, 3)
        sources[name] = np.stack([picture + 0.5 * frame for frame in range(length)]).astype(np.uint8)
    return sources


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_holds_its_events_apart_from_each_other_and_from_junk(material, kind) -> None:
    pool = make_pool(material, kind, seed=1, num_frames=96, num_events=6)
    assert pool.frames.shape == (96, SIDE, SIDE, 3) and pool.frames.dtype == np.uint8
    assert len(pool.events) == 6 and all(len(event) in (1, 2) for event in pool.events)
    shown = [frame for event in pool.events for frame in event]
    assert len(set(shown)) == len(shown) and not set(shown) & set(pool.junk)
    assert bool(pool.junk) == ("junk" in kind)
    assert all(np.diff(pool.junk) > 1)


def test_equal_seeds_give_equal_pools_and_others_do_not(material) -> None:
    first, again, other = (make_pool(material, "calm", seed, num_frames=64, num_events=4) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, again.frames) and first.events == again.events
    assert not np.array_equal(first.frames, other.frames)


def test_measuring_counts_the_events_that_a_hand_counts() -> None:
    frames = np.zeros((30, SIDE, SIDE, 3), np.uint8)
    frames[4], frames[11:13], frames[20] = [255, 0, 0], [0, 0, 255], [0, 255, 0]
    pool = FootagePool(frames, events=[range(4, 5), range(11, 13)], junk=[20])
    chosen = {"farthest": (SELECTIONS["farthest"], None), "uniform": (SELECTIONS["uniform"], None)}
    rows = measure([pool], thumbnails, chosen, (4, 1), seeds=2)
    farthest, _, uniform, _ = rows
    assert (farthest["found"], farthest["represented"], farthest["junk"]) == ([[2]], [[2]], [[1]])
    taken = set(SELECTIONS["uniform"].scenes(torch.zeros(30, 1), 4, 3, 0).flatten().tolist())
    assert uniform["found"] == [[(4 in taken) + bool({11, 12} & taken)]]


def test_a_mixture_is_the_scenes_of_both_halves_in_the_order_of_time() -> None:
    features = torch.zeros(40, 2)
    features[33] = torch.tensor([0.0, 9.0])
    features[12] = torch.tensor([7.0, 0.0])
    mixed = Mixture("uniform+farthest").scenes(features, 5, 2, 0)
    parts = torch.cat(
        [SELECTIONS["uniform"].scenes(features, 3, 2, 0), SELECTIONS["farthest"].scenes(features, 2, 2, 0)]
    )
    assert mixed.tolist() == sorted(parts.tolist(), key=lambda scene: scene[-1])
    assert {12, 33} & set(mixed[:, -1].tolist())


def test_the_command_writes_a_table_of_every_selection(material, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(footage, "fetch", lambda cache: material)
    options = ["--pools", "1", "--num-frames", "40", "--num-scenes", "2", "4", "--seeds", "1"]
    footage.main([*options, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path)])
    text = (tmp_path / "footage.md").read_text()
    assert text in capsys.readouterr().out
    for name in (name for name, one in SELECTIONS.items() if isinstance(one, Selection)):
        assert text.count(f"| `{name}` |") == 2
    assert markdown(json.loads((tmp_path / "footage.json").read_text())) == text


def test_a_package_that_cannot_be_fetched_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(footage, "PACKAGES", ("fila-video-no-such-package==0.0.1",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeError, match=r"could not fetch fila-video-no-such-package==0\.0\.1"):
        footage.fetch(tmp_path)
