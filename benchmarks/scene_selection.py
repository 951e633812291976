"""
Scene selection: time against scikit-learn's KMeans and against the bare FAISS searches, and event recall.

    python benchmarks/scene_selection.py            # needs scikit-learn; a few minutes on two cores

Time: features of dimension 1152 and 32 clusters; scikit-learn with the same kind of initialisation, one restart, no
tolerance and the same largest number of iterations, both in float32 and without subsampling. All contestants take
turns in one process, and the median of their rounds counts. "Bare FAISS" repeats exactly the index calls that one
`select_scenes` makes, on the same features and centroids.

Event recall: a simulated video of 512 frames cuts between 6 backgrounds and holds 8 rare events of 2 or 3 frames each;
see `simulated_video`. The recall is the share of events of which at least one frame is in a scene.
"""

import argparse
import math
import statistics
import time
import warnings

import torch
from fila_video import scene_selection_fila_video as scene_selection
from fila_video.scene_selection_fila_video import INITS, MAX_ITERATIONS, METHODS, select_scenes
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

NUM_SCENES, SCENE_SIZE, DIM = 32, 3, 1152


def simulated_video(num_frames, seed, num_backgrounds=6, num_events=8):
    """
    Features (num_frames, DIM) of a video and the frames of its rare events.

    Backgrounds and events are standard normal vectors. The video stays with a background for 8 to 40 frames, then cuts
    to another one. Each event replaces 2 or 3 successive frames, and events never touch. Every frame adds normal noise
    of standard deviation 0.25.
    """
    generator = torch.Generator().manual_seed(seed)
    backgrounds = torch.randn(num_backgrounds, DIM, generator=generator)
    places = []
    while len(places) < num_frames:
        length = torch.randint(8, 41, (), generator=generator).item()
        others = [place for place in range(num_backgrounds) if not places or place != places[-1]]
        place = others[torch.randint(len(others), (), generator=generator).item()]
        places += [place] * length
    features = backgrounds[torch.tensor(places[:num_frames])]
    events, slot = [], num_frames // num_events
    for number in range(num_events):  # one in each slot, away from its borders
        length = torch.randint(2, 4, (), generator=generator).item()
        start = number * slot + torch.randint(1, slot - length, (), generator=generator).item()
        features[start : start + length] = torch.randn(DIM, generator=generator)
        events.append(range(start, start + length))
    return features + 0.25 * torch.randn(num_frames, DIM, generator=generator), events


def event_recall(method, init, num_videos):
    found = total = 0
    for seed in range(num_videos):
        features, events = simulated_video(512, seed)
        chosen = set(select_scenes(features, NUM_SCENES, SCENE_SIZE, method, init=init).flatten().tolist())
        found += sum(not chosen.isdisjoint(event) for event in events)
        total += len(events)
    return found / total


def bare_faiss(features, init):
    """A function that repeats the index calls that one `select_scenes` makes, and the number of its searches."""
    calls = []
    search = scene_selection._search
    scene_selection._search = lambda *args: (calls.append(args), search(*args))[1]
    try:
        select_scenes(features, NUM_SCENES, SCENE_SIZE, init=init)
    finally:
        scene_selection._search = search

    def repeat():
        for index, rows, centroids, *count in calls:
            index.reset()
            index.add(centroids)
            index.search(rows, *(count or [1]))

    return repeat, len(calls)


def medians(functions, rounds):
    times = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def timing_row(features, init, rounds):
    kmeans = KMeans(NUM_SCENES, init=init, n_init=1, max_iter=MAX_ITERATIONS, tol=0, random_state=42)
    repeat, num_searches = bare_faiss(features, init)
    array = features.numpy()
    result = medians(
        {
            "ours": lambda: select_scenes(features, NUM_SCENES, SCENE_SIZE, init=init),
            "faiss": repeat,
            "sklearn": lambda: kmeans.fit(array),
        },
        rounds,
    )
    return (
        f"| {len(features):,} | {init} | {result['ours']:.1f} | {result['faiss']:.1f} ({num_searches}) | "
        f"{result['ours'] / result['faiss']:.2f} | {result['sklearn']:.1f} ({kmeans.n_iter_}) | "
        f"{result['sklearn'] / result['ours']:.1f} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-frames", type=int, nargs="+", default=[512, 4096, 36000])
    parser.add_argument("--rounds", type=int, default=9, help="rounds at 4,096 frames or fewer; a third above")
    parser.add_argument("--videos", type=int, default=100, help="simulated videos for the event recall")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    for name, make in (
        ("noise", lambda n: torch.randn(n, DIM, generator=torch.Generator().manual_seed(0))),
        ("simulated videos", lambda n: torch.cat([simulated_video(512, s)[0] for s in range(math.ceil(n / 512))])[:n]),
    ):
        print(f"\n### Time in ms, {name}\n")
        print(
            "| frames | init | `select_scenes` | bare FAISS (searches) | ratio | scikit-learn (iterations) | ratio |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for num_frames in arguments.num_frames:
            rounds = arguments.rounds if num_frames <= 4096 else max(arguments.rounds // 3, 1)
            features = make(num_frames)
            for init in INITS:
                print(timing_row(features, init, rounds), flush=True)

    print(f"\n### Event recall, {arguments.videos} simulated videos, and time at 512 frames\n")
    print("| method | init | event recall | ms |\n| --- | --- | --- | --- |")
    features = simulated_video(512, 0)[0]
    for method in METHODS:
        for init in INITS if method.startswith("kmeans") else INITS[:1]:
            took = medians(
                {"ours": lambda m=method, i=init: select_scenes(features, NUM_SCENES, SCENE_SIZE, m, init=i)}, 9
            )["ours"]
            recall = event_recall(method, init, arguments.videos)
            shown = init if method.startswith("kmeans") else "-"
            print(f"| `{method}` | {shown} | {recall:.0%} | {took:.1f} |", flush=True)


if __name__ == "__main__":
    main()
