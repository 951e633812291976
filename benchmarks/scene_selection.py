"""
Scene selection: time against scikit-learn's KMeans and against the bare FAISS searches, and event recall.

    python benchmarks/scene_selection.py            # needs scikit-learn; a few minutes on two cores

Time: features of dimension 1152 and 32 clusters; scikit-learn with the same kind of initialisation, one restart and no
tolerance, both in float32, without subsampling and with equal iterations: the fewer of those after which the two stop
by themselves. Each contestant runs in a process of its own, as the thread pools of torch, FAISS and scikit-learn spin
into each other's turns in one process. The processes alternate for `--rounds`; each gives the median of its calls, and
the median (least to greatest) of the rounds counts. "Bare FAISS" repeats exactly the index calls that one
`select_scenes` makes, on the same features and centroids.

On a machine that has other work, wall time measures that work: `--clock cpu --threads 1` gives each contestant one
thread and takes the processor time of its process.

Event recall: a simulated video of 512 frames cuts between 6 backgrounds and holds 8 rare events of 2 or 3 frames each;
see `simulated_video`. The recall is the share of events of which at least one frame is in a scene.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings

import torch
from fila_video import scene_selection_fila_video as scene_selection
from fila_video.scene_selection_fila_video import INITS, METHODS, select_scenes
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

NUM_SCENES, SCENE_SIZE, DIM = 32, 3, 1152
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


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


def median_ms(function, num_calls, clock):
    times = []
    for _ in range(num_calls + 1):
        start = CLOCKS[clock]()
        function()
        times.append(CLOCKS[clock]() - start)
    return 1e3 * statistics.median(times[1:])  # the first one warms up


def make_features(kind, num_frames):
    if kind == "noise":
        return torch.randn(num_frames, DIM, generator=torch.Generator().manual_seed(0))
    return torch.cat([simulated_video(512, seed)[0] for seed in range(math.ceil(num_frames / 512))])[:num_frames]


def contestant(name, kind, num_frames, init, iterations, num_calls, clock):
    """In a process of its own: the median time of a contestant in ms, and its iterations or FAISS's searches."""
    features = make_features(kind, num_frames)
    scene_selection.MAX_ITERATIONS = iterations
    if name == "faiss":
        function, count = bare_faiss(features, init)
        return median_ms(function, num_calls, clock), count
    if name == "sklearn":
        array = features.numpy()
        kmeans = KMeans(NUM_SCENES, init=init, n_init=1, max_iter=iterations, tol=0, random_state=42)
        return median_ms(lambda: kmeans.fit(array), num_calls, clock), kmeans.n_iter_
    assigned, assign = [], scene_selection._assign
    scene_selection._assign = lambda *args: (assigned.append(1), assign(*args))[1]
    select_scenes(features, NUM_SCENES, SCENE_SIZE, init=init)
    scene_selection._assign = assign
    took = median_ms(lambda: select_scenes(features, NUM_SCENES, SCENE_SIZE, init=init), num_calls, clock)
    return took, len(assigned) - 1


def timing_row(kind, num_frames, init, arguments):
    def run(name, iterations, num_calls=arguments.calls):
        job = json.dumps([name, kind, num_frames, init, iterations, num_calls, arguments.clock])
        command = [sys.executable, os.path.abspath(__file__), "--contestant", job]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    own = {name: run(name, scene_selection.MAX_ITERATIONS, 1)[1] for name in ("ours", "sklearn")}
    iterations = min(own.values())
    rounds = [{name: run(name, iterations) for name in ("ours", "faiss", "sklearn")} for _ in range(arguments.rounds)]
    times = {name: [turn[name][0] for turn in rounds] for name in rounds[0]}
    ours, bare, other = (statistics.median(times[name]) for name in ("ours", "faiss", "sklearn"))
    spread = {name: f"{min(values):.1f} to {max(values):.1f}" for name, values in times.items()}
    alone = f"{own['ours']}, {own['sklearn']}"
    return (
        f"| {num_frames:,} | {init} | {iterations} ({alone}) | {ours:.1f} ({spread['ours']}) | "
        f"{bare:.1f} ({spread['faiss']}; {rounds[0]['faiss'][1]}) | {ours / bare:.2f} | "
        f"{other:.1f} ({spread['sklearn']}) | {other / ours:.1f} |"
    )


def print_event_recall(num_videos, clock):
    print(f"\n### Event recall, {num_videos} simulated videos, and time at 512 frames\n")
    print("| method | init | event recall | ms |\n| --- | --- | --- | --- |")
    features = simulated_video(512, 0)[0]
    for method in METHODS:
        for init in INITS if method.startswith("kmeans") else INITS[:1]:
            took = median_ms(
                lambda m=method, i=init: select_scenes(features, NUM_SCENES, SCENE_SIZE, m, init=i), 9, clock
            )
            recall = event_recall(method, init, num_videos)
            shown = init if method.startswith("kmeans") else "-"
            print(f"| `{method}` | {shown} | {recall:.0%} | {took:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-frames", type=int, nargs="+", default=[512, 4096, 36000])
    parser.add_argument("--init", nargs="+", choices=INITS, default=INITS)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each contestant")
    parser.add_argument("--calls", type=int, default=5, help="timed calls in each process")
    parser.add_argument("--threads", type=int, help="of each contestant; its libraries' own choice by default")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--videos", type=int, default=100, help="simulated videos for the event recall; 0 skips it")
    parser.add_argument("--contestant", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.contestant:
        print(json.dumps(contestant(*arguments.contestant)))
        return
    if arguments.threads:  # libraries read it when they are loaded: the contestants' processes inherit it
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(arguments.threads)))

    for kind in ("noise", "simulated videos"):
        print(f"\n### {arguments.clock} time in ms, {kind}\n")
        print(
            "| frames | init | iterations (ours, scikit-learn, if left alone) | `select_scenes` | "
            "bare FAISS (searches last) | ratio | scikit-learn | ratio |\n" + "| --- " * 8 + "|"
        )
        for num_frames in arguments.num_frames:
            for init in arguments.init:
                print(timing_row(kind, num_frames, init, arguments), flush=True)
    if arguments.videos:
        print_event_recall(arguments.videos, arguments.clock)


if __name__ == "__main__":
    main()
