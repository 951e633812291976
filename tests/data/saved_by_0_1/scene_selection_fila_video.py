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
_CHUNK = 96  # rows copied to float64 at a time: small copies stay in the processor's cache and are not mapped anew
_ROUNDING = 4e-6  # two squared distances of FAISS are in doubt within this share of the largest squared norm
_TIE = 1e-9  # relative difference up to which two float64 distances are equal, far above their rounding
_DECIMALS = 12  # of a float64 cosine similarity, so that parallel features tie


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
    norms = _check_values(features)
    num_scenes = num_selected_scenes(len(features), num_scenes)
    if method == "uniform":
        return _evenly_spaced(len(features), num_scenes * scene_size).view(num_scenes, scene_size)
    if method == "bsm":
        return _bipartite_scenes(features.cpu(), num_scenes, scene_size)
    _require_faiss()
    if not (features.is_cuda and faiss.get_num_gpus() > 0):
        features, norms = features.cpu(), norms.cpu()
    representatives = _representatives(features.contiguous(), norms, num_scenes, init, seed)
    return _supplement(features, norms, representatives, scene_size - 1, most_similar=method == "kmeans").cpu()


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
    """The norms (N,) of features that can be used."""
    norms = torch.linalg.vector_norm(features, dim=1)
    usable = norms.square().isfinite()
    if not usable.all():
        frames = (~usable).nonzero().flatten()
        raise ValueError(
            f"`features` hold NaN, infinity or values too large to square in {len(frames)} of {len(features)} frames "
            f"(the first is frame {frames[0].item()}): check the encoder's output."
        )
    return norms


def _require_faiss():
    if faiss is None:
        raise ImportError(
            "Scene selection by k-means needs FAISS: install it with `pip install fila-video[cpu]` or, for features "
            "on a GPU, `pip install fila-video[gpu]`."
        )


def _representatives(features, norms, num_scenes, init, seed):
    """Indices (num_scenes,) of the frames that stand for the clusters, ascending (eq. 2-4)."""
    found = _distinct_frames(features, norms, num_scenes)
    if found is None:  # more distinct features than clusters
        features, norms = _centre(features, norms)
        slack = _ROUNDING * norms.max().square()
        with _one_thread_in_workers():
            index = _flat_index(features)
            first = _initial_frames(index, features, num_scenes, init, seed)
            clusters = _cluster(index, features, features[first].double(), slack)
        found = _nearest_members(features, *clusters, slack)
    return _fill_evenly(found, num_scenes, len(features))


def _centre(features, norms):
    """
    The features about their mean and their norms (N,), if some of them show that all have a large part in common: that
    moves the clusters only, and leaves float32 less to round. Else as they are: a copy takes as long as a search.
    """
    some = features[:: max(len(features) // 64, 1)].double()
    mean = some.mean(0)
    if 2 * _norms(some - mean).median() > _norms(some).median():
        return features, norms
    features = features - mean.float()
    return features, torch.linalg.vector_norm(features, dim=1)


def _distinct_frames(features, norms, limit):
    """The first frame of each distinct feature where these number at most `limit`, else None."""
    # Equal rows have equal norms and sums, so there are at least as many features.
    if len(norms.unique()) > limit or len(features.sum(1).unique()) > limit:
        return None
    distinct, members = features.unique(dim=0, return_inverse=True)
    return _first(members, len(distinct)) if len(distinct) <= limit else None


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


def _search(index, features, centroids, count=1):
    """Squared distances (N, count) to the nearest of `centroids` in float32, and their numbers (N, count)."""
    index.reset()
    with torch.cuda.device_of(features):
        index.add(centroids)
        return index.search(features, count)


def _assign(index, features, centroids, slack):
    """
    Squared distance (N,) to the nearest of `centroids` (float64) and its number (N,), eq. 2. FAISS's last bits depend
    on the device and the number of threads: where the second nearest is within `slack`, float64 decides.
    """
    distances, labels = _search(index, features, centroids.float(), min(2, len(centroids)))
    close = (distances[:, -1] - distances[:, 0] <= slack).nonzero().flatten()
    if len(close):
        pairs = labels[close].sort(dim=1).values  # the lower number wins a tie
        rows = features[close]
        exact = [_squared_distances(rows, centroids, numbers) for numbers in pairs.unbind(1)]
        labels[close, 0] = torch.where(exact[-1] * (1 + _TIE) < exact[0], pairs[:, -1], pairs[:, 0])
    return distances[:, 0], labels[:, 0]


def _squared_distances(features, centroids, labels):
    """Squared distance (N,) of each feature to the centroid that its label names, in float64 and row by row."""
    return _by_rows(lambda rows, partners: partners.sub_(rows).square_().sum(1), features, centroids, labels)


def _by_rows(function, features, partners, labels):
    """`function` of the rows of `features` and the one of `partners` each label names, float64, chunk by chunk."""
    chunks = zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True)
    return torch.cat([function(rows.double(), partners[row_labels]) for rows, row_labels in chunks])


def _initial_frames(index, features, count, init, seed):
    """
    Indices (count,) of the frames that k-means starts from: random ones, or by k-means++, which draws each with a
    probability proportional to its squared distance to the nearest one before. To pass over the features only a few
    times, draws are made several at once and kept with the probability by which the kept ones among them reduced that
    distance, which comes to the same distribution.
    """
    generator = torch.Generator().manual_seed(seed)
    num_frames = len(features)
    if init == "random":
        return torch.randperm(num_frames, generator=generator)[:count].to(features.device)
    new = chosen = torch.randint(num_frames, (1,), generator=generator).to(features.device)
    squared = torch.full((num_frames,), torch.inf, device=features.device)
    while len(chosen) < count:
        squared = torch.minimum(squared, _search(index, features, features[new])[0][:, 0])
        num_draws = min(len(chosen), count - len(chosen))
        # A draw is a race that the largest distance / Exp(1) wins. Unlike a search in cumulated probabilities, it does
        # not turn on the last bits of a distance, which differ between devices.
        times = torch.rand(num_draws, num_frames, generator=generator).log_().neg_()
        drawn = (squared / times.to(features.device)).argmax(1)
        needed = (squared[drawn].cpu() * torch.rand(num_draws, generator=generator)).tolist()
        rows = features[drawn]
        apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square().tolist()
        kept = []
        for draw in range(num_draws):
            if all(apart[draw][other] > needed[draw] for other in kept):
                kept.append(draw)
        new = drawn[kept]
        chosen = torch.cat([chosen, new])
    return chosen


def _cluster(index, features, centroids, slack):
    """
    Lloyd's iterations of eq. 2 and 3 from the initial `centroids`: the last centroids (count, dim) in float64, and of
    each frame the squared distance (N,) to the nearest of them and its number (N,). From one iteration to the next,
    the sums of eq. 3 follow the frames that change their cluster.
    """
    sums = torch.zeros_like(centroids)
    distances, labels = _assign(index, features, centroids, slack)
    _move(sums, features, labels)
    for _ in range(MAX_ITERATIONS):
        sizes = labels.bincount(minlength=len(centroids))
        centroids = sums / sizes[:, None]
        empty = (sizes == 0).nonzero().flatten()
        if len(empty):  # restart them from the frames that their centroids describe worst
            centroids[empty] = features[distances.argsort(descending=True, stable=True)[: len(empty)]].double()
        previous = labels
        distances, labels = _assign(index, features, centroids, slack)
        changed = (labels != previous).nonzero().flatten()
        if len(changed) == 0:
            break
        _move(sums, features[changed], labels[changed], previous[changed])
    return centroids, distances, labels


def _move(sums, features, labels, previous=None):
    """Add each row of `features` to that of `sums` (float64) which its label names, and take it from the previous."""
    for start in range(0, len(features), _CHUNK):
        rows = features[start : start + _CHUNK].double()
        _add(sums, labels[start : start + _CHUNK], rows)
        if previous is not None:
            _add(sums, previous[start : start + _CHUNK], rows.neg_())


def _add(sums, labels, rows):
    if sums.is_cuda:  # sorts, where `index_add_` would add in any order
        sums.index_put_((labels,), rows, accumulate=True)
    else:
        sums.index_add_(0, labels, rows)


def _nearest_members(features, centroids, distances, labels, slack):
    """
    The frame nearest to each centroid among its members, the earlier where they are equally near; none for a cluster
    without members. Those which may be it by FAISS's float32 `distances` are compared in float64, so that equal frames
    are equally near, and the two of a pair.
    """
    near = (distances <= _smallest(distances, labels, len(centroids))[labels] + 2 * slack).nonzero().flatten()
    labels = labels[near]
    distances = _squared_distances(features[near], centroids, labels)
    nearest = (distances <= _smallest(distances, labels, len(centroids))[labels] * (1 + _TIE)).nonzero().flatten()
    return near[nearest[_first(labels[nearest], len(centroids))]]


def _smallest(values, labels, count):
    return values.new_full((count,), torch.inf).scatter_reduce_(0, labels, values, "amin")


def _first(labels, count):
    """Position of the first of each label that occurs, in the order of the labels."""
    positions = torch.arange(len(labels), device=labels.device)
    first = torch.full((count,), len(labels), device=labels.device).scatter_reduce_(0, labels, positions, "amin")
    return first[first < len(labels)]


def _supplement(features, norms, representatives, count, most_similar):
    """
    Scenes (num_scenes, count + 1): each representative after the `count` frames of its history, the frames since the
    representative before, that are most (or least) similar to it (eq. 5 and 6). Ties go to the earlier frame.
    """
    frames = torch.arange(representatives[-1].item() + 1, device=features.device)
    scenes = torch.searchsorted(representatives, frames)
    scores = _rough_cosines(features, norms, representatives, scenes) * (1 if most_similar else -1)
    scores[representatives] = -torch.inf
    best, _ = _best(scores, scenes, count)
    least = _smallest(scores[best], scenes[best], len(representatives))
    rounding = (features.shape[1] + 4) * torch.finfo(scores.dtype).eps  # of `dim` products and of two norms, at most
    near = ((scores >= least[scenes] - 2 * rounding) & scores.isfinite()).nonzero().flatten()  # float64 decides
    scores = _cosines(features[near], features[representatives], scenes[near]) * (1 if most_similar else -1)
    best, ranks = _best(scores, scenes[near], count)
    result = representatives[:, None].repeat(1, count + 1)
    result[scenes[near[best]], ranks] = near[best]
    return result.sort(dim=1).values


def _best(scores, scenes, count):
    """Positions of the `count` largest `scores` of each scene and their ranks; `scenes` ascend, ties stay in order."""
    order = scores.argsort(descending=True, stable=True)
    order = order[scenes[order].argsort(stable=True)]
    ranks = torch.arange(len(order), device=order.device) - torch.searchsorted(scenes, scenes)
    return order[ranks < count], ranks[ranks < count]


def _rough_cosines(features, norms, representatives, scenes):
    """Cosine similarity, in float32, of each feature up to the last representative and its scene's representative."""
    norms = norms.clamp(min=torch.finfo(features.dtype).tiny)
    bounds = itertools.pairwise([0, *(representatives + 1).tolist()])
    products = torch.cat([features[start:end] @ features[end - 1] for start, end in bounds])
    return products / norms[: len(scenes)] / norms[representatives[scenes]]


def _cosines(features, partners, labels):
    """Cosine similarity (N,) of each feature and its partner (eq. 5) in float64; 0 for a feature of zeros."""
    partners = _normalized(partners)
    similarities = _by_rows(
        lambda rows, others: others.mul_(rows).sum(1) / _norms(rows)[:, 0], features, partners, labels
    )
    return similarities.round(decimals=_DECIMALS)


def _normalized(features):
    features = features.double()
    return features / _norms(features)


def _norms(features):
    return torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)


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
    best = (even @ odd.T).round(decimals=_DECIMALS).sort(dim=1, descending=True, stable=True)
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
