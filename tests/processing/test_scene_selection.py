"""Scene selection: eq. 2-6 and supplement B against loops in numpy, and a test a rule where the paper is silent."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fila_video import scene_selection_fila_video as scene_selection
from fila_video.scene_selection_fila_video import INITS, METHODS, num_selected_scenes, select_scenes

faiss = pytest.importorskip("faiss")


def noise(num_frames, dim=24, seed=0):
    return torch.randn(num_frames, dim, generator=torch.Generator().manual_seed(seed))


def video(num_frames, dim=48, seed=0, shot=12):
    """Features of a video that cuts between a few places every `shot` frames."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(5, dim, generator=generator)
    order = torch.randint(5, (num_frames // shot + 1,), generator=generator).repeat_interleave(shot)[:num_frames]
    return places[order] + 0.3 * torch.randn(num_frames, dim, generator=generator)


def clusters_of(features, num_scenes, init="k-means++", seed=42):
    """The converged clusters behind `select_scenes`: labels and centroids."""
    features = features - features[0]
    index = scene_selection._flat_index(features)
    first = scene_selection._initial_frames(index, features, num_scenes, init, seed)
    slack = 4e-6 * features.square().sum(1).max()
    centroids, _, labels = scene_selection._cluster(index, features, features[first].double(), slack)
    return features.double().numpy(), centroids.numpy(), labels.numpy()


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


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_a_fixed_point_of_assignment_and_update(init, seed):
    features, centroids, labels = clusters_of(video(300, seed=seed), 12, init, seed)
    distances = ((features[:, None] - centroids[None]) ** 2).sum(2)
    assert (distances.argmin(1) == labels).all()
    for label in range(12):
        np.testing.assert_allclose(features[labels == label].mean(0), centroids[label], atol=1e-9)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("seed", range(4))
def test_representatives_are_the_members_nearest_to_their_centroids(init, seed):
    candidates = video(300, seed=seed)
    features, _, labels = clusters_of(candidates, 12, init, seed)
    expected = []
    for label in range(12):
        members = np.flatnonzero(labels == label)
        distances = ((features[members] - features[members].mean(0)) ** 2).sum(1)
        expected.append(members[np.argmin(np.round(distances, 9))])
    scenes = select_scenes(candidates, 12, 3, init=init, seed=seed)
    assert scenes[:, -1].tolist() == sorted(expected)


@pytest.mark.parametrize("method", ["kmeans", "kmeans_dissimilar"])
@pytest.mark.parametrize("scene_size", [1, 2, 3, 5])
@pytest.mark.parametrize("make", [noise, video])
def test_scenes_equal_a_loop_over_each_history(method, scene_size, make):
    for seed in range(5):
        features = make(160, seed=seed)
        scenes = select_scenes(features, 10, scene_size, method)
        expected = naive_supplement(features.numpy(), scenes[:, -1].tolist(), scene_size - 1, method == "kmeans")
        assert scenes.tolist() == expected


def test_representatives_lie_in_different_groups_where_the_video_has_as_many():
    groups = torch.arange(6).repeat_interleave(10)
    features = 20 * torch.eye(6, 16)[groups] + 0.1 * noise(60, 16)
    for seed in range(20):
        representatives = select_scenes(features, 6, 3, seed=seed)[:, -1]
        assert groups[representatives].tolist() == [0, 1, 2, 3, 4, 5]


def test_k_means_plus_plus_draws_in_proportion_to_squared_distances():
    # From frame 0 at 0 the others are at squared distances 1, 4 and 9; a third draw depends on the second.
    features = torch.tensor([[0.0], [1.0], [-2.0], [3.0]])
    index = scene_selection._flat_index(features)
    counts, num_runs = {}, 2000
    for seed in range(num_runs):
        drawn = tuple(scene_selection._initial_frames(index, features, 3, "k-means++", seed).tolist())
        counts[drawn] = counts.get(drawn, 0) + 1
    points = features[:, 0].tolist()
    for i in range(4):
        for j in range(4):
            for k in range(4):
                if len({i, j, k}) < 3:
                    assert (i, j, k) not in counts
                    continue
                first = [(p - points[i]) ** 2 for p in points]
                second = [min(d, (p - points[j]) ** 2) for d, p in zip(first, points, strict=True)]
                probability = 1 / 4 * first[j] / sum(first) * second[k] / sum(second)
                deviation = (probability * (1 - probability) / num_runs) ** 0.5
                assert counts.get((i, j, k), 0) / num_runs == pytest.approx(probability, abs=4.5 * deviation)


def test_k_means_plus_plus_draws_several_at_once_as_if_one_by_one():
    # Two far groups of eight: 16 draws one by one take each frame once, and alternate as the distances say.
    features = torch.cat([noise(8, 4), 1000 + noise(8, 4, seed=1)])
    index = scene_selection._flat_index(features)
    for seed in range(30):
        drawn = scene_selection._initial_frames(index, features, 10, "k-means++", seed).tolist()
        assert len(set(drawn)) == 10
        assert (drawn[0] < 8) != (drawn[1] < 8)


def test_random_initial_frames_are_distinct_and_follow_the_seed():
    features = noise(50)
    index = scene_selection._flat_index(features)
    drawn = [scene_selection._initial_frames(index, features, 20, "random", seed).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 20


def test_empty_clusters_restart_from_the_frames_described_worst():
    features = torch.cat([torch.zeros(10, 2), torch.ones(10, 2), torch.full((1, 2), 50.0)])
    features[:20] += 0.01 * noise(20, 2)
    index = scene_selection._flat_index(features)
    same = features[[0, 0, 0]].double()  # two of the three clusters start without a member
    _, _, labels = scene_selection._cluster(index, features, same, torch.tensor(1e-3))
    assert len(labels.unique()) == 3
    assert (labels == labels[20]).sum() == 1


def test_a_tie_for_the_centroid_goes_to_the_earlier_frame():
    # Two frames are always equally near to their mean, whatever float32 makes of it.
    for seed in range(50):
        pairs = 100 * torch.eye(4, 32).repeat_interleave(2, 0) + noise(8, 32, seed)
        assert select_scenes(pairs, 4, 1)[:, 0].tolist() == [0, 2, 4, 6]


def test_equal_frames_tie_to_the_earlier_one_wherever_they_lie():
    distinct = video(40, 1152)
    repeated = distinct[torch.arange(4400) % 40]
    scenes = select_scenes(repeated, 12, 3)
    assert (scenes[:, -1] < 40).all()
    long_history = torch.cat([distinct[:1].expand(3000, -1), 2 * distinct[:1], distinct[1:2]])
    assert select_scenes(long_history, 2, 3).tolist() == [[0, 0, 0], [1, 2, 3000]]


def test_parallel_features_tie_in_similarity():
    direction = noise(1, 64)
    features = torch.cat([direction * scale for scale in (1.1, 0.7, 1.3, 0.9)] + [direction * 90, -direction])
    scenes = scene_selection._supplement(features, features.norm(dim=1), torch.tensor([4, 5]), 2, most_similar=True)
    assert scenes.tolist() == [[0, 1, 4], [5, 5, 5]]


@pytest.mark.parametrize("most_similar", [True, False])
def test_similarities_too_close_for_float32_are_compared_in_float64(most_similar):
    features = noise(400, 256) + 300
    representatives = torch.tensor([150, 151, 399])
    scenes = scene_selection._supplement(features, features.norm(dim=1), representatives, 4, most_similar)
    assert scenes.tolist() == naive_supplement(features.numpy(), representatives.tolist(), 4, most_similar)


def test_the_history_of_the_first_representative_begins_at_frame_0():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.5], [1.0, 0.05], [1.0, 0.0], [0.0, 1.0]])
    scenes = scene_selection._supplement(features, features.norm(dim=1), torch.tensor([3, 4]), 2, most_similar=True)
    assert scenes.tolist() == [[0, 2, 3], [4, 4, 4]]


def test_a_short_history_repeats_the_representative():
    features = noise(9)
    scenes = scene_selection._supplement(features, features.norm(dim=1), torch.tensor([0, 2, 8]), 3, most_similar=True)
    assert scenes[0].tolist() == [0, 0, 0, 0]
    assert scenes[1].tolist() == [1, 2, 2, 2]
    assert len(set(scenes[2].tolist())) == 4


def test_frames_after_the_last_representative_are_unused():
    for seed in range(5):
        scenes = select_scenes(video(200, seed=seed), 8, 4)
        assert scenes.max() == scenes[-1, -1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 31, 32, 33, 95, 200])
def test_the_number_of_scenes_depends_on_the_number_of_frames_alone(method, num_frames):
    for features in (noise(num_frames), video(num_frames), torch.ones(num_frames, 4), torch.zeros(num_frames, 4)):
        scenes = select_scenes(features, 32, 3, method)
        assert scenes.shape == (min(32, num_frames), 3) == (num_selected_scenes(num_frames, 32), 3)
        assert scenes.dtype == torch.int64 and scenes.device.type == "cpu"
        assert scenes.min() >= 0 and scenes.max() < num_frames
        assert (scenes.diff(dim=1) >= 0).all()
        last = scenes[:, -1].diff()
        assert (last >= 0).all() if method == "uniform" else (last > 0).all()


def test_a_still_picture_spreads_its_scenes_over_the_frames():
    assert select_scenes(torch.ones(100, 8), 4, 3)[:, -1].tolist() == [0, 17, 50, 83]
    two_slides = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat_interleave(50, 0)
    assert select_scenes(two_slides, 4, 1)[:, 0].tolist() == [0, 25, 50, 75]


def test_rows_of_equal_sums_are_still_distinct():
    features = torch.tensor([[3.0, 0.0], [0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0]])
    assert select_scenes(features, 4, 1)[:, 0].tolist() == [0, 1, 2, 3]


def test_uniform_thins_the_pool_evenly_to_consecutive_scenes():
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
def test_bipartite_matching_keeps_the_frames_on_the_most_similar_edges(scene_size):
    for seed, num_frames in enumerate((5, 16, 61, 160, 200)):
        features = video(num_frames, seed=seed)
        scenes = select_scenes(features, 5, scene_size, "bsm")
        assert scenes.tolist() == naive_bipartite(features.numpy(), 5, scene_size)


def test_dissimilar_scenes_differ_from_similar_ones_but_share_their_representatives():
    features = video(200)
    similar, dissimilar = (select_scenes(features, 8, 3, method) for method in ("kmeans", "kmeans_dissimilar"))
    assert torch.equal(similar[:, -1], dissimilar[:, -1])
    assert not torch.equal(similar, dissimilar)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_other_precisions_are_clustered_in_float32(dtype, method):
    features = video(150).to(dtype)
    assert torch.equal(select_scenes(features, 8, 3, method), select_scenes(features.float(), 8, 3, method))


def test_features_may_be_a_view_that_requires_grad_and_stay_as_they_are():
    features = video(300)
    strided = features.repeat(1, 2).T.contiguous().T[:, :48].requires_grad_()
    before = strided.detach().clone()
    assert torch.equal(select_scenes(strided, 8, 3), select_scenes(features, 8, 3))
    assert torch.equal(strided, before)


@pytest.mark.parametrize("init", INITS)
def test_equal_features_give_equal_scenes_whatever_the_threads_and_the_global_seed(init):
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


def test_frames_nearly_between_two_centroids_go_to_the_nearer_one():
    # Closer to the middle than float32's distances tell: another number of threads would assign them otherwise.
    centroids = noise(4, 256).double()
    sides = torch.arange(200) % 2
    middle = (centroids[0] + centroids[1]) / 2
    step = (centroids[1] - centroids[0]) * 1e-8
    features = (middle + torch.where(sides[:, None] == 1, step, -step)).float()
    exact = (features.double()[:, None] - centroids).square().sum(2).argmin(1)
    index = scene_selection._flat_index(features)
    slack = 4e-6 * features.square().sum(1).max()
    assert torch.equal(scene_selection._assign(index, features, centroids, slack)[1], exact)
    assert not torch.equal(scene_selection._assign(index, features, centroids, torch.tensor(-1.0))[1], exact)


def test_the_seed_changes_the_start():
    features = noise(400)
    assert not torch.equal(select_scenes(features, 16, 3, seed=1), select_scenes(features, 16, 3, seed=2))


@pytest.mark.parametrize("init", INITS)
def test_a_large_common_offset_changes_no_scene(init):
    # Of features this wide FAISS takes distances from norms and products, of which an offset leaves rounding alone.
    features = (64 * video(400, 1152)).round() / 64  # exact in float32 with and without the offset
    representatives = select_scenes(features, 10, 1, init=init)
    assert torch.equal(select_scenes(features + 1e5, 10, 1, init=init), representatives)


def test_features_are_copied_to_their_mean_only_where_they_have_a_large_part_in_common():
    features = noise(300, 64)
    norms = features.norm(dim=1)
    assert scene_selection._centre(features, norms)[0] is features
    centred, smaller = scene_selection._centre(features + 5, (features + 5).norm(dim=1))
    assert smaller.median() < 1.1 * norms.median() < (features + 5).norm(dim=1).median() / 2
    torch.testing.assert_close(smaller, centred.norm(dim=1))


def test_no_frame_is_left_out_of_the_clustering_and_nothing_is_printed(capfd):
    # FAISS by itself takes 256 training points a centroid, and warns below 39: here 1,200 and 2.5.
    many = torch.cat([noise(2399, 8), torch.full((1, 8), 1e4)])
    assert 2399 in select_scenes(many, 2, 1)
    select_scenes(noise(80), 32, 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_scenes": 0}, "`num_scenes` must be at least 1, but is 0"),
        ({"scene_size": -2}, "`scene_size` must be at least 1, but is -2"),
        ({"method": "k-means"}, "Unknown method 'k-means'.*kmeans, kmeans_dissimilar, uniform, bsm"),
        ({"init": "best"}, "Unknown init 'best'.*k-means\\+\\+, random"),
        ({"features": torch.ones(3, 4, 5)}, r"\(num_candidates, dim\).*\(3, 4, 5\)"),
        ({"features": torch.ones(5)}, r"\(num_candidates, dim\).*\(5,\)"),
        ({"features": torch.ones(0, 5)}, r"at least one frame.*\(0, 5\)"),
        ({"features": torch.ones(5, 0)}, r"\(5, 0\)"),
        ({"features": torch.ones(5, 4, dtype=torch.int64)}, "floating point.*torch.int64"),
    ],
)
def test_arguments_out_of_range_are_refused_with_their_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        select_scenes(**{"features": noise(9), "num_scenes": 3, "scene_size": 3, **arguments})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_features_that_are_not_finite_are_refused_with_their_frames(method, bad):
    features = noise(50)
    features[7, 3] = features[9, 0] = bad
    with pytest.raises(ValueError, match=r"in 2 of 50 frames .*frame 7"):
        select_scenes(features, 4, 3, method)


def test_numpy_arrays_still_work_in_faiss():
    select_scenes(noise(60), 8, 3)
    array = noise(20).numpy()
    index = faiss.IndexFlatL2(array.shape[1])
    index.add(array)
    distances, labels = index.search(array, 1)
    assert isinstance(labels, np.ndarray) and labels[:, 0].tolist() == list(range(20))
    np.testing.assert_allclose(distances, 0, atol=1e-4)
    assert faiss.Kmeans(24, 2, min_points_per_centroid=1).train(array) > 0


def test_without_faiss_the_module_imports_and_only_k_means_asks_for_it():
    program = (
        "import sys; sys.modules['faiss'] = None\n"
        "import torch\n"
        "from scene_selection_fila_video import select_scenes\n"
        "for method in ('uniform', 'bsm'): select_scenes(torch.rand(9, 4), 2, 3, method)\n"
        "try: select_scenes(torch.rand(9, 4), 2, 3)\n"
        "except ImportError as error: sys.exit(str(error))\n"
    )
    folder = Path(scene_selection.__file__).parent
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120)
    assert "fila-video[cpu]" in result.stderr and "fila-video[gpu]" in result.stderr, result.stderr


class Videos(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, item):
        return select_scenes(video(1200, 256, seed=item), 16, 3), faiss.omp_get_max_threads()


def test_a_forked_worker_of_a_data_loader_selects_as_its_parent_did():
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


def test_faiss_runs_on_one_thread_in_a_forked_process_and_nowhere_else():
    def child(queue):
        with scene_selection._one_thread_in_workers():
            queue.put(faiss.omp_get_max_threads())
        queue.put(faiss.omp_get_max_threads())

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        with scene_selection._one_thread_in_workers():
            assert faiss.omp_get_max_threads() == 2
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        process.join(20)
        assert process.exitcode == 0
        assert [queue.get(), queue.get()] == [1, 2]
    finally:
        faiss.omp_set_num_threads(threads)


@pytest.mark.skipif(
    not torch.cuda.is_available() or faiss.get_num_gpus() == 0, reason="needs a GPU and FAISS with GPU support"
)
@pytest.mark.parametrize("init", INITS)
def test_a_gpu_selects_the_scenes_of_the_cpu_and_keeps_the_features(init, monkeypatch):
    searched = []
    search = scene_selection._search
    monkeypatch.setattr(
        scene_selection, "_search", lambda *args: (searched.append(args[1].device.type), search(*args))[1]
    )
    features = video(2000, 256)
    on_gpu = select_scenes(features.cuda(), 32, 3, init=init)
    assert set(searched) == {"cuda"} and on_gpu.device.type == "cpu"
    assert torch.equal(on_gpu, select_scenes(features, 32, 3, init=init))
