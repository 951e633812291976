"""
Scene selection: which frames of a video's candidate pool become scenes (paper 3.1, eq. 2-6, and supplement B).

Pure functions on one feature per frame. A scene is `scene_size` frame indices in chronological order. Most methods
first choose representatives; each of these then ends a scene, whose other frames come from the frames before it.

Decisions are taken in float64 on rounded values, so that ties go to the earlier frame whatever the number of threads.
FAISS clusters in float32, on one thread: equal features give equal scenes on one kind of device, and on others too,
except where two clusterings are about equally good.
"""

import itertools
import math
from numbers import Integral

import torch

from .cooperative_encoding_fila_video import DECIMALS, event_prototypes, fill_evenly
from .scene_merging_fila_video import float64

METHODS = ("kmeans", "kmeans_dissimilar", "farthest", "prototypes", "uniform", "bsm")
INITS = ("k-means++", "random")

ITERATIONS = 25  # of Lloyd's algorithm at most; FAISS stops when the error no longer falls
RESTARTS = 5  # of k-means: the clustering with the smallest error counts
ALONE = 0.5  # share of its distance that a frame keeps in farthest-point selection where no neighbor in time is as far
TORN = 0.6  # how torn a frame may look, see `_tornness`; and twice as torn as is usual in its video


def num_selected_scenes(num_candidates: int, num_scenes: int) -> int:
    """Number of scenes that [`select_scenes`] returns for a pool of `num_candidates` frames, whatever they show."""
    return min(num_scenes, num_candidates)


@torch.no_grad()
def select_scenes(
    features: torch.Tensor,
    num_scenes: int,
    scene_size: int,
    method: str = "kmeans",
    *,
    init: str = "k-means++",
    seed: int = 42,
    weights: torch.Tensor | None = None,
) -> torch.LongTensor:
    """
    Choose the scenes of a video (eq. 2-6; supplement B for `bsm`). Equal arguments give equal scenes.

    Args:
        features (`torch.Tensor` of shape `(num_candidates, dim)`):
            One feature per candidate frame in the order of time (eq. 1), of a floating dtype, on any device.
            K-means runs on their GPU where FAISS has GPU support, else on the CPU; the other methods run where they
            are.
        num_scenes (`int`):
            Scenes wanted; a pool with fewer frames gives one scene per frame.
        scene_size (`int`):
            Frames in a scene, the representative among them (r + 1 in the paper).
        method (`str`, *optional*, defaults to `"kmeans"`):
            - `"kmeans"`: cluster, then supplement each representative with the most similar frames of its history.
            - `"kmeans_dissimilar"`: the same with the least similar frames (Table 2).
            - `"farthest"`: representatives by greedy farthest-point selection: each is the frame least like those
              chosen before. A frame whose neighbors in time are not as unlike them counts less, so that a flash gives
              way to what lasts for two frames, and so does one with a small weight. Supplements as for k-means.
            - `"prototypes"`: representatives that are dense and far from any denser frame (DPC-KNN, DynFocus).
              Supplements as for k-means.
            - `"uniform"`: frames spaced evenly from the first to the last, every `scene_size` of them a scene.
            - `"bsm"`: in each of `num_scenes` equal segments, the frames on the most similar edges between its even
              and its odd frames (supplement B).
        init (`str`, *optional*, defaults to `"k-means++"`):
            Initial centroids of k-means: `"k-means++"`, or `"random"` frames as in the paper.
        seed (`int`, *optional*, defaults to 42):
            Seed of the initial centroids; no global random state is read or changed.
        weights (`torch.Tensor` of shape `(num_candidates,)`, *optional*):
            For `"farthest"`: how much each frame's distance counts, from 0 to 1; see [`frame_weights`].

    Returns:
        `torch.LongTensor` of shape `(min(num_scenes, num_candidates), scene_size)`, on the CPU: indices into the pool,
        chronological within each scene. Where a scene finds fewer frames, its last one is repeated.

    Raises:
        ValueError: For arguments out of range, an unknown method or init, no frames or features that are not finite.
        ImportError: If k-means is asked for and FAISS is not installed.
    """
    for name, value, known in (("method", method, METHODS), ("init", init, INITS)):
        if value not in known:
            raise ValueError(f"Unknown {name} {value!r} of scene selection: use one of {', '.join(known)}.")
    _check(features, num_scenes=num_scenes, scene_size=scene_size)
    num_frames = len(features)
    if weights is not None and (weights.shape != (num_frames,) or not ((weights >= 0) & (weights <= 1)).all()):
        raise ValueError(
            f"`weights` must hold {num_frames} numbers from 0 to 1, one a frame, but is of shape "
            f"{tuple(weights.shape)}."
        )
    if not isinstance(seed, Integral) or not -(2**31) <= seed < 2**31:
        raise ValueError(f"`seed` must be a whole number of 32 bits, for FAISS takes no other, but is {seed!r}.")
    num_scenes = num_selected_scenes(num_frames, num_scenes)
    if method == "uniform":
        return _evenly_spaced(num_frames, num_scenes * scene_size).view(num_scenes, scene_size)
    features = float64(features)
    if method == "bsm":
        return _bipartite_scenes(features, num_scenes, scene_size)
    # About their mean, since what all frames have in common would cost digits of the distances.
    centered = features - features.mean(0)
    if method == "farthest":
        found = _farthest(centered, num_scenes, ALONE, weights)
    elif method == "prototypes":
        found = event_prototypes(features, num_scenes).tolist()
    else:
        found = _kmeans(centered, num_scenes, init, seed)
    representatives = fill_evenly(found, num_scenes, num_frames)
    return _supplement(features, representatives, scene_size - 1, most_similar=method != "kmeans_dissimilar")


@torch.no_grad()
def scenes_of(features: torch.Tensor, representatives: torch.Tensor, scene_size: int) -> torch.LongTensor:
    """
    The scenes of representatives that something else has chosen: each with the most similar frames of its history
    (eq. 5 and 6), see [`select_scenes`]. `representatives` `(num_scenes,)` are ascending indices of `features`.
    """
    _check(features, scene_size=scene_size)
    return _supplement(float64(features), representatives, scene_size - 1, most_similar=True)


def frame_weights(thumbnails: torch.Tensor) -> torch.Tensor:
    """
    How much each frame deserves to be chosen for being unlike the others, from 0 to 1: black, blank and overexposed
    frames come near 0, and so do torn ones.

    Args:
        thumbnails (`torch.Tensor` of shape `(num_frames, 3 * height * height)`):
            In [0, 1], the channels one by one.

    Returns:
        `torch.Tensor` of shape `(num_frames,)`, float64, on the device of the thumbnails if it has such numbers.
    """
    side = math.isqrt(thumbnails.shape[1] // 3)
    pictures = float64(thumbnails).unflatten(1, (3, side, side))
    # The spread of a frame's colors against what is usual, unless half of the video is of one color.
    spread = pictures.flatten(2).std(dim=2, correction=0).amax(dim=1)
    usual = spread.median()
    detail = (spread / usual).clamp(max=1) if usual > 1 / 255 else torch.ones_like(spread)
    tornness = _tornness(pictures)
    allowed = (2 * tornness.median()).clamp(min=TORN)
    return detail * (allowed / tornness.maximum(allowed)) ** 4


def _tornness(pictures: torch.Tensor) -> torch.Tensor:
    """
    How much a frame looks as if its decoder had lost a part of it, which is a run of rows over most of the width: on
    one side of a horizontal cut the frame is as the one before or the next, and on the other side it is new. A shot of
    its own is new everywhere, an object in some columns, and where everything moves no cut parts old from new.

    Args:
        pictures (`torch.Tensor` of shape `(num_frames, 3, height, width)`): Small frames, in [0, 1].

    Returns:
        `torch.Tensor` of shape `(num_frames,)`: by how much more is new on one side of the best cut than on the other,
        in two thirds of the columns at least, in units of what is new in the whole frame.
    """
    # Bars above and below the picture are never new, whatever the frame shows.
    usual = pictures[:: len(pictures) // 64 + 1].median(dim=0).values
    change = (pictures - usual).abs().mean(dim=(0, 1, 3))
    pictures = pictures[:, :, change > change.max() / 5]
    height = pictures.shape[2]
    if len(pictures) < 3 or height < 4:
        return pictures.new_zeros(len(pictures))
    steps = (pictures[1:] - pictures[:-1]).abs().amax(dim=1)
    new = torch.minimum(torch.cat([steps[:1], steps]), torch.cat([steps, steps[-1:]]))
    sums = new.cumsum(dim=1)
    rows = torch.arange(2, height - 1, device=new.device)[:, None]  # above the cut: two at least, and two below
    above, below = sums[:, 1:-2] / rows, (sums[:, -1:] - sums[:, 1:-2]) / (height - rows)
    more = (below - above).sort(dim=2).values  # by column
    third = more.shape[2] // 3
    return torch.maximum(more[:, :, third], -more[:, :, -1 - third]).amax(dim=1) / (new.mean(dim=(1, 2)) + 1 / 255)


@torch.no_grad()
def thin_pool(features: torch.Tensor, num_frames: int) -> torch.LongTensor:
    """
    The frames of a pool that are worth encoding: `num_frames` of them by farthest-point selection, on features that
    cost little, such as thumbnails. Scenes are then selected among these, on the features of the model.

    Args:
        features (`torch.Tensor` of shape `(num_candidates, dim)`): One feature per frame, on any device.
        num_frames (`int`): Frames to keep; a pool with fewer is kept whole.

    Returns:
        `torch.LongTensor` of shape `(min(num_frames, num_candidates),)`, on the CPU: ascending indices into the pool.

    Raises:
        ValueError: For arguments out of range, no frames or features that are not finite.
    """
    _check(features, num_frames=num_frames)
    if len(features) <= num_frames:
        return torch.arange(len(features))
    features = float64(features)
    # All frames count whole: there is room for junk here, and the selection that follows sees it again.
    return fill_evenly(_farthest(features - features.mean(0), num_frames, 1.0), num_frames, len(features))


def unselected_frames(scenes: torch.Tensor, num_frames: int, count: int) -> torch.LongTensor:
    """
    Of the `num_frames` of a pool those that are in none of the `scenes` `(num_scenes, scene_size)`, `count` of them,
    spread evenly; ascending indices `(count,)`.
    """
    unused = torch.ones(num_frames, dtype=torch.bool)
    unused[scenes.flatten()] = False
    unused = unused.nonzero().flatten()
    return unused[_evenly_spaced(len(unused), count)]


def background_places(scenes: torch.Tensor, frames: torch.Tensor) -> torch.LongTensor:
    """How many of the `scenes` stand before each of `frames`: a scene stands where its representative does."""
    return torch.searchsorted(scenes[:, -1].contiguous(), frames)


def _check(features: torch.Tensor, **counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, but is {value!r}.")
    if features.ndim != 2 or not features.is_floating_point() or 0 in features.shape:
        raise ValueError(
            "`features` must be floating point of shape (num_candidates, dim) with at least one frame, but is "
            f"{features.dtype} of shape {tuple(features.shape)}."
        )
    usable = features.float().square().sum(1).isfinite()
    if not usable.all():
        frames = (~usable).nonzero().flatten()
        raise ValueError(
            f"`features` hold NaN, infinity or values too large to square in {len(frames)} of {len(features)} frames "
            f"(the first is frame {frames[0].item()}): check the encoder's output."
        )


def _kmeans(features: torch.Tensor, count: int, init: str, seed: int) -> list[int]:
    """The frames that stand for the clusters (eq. 2-4): of each, the member nearest to its mean; `count` at most."""
    try:  # FAISS comes by extra, `faiss-cpu` or `faiss-gpu`; a model that serves features needs none
        import faiss
    except ImportError:
        faiss = None
    if not hasattr(faiss, "ClusteringInitMethod_KMEANS_PLUS_PLUS"):
        found = "none is installed" if faiss is None else f"{faiss.__version__} is installed"
        raise ImportError(
            f"Scene selection by k-means needs FAISS 1.14.2 or newer, but {found}: install it with "
            "`pip install fila-video[cpu]` or, for features on a GPU, `pip install fila-video[gpu]`."
        )
    points = features.float()
    distinct, members = points.unique(dim=0, return_inverse=True)
    if len(distinct) <= count:  # repeated frames: there is nothing to cluster, each distinct one stands for itself
        return _first_of_each(members.cpu(), torch.zeros(len(members)))
    clustering = faiss.Kmeans(
        points.shape[1],
        count,
        niter=ITERATIONS,
        nredo=RESTARTS,
        seed=int(seed),  # which may be NumPy's
        init_method=getattr(faiss, f"ClusteringInitMethod_{'RANDOM' if init == 'random' else 'KMEANS_PLUS_PLUS'}"),
        min_points_per_centroid=1,  # no warning about few frames,
        max_points_per_centroid=len(points),  # and none left out
    )
    if points.is_cuda and faiss.get_num_gpus() > 0:
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(64 << 20)  # the default takes 1.5 GB of the model's memory
        clustering.index = faiss.index_cpu_to_gpu(resources, points.device.index, clustering.index)
    # On one thread: sums then have one order, and a forked process does not wait for its parent's threads.
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        clustering.train(points.cpu().numpy())
    finally:
        faiss.omp_set_num_threads(threads)
    # From here on in float64, so that which frame is nearest to a mean does not depend on how FAISS sums.
    centroids = torch.from_numpy(clustering.centroids).to(features)
    labels = torch.cdist(features, centroids).argmin(1)
    sums = torch.zeros_like(centroids).index_put_((labels,), features, accumulate=True)
    means = sums / labels.bincount(minlength=count)[:, None]
    distances = (features - means[labels]).square().sum(1)
    return _first_of_each(labels.cpu(), _rounded(distances).cpu())


def _first_of_each(labels: torch.Tensor, values: torch.Tensor) -> list[int]:
    """The frame with the smallest value of each label that occurs, the earlier where they are equal."""
    best = {}
    for frame in values.argsort(stable=True).tolist():
        best.setdefault(labels[frame].item(), frame)
    return sorted(best.values())


def _farthest(features: torch.Tensor, count: int, alone: float, weights: torch.Tensor | None = None) -> list[int]:
    """
    Greedy max-min: from the frame nearest to the mean on, always the frame farthest from all chosen ones; fewer than
    `count` where all others equal a chosen one. `alone` is the share that counts of what a frame is farther than both
    of its neighbors in time, `weights` `(num_frames,)` what counts of each frame's distance.
    """
    norms = features.square().sum(1)
    weights = torch.ones_like(norms) if weights is None else weights.to(norms)
    scale = norms.max().clamp(min=torch.finfo(norms.dtype).tiny)
    new = _rounded(norms).argmin()
    chosen, squared = [new.item()], torch.full_like(norms, torch.inf)
    while len(chosen) < count:
        to_new = (norms + norms[new] - 2 * (features @ features[new])) / scale
        squared = torch.minimum(squared, to_new.clamp(min=0).round(decimals=DECIMALS))
        distances = squared.sqrt()
        before, after = distances.roll(1), distances.roll(-1)
        before[0] = after[-1] = 0
        company = torch.minimum(distances, torch.maximum(before, after))
        score = (weights * (alone * distances + (1 - alone) * company)).round(decimals=DECIMALS)
        new = score.argmax()
        if score[new] == 0:
            break
        chosen.append(new.item())
    return chosen


def _supplement(
    features: torch.Tensor, representatives: torch.Tensor, count: int, *, most_similar: bool
) -> torch.LongTensor:
    """Each representative behind the `count` frames since the one before that are most (or least) similar to it."""
    unit = torch.nn.functional.normalize(features)
    scenes, start = [], 0
    for representative in representatives.tolist():
        similarity = (unit[start:representative] @ unit[representative]).round(decimals=DECIMALS)  # eq. 5
        order = similarity.argsort(descending=most_similar, stable=True)  # eq. 6; ties go to the earlier frame
        history = sorted((start + order[:count]).tolist())
        scenes.append(history + [representative] * (count + 1 - len(history)))
        start = representative + 1
    return torch.tensor(scenes)


def _evenly_spaced(num_frames: int, count: int) -> torch.LongTensor:
    """Indices (count,) evenly spaced from frame 0 to the last, rounded; frames repeat where `count` is more."""
    steps = max(count - 1, 1)
    return (2 * torch.arange(count) * (num_frames - 1) + steps) // (2 * steps)


def _bipartite_scenes(features: torch.Tensor, num_scenes: int, scene_size: int) -> torch.LongTensor:
    """Scenes by bipartite soft matching (supplement B): each from one of `num_scenes` consecutive equal segments."""
    unit = torch.nn.functional.normalize(features)
    bounds = [scene * len(features) // num_scenes for scene in range(num_scenes + 1)]
    scenes = []
    for start, end in itertools.pairwise(bounds):
        even, odd = unit[start:end:2], unit[start + 1 : end : 2]
        edges = (even @ odd.T).round(decimals=DECIMALS).flatten().argsort(descending=True, stable=True)
        kept = {} if len(edges) else {start: None}  # a set in the order of entering
        # That many of the best edges hold `scene_size` frames, if the segment does.
        for edge in edges[: scene_size * len(odd)].tolist():
            for frame in (start + 2 * (edge // len(odd)), start + 2 * (edge % len(odd)) + 1):
                if len(kept) < scene_size:
                    kept[frame] = None
        chosen = sorted(kept)
        scenes.append(chosen + chosen[-1:] * (scene_size - len(chosen)))
    return torch.tensor(scenes)


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Values that are not negative, in units of the largest, so that float64's rounding makes no difference."""
    return (values / values.max().clamp(min=torch.finfo(values.dtype).tiny)).round(decimals=DECIMALS)


__all__ = [
    "INITS",
    "METHODS",
    "background_places",
    "frame_weights",
    "num_selected_scenes",
    "scenes_of",
    "select_scenes",
    "thin_pool",
    "unselected_frames",
]
