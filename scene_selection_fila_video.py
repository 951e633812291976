"""Scene selection: which frames of a video's candidate pool become scenes (paper 3.1, eq. 2-6, and supplement B).

Pure functions on one feature a frame. A scene is `scene_size` frame indices in chronological order; with k-means its
last one is the representative, the frame that stands for a cluster, and the others come from the frames before it.
"""

import contextlib
import itertools
import os

import torch

try:  # FAISS comes by extra: `faiss-cpu` and `faiss-gpu` install the same module
    import faiss
    import faiss.contrib.torch_utils  # indexes then take torch tensors as well as numpy arrays
except ImportError:
    faiss = None


METHODS = ("kmeans", "kmeans_dissimilar", "uniform", "bsm")
INITS = ("k-means++", "random")

# FAISS's own default. Lloyd's steps stop earlier where no frame changes its cluster any more, as most videos do.
MAX_ITERATIONS = 25

_IMPORT_PID = os.getpid()
_CHUNK = 256  # rows computed in float64 at a time: the copies stay within a core's cache
_TIE = 1e-9  # relative difference of two float64 distances under which they are equal: far above their rounding


def num_selected_scenes(num_candidates, num_scenes):
    """Number of scenes that [`select_scenes`] returns for a pool of `num_candidates` frames, whatever they show."""
    return min(num_scenes, num_candidates)


@torch.no_grad()
def select_scenes(features, num_scenes, scene_size, method="kmeans", *, init="k-means++", seed=42):
    """
    Choose the scenes of a video (eq. 2-6; supplement B for `bsm`). Equal arguments give equal scenes.

    Args:
        features (`torch.Tensor` of shape `(num_candidates, dim)`):
            One feature a candidate frame in the order of time (eq. 1), of a floating dtype, on any device. They are
            clustered in float32, on their own GPU where FAISS has GPU support and otherwise on the CPU.
        num_scenes (`int`):
            Scenes wanted; a pool with fewer frames gives one scene a frame.
        scene_size (`int`):
            Frames in a scene, the representative among them (r + 1 in the paper).
        method (`str`):
            - `"kmeans"`: cluster, then supplement each representative with the most similar frames of its history.
            - `"kmeans_dissimilar"`: the same with the least similar frames (Table 2).
            - `"uniform"`: frames spaced evenly from the first to the last, every `scene_size` of them a scene.
            - `"bsm"`: in each of `num_scenes` equal segments, the frames on the most similar edges between its even
              and its odd frames (supplement B).
        init (`str`):
            Initial centroids of k-means: `"k-means++"`, or `"random"` frames as in the paper.
        seed (`int`):
            Seed of the initial centroids; no global random state is read or changed.

    Returns:
        `torch.LongTensor` of shape `(min(num_scenes, num_candidates), scene_size)`, on the CPU: indices into the pool,
        chronological within each scene. Where a scene finds fewer frames, its last one is repeated.

    Raises:
        ValueError: for arguments out of range, an unknown method or init, no frames or features not finite.
        ImportError: if k-means is asked for and FAISS is not installed.
    """
    _check_arguments(features, num_scenes, scene_size, method, init)
    if features.dtype != torch.float32:
        features = features.float()
    _check_values(features)
    num_scenes = num_selected_scenes(len(features), num_scenes)
    if method == "uniform":
        return _evenly_spaced(len(features), num_scenes * scene_size).view(num_scenes, scene_size)
    if method == "bsm":
        return _bipartite_scenes(features.cpu(), num_scenes, scene_size)
    _require_faiss()
    if not (features.is_cuda and faiss.get_num_gpus() > 0):
        features = features.cpu()
    representatives = _representatives(features.contiguous(), num_scenes, init, seed)
    return _supplement(features, representatives, scene_size - 1, most_similar=method == "kmeans").cpu()


def _check_arguments(features, num_scenes, scene_size, method, init):
    for name, value, known in (("method", method, METHODS), ("init", init, INITS)):
        if value not in known:
            raise ValueError(f"Unknown {name} {value!r} of scene selection: use one of {', '.join(known)}.")
    for name, value in (("num_scenes", num_scenes), ("scene_size", scene_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, but is {value}.")
    if features.ndim != 2 or not features.is_floating_point() or 0 in features.shape:
        raise ValueError(
            "`features` must be floating point of shape (num_candidates, dim) with at least one frame, but is "
            f"{features.dtype} of shape {tuple(features.shape)}."
        )


def _check_values(features):
    norms = torch.linalg.vector_norm(features, dim=1)
    usable = norms.square().isfinite()
    if not usable.all():
        frames = (~usable).nonzero().flatten()
        raise ValueError(
            f"`features` hold NaN, infinity or values too large to square in {len(frames)} of {len(features)} frames "
            f"(the first is frame {frames[0].item()}): check the encoder's output."
        )


def _require_faiss():
    if faiss is None:
        raise ImportError(
            "Scene selection by k-means needs FAISS: install it with `pip install fila-video[cpu]` or, for features "
            "on a GPU, `pip install fila-video[gpu]`."
        )


def _representatives(features, num_scenes, init, seed):
    """Indices (num_scenes,) of the frames that stand for the clusters, ascending (eq. 2-4)."""
    found = _distinct_frames(features, num_scenes)
    if found is None:  # more distinct features than clusters
        with _one_thread_in_workers():
            index = _flat_index(features)
            first = _initial_frames(index, features, num_scenes, init, seed)
            labels = _cluster(index, features, features[first])
        found = _nearest_to_centroids(features, labels, num_scenes)
    return _fill_evenly(found, num_scenes, len(features))


def _distinct_frames(features, limit):
    """The first frame of each distinct feature where these number at most `limit`, else None."""
    if len(features.sum(1).unique()) > limit:  # equal rows have equal sums, so there are at least as many features
        return None
    distinct, members = features.unique(dim=0, return_inverse=True)
    return _first_frames(members, len(distinct)) if len(distinct) <= limit else None


def _first_frames(labels, num_labels):
    frames = torch.arange(len(labels), device=labels.device)
    first = torch.full((num_labels,), len(labels), device=labels.device)
    return first.scatter_reduce_(0, labels, frames, "amin")


def _fill_evenly(found, count, num_frames):
    """Add to the frames `found` those that are missing to `count`, spread evenly over the unused ones; ascending."""
    missing = count - len(found)
    used = torch.zeros(num_frames, dtype=torch.bool, device=found.device)
    used[found] = True
    if missing:
        unused = (~used).nonzero().flatten()
        used[unused[(2 * torch.arange(missing, device=found.device) + 1) * len(unused) // (2 * missing)]] = True
    return used.nonzero().flatten()


@contextlib.contextmanager
def _one_thread_in_workers():
    """Run FAISS on one thread in a data loader's worker or a forked process, where its OpenMP threads would hang."""
    if torch.utils.data.get_worker_info() is None and os.getpid() == _IMPORT_PID:
        yield
        return
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _flat_index(features):
    """An empty index on the device of `features`, to search the nearest of a few centroids."""
    if not features.is_cuda:
        return faiss.IndexFlatL2(features.shape[1])
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(64 << 20)  # the default takes 1.5 GB of the model's memory
    config = faiss.GpuIndexFlatConfig()
    config.device = features.device.index
    return faiss.GpuIndexFlatL2(resources, features.shape[1], config)


def _nearest(index, features, centroids):
    """Squared distance (N,) to the nearest of `centroids` and its number (N,), eq. 2."""
    index.reset()
    with torch.cuda.device_of(features):
        index.add(centroids)
        distances, labels = index.search(features, 1)
    return distances.squeeze(1), labels.squeeze(1)


def _initial_frames(index, features, count, init, seed):
    """
    Indices (count,) of the frames that k-means starts from. k-means++ draws each with a probability proportional to
    its squared distance to those before. The draw is a race: the frame with the largest distance / Exp(1) wins, which
    unlike a search in cumulated probabilities does not turn on the last bits of a distance.
    """
    generator = torch.Generator().manual_seed(seed)
    num_frames = len(features)
    if init == "random":
        return torch.randperm(num_frames, generator=generator)[:count].to(features.device)
    times = -torch.rand(count, num_frames, generator=generator).log().to(features.device)
    chosen = [times[0].argmin()]
    closest = torch.full((num_frames,), torch.inf, device=features.device)
    for time in times[1:]:
        closest = torch.minimum(closest, _nearest(index, features, features[chosen[-1]][None])[0])
        chosen.append((closest / time).argmax())
    return torch.stack(chosen)


def _cluster(index, features, centroids):
    """Lloyd's iterations of eq. 2 and 3 from the initial `centroids`: the number of each frame's cluster (N,)."""
    labels = None
    for _ in range(MAX_ITERATIONS):
        previous = labels
        distances, labels = _nearest(index, features, centroids)
        if previous is not None and torch.equal(labels, previous):
            break
        centroids = _means(features, labels, len(centroids))
        empty = (labels.bincount(minlength=len(centroids)) == 0).nonzero().flatten()
        if len(empty):  # restart them from the frames that their centroids describe worst
            centroids[empty] = features[distances.argsort(descending=True, stable=True)[: len(empty)]]
    return labels


def _means(features, labels, count):
    """Mean feature (count, dim) of each cluster (eq. 3); zero for one without members."""
    sums = features.new_zeros(count, features.shape[1])
    if features.is_cuda:  # sorts where `index_add_` would add in any order
        sums.index_put_((labels,), features, accumulate=True)
    else:
        sums.index_add_(0, labels, features)
    return sums / labels.bincount(minlength=count).clamp(min=1)[:, None]


def _nearest_to_centroids(features, labels, count):
    """
    The member nearest to the centroid of each cluster that has one, the earlier where they are equally near. In
    float64 and row by row, so that equal frames, and the two of a pair, are equally near.
    """
    sums = torch.zeros(count, features.shape[1], dtype=torch.float64, device=features.device)
    for rows, row_labels in zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True):
        sums += _means(rows.double(), row_labels, count) * row_labels.bincount(minlength=count)[:, None]
    centroids = sums / labels.bincount(minlength=count).clamp(min=1)[:, None]
    distances = torch.cat(
        [
            (rows - centroids[row_labels]).square().sum(1)
            for rows, row_labels in zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True)
        ]
    )
    smallest = distances.new_full((count,), torch.inf).scatter_reduce_(0, labels, distances, "amin")
    is_nearest = (distances <= smallest[labels] * (1 + _TIE)).nonzero().flatten()
    first = _first_frames(labels[is_nearest], count)
    return is_nearest[first[first < len(is_nearest)]]


def _supplement(features, representatives, count, most_similar):
    """
    Scenes (num_scenes, count + 1): each representative after the `count` frames of its history, the frames since the
    representative before, that are most (or least) similar to it (eq. 5 and 6). Ties go to the earlier frame.
    """
    frames = torch.arange(representatives[-1].item() + 1, device=features.device)
    frames = frames[~torch.isin(frames, representatives)]
    scenes = torch.searchsorted(representatives, frames)
    similarities = _cosine(features, frames, representatives[scenes])
    order = similarities.argsort(descending=most_similar, stable=True)
    order = order[scenes[order].argsort(stable=True)]  # by scene, and within a scene by similarity
    frames, scenes = frames[order], scenes[order]
    ranks = torch.arange(len(frames), device=frames.device) - torch.searchsorted(scenes, scenes)
    kept = ranks < count
    result = representatives[:, None].repeat(1, count + 1)
    result[scenes[kept], ranks[kept]] = frames[kept]
    return result.sort(dim=1).values


def _cosine(features, left, right):
    """Cosine similarity (num_pairs,) of the frames `left` and `right` (eq. 5), float64; 0 for a feature of zeros."""
    similarities = [features.new_zeros(0, dtype=torch.float64)]
    for a, b in zip(left.split(_CHUNK), right.split(_CHUNK), strict=True):
        similarities.append((_normalized(features[a]) * _normalized(features[b])).sum(1))
    return torch.cat(similarities).round(decimals=12)  # beyond their rounding, so that parallel features tie


def _normalized(features):
    features = features.double()
    return features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-300)


def _evenly_spaced(num_frames, count):
    """Indices (count,) evenly spaced from frame 0 to the last, rounded; frames repeat where `count` is more."""
    steps = max(count - 1, 1)
    return (2 * torch.arange(count) * (num_frames - 1) + steps) // (2 * steps)


def _bipartite_scenes(features, num_scenes, scene_size):
    """Scenes by bipartite soft matching (supplement B): each from one of `num_scenes` consecutive equal segments."""
    bounds = [scene * len(features) // num_scenes for scene in range(num_scenes + 1)]
    scenes = []
    for start, end in itertools.pairwise(bounds):
        kept = sorted(_most_similar_pairs(_normalized(features[start:end]), scene_size))
        scenes.append([start + frame for frame in kept + kept[-1:] * (scene_size - len(kept))])
    return torch.tensor(scenes)


def _most_similar_pairs(features, count):
    """
    The `count` frames (fewer if there are not as many) on the most similar edges between even and odd frames. Each
    even frame draws as many edges as could fill the scene alone. Of an edge, the even frame enters first.
    """
    even, odd = features[::2], features[1::2]
    if len(odd) == 0:
        return [0]
    best = (even @ odd.T).round(decimals=12).sort(dim=1, descending=True, stable=True)
    width = min(count, len(odd))
    order = best.values[:, :width].flatten().argsort(descending=True, stable=True).tolist()
    partners = best.indices[:, :width].flatten().tolist()
    kept = {}  # a set in the order of entering
    for edge in order:
        for frame in (2 * (edge // width), 2 * partners[edge] + 1):
            if len(kept) == count:
                return list(kept)
            kept[frame] = None
    return list(kept)


__all__ = ["INITS", "MAX_ITERATIONS", "METHODS", "num_selected_scenes", "select_scenes"]
