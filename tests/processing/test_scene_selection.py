"""Scene selection: eq. 2-6 and supplement B against loops in numpy, and a test a rule where the paper is silent."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from fila_video.cooperative_encoding_fila_video import EVENT_NEIGHBORS
from fila_video.scene_selection_fila_video import (
    INITS,
    METHODS,
    num_selected_scenes,
    select_scenes,
)
from helpers.features import groups_of, noise, video

faiss = pytest.importorskip("faiss")


def naive_supplement(features, representatives, count, most_similar=True):
    """Eq. 5 and 6, a frame at a time."""
    scenes, start = [], 0
    for representative in representatives:
        history = []
        for frame in range(start, representative):
            a, b = features[representative].astype(np.float64), features[frame].astype(np.float64)
            similarity = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
            history.append((-similarity if most_similar else similarity, frame))
        chosen = [frame for _, frame in sorted(history)[:count]]
        scenes.append(sorted(chosen) + [representative] * (count + 1 - len(chosen)))
        start = representative + 1
    return scenes


@pytest.mark.parametrize("method", ["kmeans", "kmeans_dissimilar", "farthest", "prototypes"])
@pytest.mark.parametrize("scene_size", [1, 2, 3, 5])
@pytest.mark.parametrize("make", [noise, video])
def test_scenes_equal_a_loop_over_each_history(method, scene_size, make) -> None:
    for seed in range(5):
        features = make(160, seed=seed)
        scenes = select_scenes(features, 10, scene_size, method)
        expected = naive_supplement(
            features.numpy(), scenes[:, -1].tolist(), scene_size - 1, method != "kmeans_dissimilar"
        )
        assert scenes.tolist() == expected


def test_representatives_lie_in_different_groups_where_the_video_has_as_many() -> None:
    groups = torch.arange(6).repeat_interleave(10)
    features = 20 * torch.eye(6, 16)[groups] + 0.1 * noise(60, 16)
    for seed in range(20):
        representatives = select_scenes(features, 6, 3, seed=seed)[:, -1]
        assert groups[representatives].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_tie_for_the_centroid_goes_to_the_earlier_frame() -> None:
    # Two frames are always equally near to their mean, whatever float32 makes of it.
    for seed in range(50):
        pairs = 100 * torch.eye(4, 32).repeat_interleave(2, 0) + noise(8, 32, seed)
        assert select_scenes(pairs, 4, 1)[:, 0].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_representatives_are_the_members_nearest_to_the_means_of_their_clusters(offset) -> None:
    for seed in range(5):
        features, groups = groups_of([3, 10, 25, 40, 60], seed)
        points = (features + offset).double().numpy()
        expected = []
        for group in range(5):
            members = np.flatnonzero(groups.numpy() == group)
            distances = ((points[members] - points[members].mean(0)) ** 2).sum(1)
            expected.append(members[distances.argmin()])
        scenes = select_scenes(features + offset, 5, 1, seed=seed)
        assert scenes[:, -1].tolist() == sorted(expected)


def squared_error(features, representatives):
    """Of k-means that starts from frames, after Lloyd's iterations in float64."""
    points = features.double().numpy()
    centroids = points[representatives]
    for _ in range(50):
        distances = ((points[:, None] - centroids) ** 2).sum(2)
        labels = distances.argmin(1)
        centroids = np.stack([points[labels == label].mean(0) for label in np.unique(labels)])
    return distances.min(1).sum()


def test_k_means_finds_better_clusters_than_one_random_start_does() -> None:
    better = 0
    for seed in range(10):
        features = video(300, seed=seed) + 2 * (torch.arange(300) % 50 < 2)[:, None] * noise(300, 48, seed)
        ours = squared_error(features, select_scenes(features, 12, 1, seed=seed)[:, 0].numpy())
        start = torch.randperm(300, generator=torch.Generator().manual_seed(seed))[:12]
        better += ours < squared_error(features, start.numpy())
    assert better >= 9


@pytest.mark.parametrize("method", ["kmeans", "farthest"])
def test_equal_frames_tie_to_the_earlier_one_wherever_they_lie(method) -> None:
    distinct = groups_of([1] * 40, dim=64)[0]
    repeated = distinct[torch.arange(4400) % 40]
    assert (select_scenes(repeated, 12, 3, method)[:, -1] < 40).all()


def test_histories_begin_behind_the_representative_before_and_ties_go_to_the_earlier_frame() -> None:
    # Two distinct frames, repeated: the first one of each represents it, and all in between are equally unlike it.
    features = torch.eye(2, 3).repeat_interleave(5, 0)
    for method in ("kmeans", "kmeans_dissimilar", "farthest"):
        assert select_scenes(features, 2, 3, method).tolist() == [[0, 0, 0], [1, 2, 5]]


@pytest.mark.parametrize("method", ["kmeans", "kmeans_dissimilar"])
def test_parallel_features_tie_in_similarity(method) -> None:
    # Lengths tell the frames apart, and so their clusters; all directions are the same.
    lengths = torch.tensor([1.0, 90, 91, 92, 93, 94, 200])
    features = lengths[:, None] * noise(1, 64)
    assert select_scenes(features, 3, 2, method).tolist() == [[0, 0], [1, 3], [4, 6]]


def test_a_short_history_repeats_the_representative() -> None:
    features = torch.eye(9)
    for method in ("kmeans", "farthest", "prototypes"):
        assert select_scenes(features, 9, 3, method).tolist() == [[frame] * 3 for frame in range(9)]


def test_frames_after_the_last_representative_are_unused() -> None:
    for seed in range(5):
        scenes = select_scenes(video(200, seed=seed), 8, 4)
        assert scenes.max() == scenes[-1, -1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 31, 32, 33, 95, 200])
def test_the_number_of_scenes_depends_on_the_number_of_frames_alone(method, num_frames) -> None:
    for features in (noise(num_frames), video(num_frames), torch.ones(num_frames, 4), torch.zeros(num_frames, 4)):
        scenes = select_scenes(features, 32, 3, method)
        assert scenes.shape == (min(32, num_frames), 3) == (num_selected_scenes(num_frames, 32), 3)
        assert scenes.dtype == torch.int64 and scenes.device.type == "cpu"
        assert scenes.min() >= 0 and scenes.max() < num_frames
        assert (scenes.diff(dim=1) >= 0).all()
        last = scenes[:, -1].diff()
        assert (last >= 0).all() if method == "uniform" else (last > 0).all()


def test_a_still_picture_spreads_its_scenes_over_the_frames() -> None:
    assert select_scenes(torch.ones(100, 8), 4, 3)[:, -1].tolist() == [0, 17, 50, 83]
    two_slides = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat_interleave(50, 0)
    assert select_scenes(two_slides, 4, 1)[:, 0].tolist() == [0, 25, 50, 75]


def test_rows_of_equal_sums_are_still_distinct() -> None:
    features = torch.tensor([[3.0, 0.0], [0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0]])
    assert select_scenes(features, 4, 1)[:, 0].tolist() == [0, 1, 2, 3]


def test_uniform_thins_the_pool_evenly_to_consecutive_scenes() -> None:
    assert select_scenes(noise(96), 32, 3, "uniform").flatten().tolist() == list(range(96))
    for num_frames in (6, 50, 511, 4096):
        frames = select_scenes(noise(num_frames), 2, 3, "uniform").flatten().double()
        even = torch.linspace(0, num_frames - 1, 6, dtype=torch.float64)
        assert frames[0] == 0 and frames[-1] == num_frames - 1
        assert (frames - even).abs().max() <= 0.5
    assert select_scenes(noise(2), 4, 2, "uniform").tolist() == [[0, 0], [1, 1]]


def naive_bipartite(features, num_scenes, scene_size):
    """Supplement B, an edge at a time."""
    features = features.astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    num_frames, scenes = len(features), []
    for scene in range(num_scenes):
        start, end = scene * num_frames // num_scenes, (scene + 1) * num_frames // num_scenes
        edges = [(-(features[a] @ features[b]), a, b) for a in range(start, end, 2) for b in range(start + 1, end, 2)]
        kept = [] if edges else [start]
        for _, a, b in sorted(edges):
            kept += [frame for frame in (a, b) if frame not in kept]
        kept = sorted(kept[:scene_size])
        scenes.append(kept + kept[-1:] * (scene_size - len(kept)))
    return scenes


@pytest.mark.parametrize("scene_size", [1, 2, 3, 4, 6])
def test_bipartite_matching_keeps_the_frames_on_the_most_similar_edges(scene_size) -> None:
    for seed, num_frames in enumerate((5, 16, 61, 160, 200)):
        features = video(num_frames, seed=seed)
        scenes = select_scenes(features, 5, scene_size, "bsm")
        assert scenes.tolist() == naive_bipartite(features.numpy(), 5, scene_size)


def test_dissimilar_scenes_differ_from_similar_ones_but_share_their_representatives() -> None:
    features = video(200)
    similar, dissimilar = (select_scenes(features, 8, 3, method) for method in ("kmeans", "kmeans_dissimilar"))
    assert torch.equal(similar[:, -1], dissimilar[:, -1])
    assert not torch.equal(similar, dissimilar)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_other_precisions_give_the_same_scenes(dtype, method) -> None:
    features = video(150).to(dtype)
    assert torch.equal(select_scenes(features, 8, 3, method), select_scenes(features.float(), 8, 3, method))


def test_features_may_be_a_view_that_requires_grad_and_stay_as_they_are() -> None:
    features = video(300)
    strided = features.repeat(1, 2).T.contiguous().T[:, :48].requires_grad_()
    before = strided.detach().clone()
    assert torch.equal(select_scenes(strided, 8, 3), select_scenes(features, 8, 3))
    assert torch.equal(strided, before)


def test_prototypes_of_a_row_of_numbers_are_those_that_a_hand_computes() -> None:
    # With the two nearest: densities exp(-.05), exp(-.025), exp(-.065), exp(-.25), exp(-.325), exp(-.905);
    # separations 0.1, 1.9 (the densest: the farthest frame), 0.2, 0.7, 0.1, 0.9.
    assert EVENT_NEIGHBORS == 2
    features = torch.tensor([0, 0.1, 0.3, 1.0, 1.1, 2.0])[:, None]
    expected = {1: [1], 2: [1, 3], 3: [1, 3, 5], 4: [1, 2, 3, 5], 5: [0, 1, 2, 3, 5]}
    for count, frames in expected.items():
        assert select_scenes(features, count, 1, "prototypes")[:, 0].tolist() == frames


def naive_prototypes(features, count, neighbors):
    """DPC-KNN, a frame at a time."""
    points = features.double().numpy()
    frames = range(len(points))
    apart = [[float(((points[a] - points[b]) ** 2).sum()) for b in frames] for a in frames]
    density = [
        np.exp(-np.mean(sorted(apart[a][b] for b in frames if b != a)[:neighbors]) / points.shape[1]) for a in frames
    ]
    scores = []
    for a in frames:
        denser = [apart[a][b] for b in frames if density[b] > density[a]]
        scores.append(density[a] * np.sqrt(min(denser) if denser else max(apart[a])))
    return sorted(sorted(frames, key=lambda frame: -scores[frame])[:count])


@pytest.mark.parametrize("count", [1, 7, 30])
def test_prototypes_equal_a_loop_over_all_pairs(count) -> None:
    for seed, make in enumerate((noise, video, noise, video)):
        features = make(90, seed=seed)
        expected = naive_prototypes(features, count, EVENT_NEIGHBORS)
        assert select_scenes(features, count, 3, "prototypes")[:, -1].tolist() == expected


def test_prototypes_of_features_too_far_apart_for_an_exponential_are_still_ranked() -> None:
    features = 1000 * noise(60, 8)
    features[20:23] = features[20] + noise(3, 8)  # the only dense place
    chosen = select_scenes(features, 5, 1, "prototypes")[:, 0].tolist()
    assert len(set(chosen) & {20, 21, 22}) >= 1


@pytest.mark.parametrize("init", INITS)
def test_equal_features_give_equal_scenes_whatever_the_threads_and_the_global_seed(init) -> None:
    # A common offset and half precision leave many frames nearly between two centroids.
    features = (video(1500, 256, shot=40) + 3).bfloat16()
    before, threads, torch_threads = torch.get_rng_state(), faiss.omp_get_max_threads(), torch.get_num_threads()
    try:
        results = []
        for num_threads in (1, 2, 3):
            faiss.omp_set_num_threads(num_threads)
            torch.set_num_threads(num_threads)
            torch.manual_seed(num_threads)
            np.random.seed(num_threads)
            results.append(select_scenes(features, 32, 3, init=init))
    finally:
        faiss.omp_set_num_threads(threads)
        torch.set_num_threads(torch_threads)
        torch.set_rng_state(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    select_scenes(features, 32, 3, init=init)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_changes_the_start() -> None:
    features = noise(400)
    assert not torch.equal(select_scenes(features, 16, 3, seed=1), select_scenes(features, 16, 3, seed=2))


def test_no_frame_is_left_out_of_the_clustering_and_nothing_is_printed(capfd) -> None:
    # FAISS by itself takes 256 training points a centroid, and warns below 39: here 1,200 and 2.5.
    many = torch.cat([noise(2399, 8), torch.full((1, 8), 1e4)])
    assert 2399 in select_scenes(many, 2, 1)
    select_scenes(noise(80), 32, 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_scenes": 0}, "`num_scenes` must be a whole number of at least 1, but is 0"),
        ({"num_scenes": 2.5}, "`num_scenes` must be a whole number of at least 1, but is 2.5"),
        ({"num_scenes": True}, "`num_scenes`.*True"),
        ({"num_scenes": "3"}, "`num_scenes`.*'3'"),
        ({"seed": 2**31}, "`seed` must be a whole number of 32 bits.*2147483648"),
        ({"scene_size": -2}, "`scene_size` must be a whole number of at least 1, but is -2"),
        ({"scene_size": None}, "`scene_size`.*None"),
        (
            {"method": "k-means"},
            "Unknown method 'k-means'.*kmeans, kmeans_dissimilar, farthest, prototypes, uniform, bsm",
        ),
        ({"init": "best"}, "Unknown init 'best'.*k-means\\+\\+, random"),
        ({"features": torch.ones(3, 4, 5)}, r"\(num_candidates, dim\).*\(3, 4, 5\)"),
        ({"features": torch.ones(5)}, r"\(num_candidates, dim\).*\(5,\)"),
        ({"features": torch.ones(0, 5)}, r"at least one frame.*\(0, 5\)"),
        ({"features": torch.ones(5, 0)}, r"\(5, 0\)"),
        ({"features": torch.ones(5, 4, dtype=torch.int64)}, "floating point.*torch.int64"),
    ],
)
def test_arguments_out_of_range_are_refused_with_their_values(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        select_scenes(**{"features": noise(9), "num_scenes": 3, "scene_size": 3, **arguments})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_features_that_are_not_finite_are_refused_with_their_frames(method, bad) -> None:
    features = noise(50)
    features[7, 3] = features[9, 0] = bad
    with pytest.raises(ValueError, match=r"in 2 of 50 frames .*frame 7"):
        select_scenes(features, 4, 3, method)


def test_without_faiss_the_module_imports_and_only_k_means_asks_for_it() -> None:
    program = (
        "import sys; sys.modules['faiss'] = None\n"
        "import torch\n"
        "from fila_video.scene_selection_fila_video import select_scenes\n"
        "for method in ('uniform', 'bsm', 'farthest', 'prototypes'): select_scenes(torch.rand(9, 4), 2, 3, method)\n"
        "try: select_scenes(torch.rand(9, 4), 2, 3)\n"
        "except ImportError as error: sys.exit(str(error))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "fila-video[cpu]" in result.stderr and "fila-video[gpu]" in result.stderr, result.stderr


class Videos(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, item):
        return select_scenes(video(1200, 256, seed=item), 16, 3), faiss.omp_get_max_threads()


def test_a_forked_worker_of_a_data_loader_selects_as_its_parent_did() -> None:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        expected = [scenes for scenes, _ in (Videos()[item] for item in range(4))]
        loader = torch.utils.data.DataLoader(
            Videos(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=40
        )
        for scenes, (found, _) in zip(expected, loader, strict=True):
            assert torch.equal(scenes, found)
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(threads)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or faiss.get_num_gpus() == 0, reason="needs a GPU and FAISS with GPU support"
)
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_selects_the_scenes_of_the_cpu(method) -> None:
    features, _ = groups_of([300, 200, 100, 50, 20])
    on_gpu = select_scenes(features.cuda(), 5, 3, method)
    assert on_gpu.device.type == "cpu"
    assert torch.equal(on_gpu, select_scenes(features, 5, 3, method))


def test_a_bipartite_scene_is_full_where_its_best_edges_share_their_frames() -> None:
    features = torch.eye(12)
    features[[0, 1, 2, 3, 5]] = features[0].clone()
    (scene,) = select_scenes(features, 1, 6, "bsm").tolist()
    assert len(set(scene)) == 6
