"""
Scene selection: time against scikit-learn's KMeans, and event recall on simulated features.

    python -m fila_video.benchmarks.scene_selection            # needs scikit-learn; a few minutes on two cores

Time: features of dimension 1152 and 32 clusters; scikit-learn with the same kind of initialization, as many restarts
and iterations, no tolerance and no subsampling, both in float32. Each contestant runs in a process of its own, as the
thread pools of torch, FAISS and scikit-learn spin into each other's turns in one process. The processes alternate for
`--rounds`; each gives the median of its calls, and the median (least to greatest) of the rounds counts. On a machine
that has other work, wall time measures that work: `--clock cpu --threads 1` takes the processor time of one thread.

Event recall: a simulated video of 512 frames cuts between 6 backgrounds and holds 8 rare events of 2 or 3 frames each;
see `simulated_video`. The recall is the share of events of which at least one frame is in a scene; with `thinned`,
scenes are chosen among the frames that `thin_pool` keeps.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from fila_video.benchmarks.child import run_child
from fila_video.scene_selection_fila_video import INITS, ITERATIONS, METHODS, RESTARTS, select_scenes, thin_pool

NUM_SCENES, SCENE_SIZE, DIM = 32, 3, 1152
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def simulated_video(
    num_frames: int, seed: int, num_backgrounds: int = 6, num_events: int = 8
) -> tuple[torch.Tensor, list[range]]:
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


def event_recall(
    method: str, init: str, num_videos: int, num_scenes: int = NUM_SCENES, thinned: int | None = None
) -> float:
    """The share of the events of `num_videos` simulated videos that a selection finds."""
    found = total = 0
    for seed in range(num_videos):
        features, events = simulated_video(512, seed)
        kept = thin_pool(features, thinned or len(features))
        chosen = kept[select_scenes(features[kept], num_scenes, SCENE_SIZE, method, init=init)]
        found += sum(not set(chosen.flatten().tolist()).isdisjoint(event) for event in events)
        total += len(events)
    return found / total


def median_ms(function: Callable[[], object], num_calls: int, clock: str) -> float:
    times = []
    for _ in range(num_calls + 1):
        start = CLOCKS[clock]()
        function()
        times.append(CLOCKS[clock]() - start)
    return 1e3 * statistics.median(times[1:])  # the first one warms up


def make_features(kind: str, num_frames: int) -> torch.Tensor:
    if kind == "noise":
        return torch.randn(num_frames, DIM, generator=torch.Generator().manual_seed(0))
    return torch.cat([simulated_video(512, seed)[0] for seed in range(math.ceil(num_frames / 512))])[:num_frames]


def contestant(name: str, kind: str, num_frames: int, init: str, num_calls: int, clock: str) -> float:
    """In a process of its own: the median time of a contestant in ms."""
    features = make_features(kind, num_frames)
    if name == "ours":
        return median_ms(lambda: select_scenes(features, NUM_SCENES, SCENE_SIZE, init=init), num_calls, clock)
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)
    kmeans = KMeans(NUM_SCENES, init=init, n_init=RESTARTS, max_iter=ITERATIONS, tol=0, random_state=42)
    return median_ms(lambda: kmeans.fit(features.numpy()), num_calls, clock)


def timing_row(kind: str, num_frames: int, init: str, arguments: argparse.Namespace) -> str:
    def run(name: str) -> float:
        job = json.dumps([name, kind, num_frames, init, arguments.calls, arguments.clock])
        command = [sys.executable, "-m", "fila_video.benchmarks.scene_selection", "--contestant", job]
        return json.loads(run_child(command))

    times = {"ours": [], "sklearn": []}
    for _ in range(arguments.rounds):
        for name in times:
            times[name].append(run(name))
    ours, other = (statistics.median(values) for values in times.values())
    spread = {name: f"{min(values):.1f} to {max(values):.1f}" for name, values in times.items()}
    return (
        f"| {num_frames:,} | {init} | {ours:.1f} ({spread['ours']}) | {other:.1f} ({spread['sklearn']}) | "
        f"{ours / other:.2f} |"
    )


def print_event_recall(num_videos: int, clock: str) -> None:
    print(f"\n### Event recall, {num_videos} simulated videos of 512 frames\n")
    counts, thinned = (8, 16, NUM_SCENES), (192, 96)
    columns = [*(f"{count} scenes" for count in counts), *(f"32 of {count} kept" for count in thinned)]
    print(f"| method | init | {' | '.join(columns)} | {clock} ms |\n" + "| --- " * (len(columns) + 3) + "|")
    features = simulated_video(512, 0)[0]
    for method in METHODS:
        for init in INITS if method.startswith("kmeans") else INITS[:1]:
            took = median_ms(
                lambda m=method, i=init: select_scenes(features, NUM_SCENES, SCENE_SIZE, m, init=i), 9, clock
            )
            recalls = [event_recall(method, init, num_videos, count) for count in counts]
            recalls += [event_recall(method, init, num_videos, thinned=count) for count in thinned]
            shown = init if method.startswith("kmeans") else "-"
            cells = " | ".join(f"{recall:.0%}" for recall in recalls)
            print(f"| `{method}` | {shown} | {cells} | {took:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-frames", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--init", nargs="+", choices=INITS, default=INITS)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each contestant")
    parser.add_argument("--calls", type=int, default=5, help="timed calls in each process")
    parser.add_argument("--threads", type=int, help="of each contestant; its libraries' own choice by default")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--videos", type=int, default=100, help="simulated videos for the event recall; 0 skips it")
    parser.add_argument("--contestant", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        print(json.dumps(contestant(*arguments.contestant)))
        return
    if arguments.threads:  # libraries read it when they are loaded: the contestants' processes inherit it
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(arguments.threads)))

    for kind in ("noise", "simulated videos"):
        print(f"\n### {arguments.clock} time in ms, {kind}\n")
        print("| frames | init | `select_scenes` | scikit-learn | ratio |\n" + "| --- " * 5 + "|")
        for num_frames in arguments.num_frames:
            for init in arguments.init:
                print(timing_row(kind, num_frames, init, arguments), flush=True)
    if arguments.videos:
        print_event_recall(arguments.videos, arguments.clock)


if __name__ == "__main__":
    main()
