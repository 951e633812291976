"""Made-up results of an evaluation, with known shares of right answers."""

import numpy as np
from fila_video.evaluation.tables import Table

KINDS = ("what", "order", "caption")


def made_up(share: dict[str, float], seed: int, num_videos: int = 40) -> dict:
    """What `evaluate` returns: of each column about this share is right. Of 4 events a selection finds as many."""
    generator = np.random.default_rng(seed)
    questions, recall = [], {name: {} for name in share if name not in ("blind", "constant")}
    for number in range(num_videos):
        for place, kind in enumerate(KINDS):
            right = {name: int(generator.random() < value) for name, value in share.items()}
            row = {"id": f"v{number}", "number": place, "kind": kind, "form": "free", "chance": 0.125, "right": right}
            questions.append({**row, "expected": "red", "answers": dict.fromkeys(right, "red")})
        for name in recall:
            found = int(generator.binomial(4, share[name]))
            counts = {"events": 4, "found": found, "represented": found, "scenes": found, "pure": found // 2}
            recall[name][f"v{number}"] = counts
    return {"questions": questions, "recall": recall}


def selection_table(seeds: int = 3) -> Table:
    shares = {"uniform": 0.3, "uniform_single": 0.36, "bsm": 0.25, "kmeans_dissimilar": 0.7, "kmeans": 0.85}
    shares |= {"kmeans_random": 0.5}
    labels = ("Uniform, merged triples", "Uniform, single frames", "BSM", "k-means, dissimilar", "k-means, similar")
    labels += ("k-means, similar, random centers",)
    models = [f"{seed} model" for seed in range(seeds)]
    rows = [{"label": label, "selection": name, "models": models} for label, name in zip(labels, shares, strict=True)]
    results = {model: made_up({**shares, "blind": 0.18, "constant": 0.15}, seed) for seed, model in enumerate(models)}
    title = "Scene selection, 10-minute videos with rare events (table 2)"
    return Table("table2", title, rows, {"10 minutes": results}, labels[:2])


def merging_table() -> Table:
    shares = {"Baseline, single frames": 0.6, "Attention pooling": 0.72, "Weighted fusion": 0.8}
    rows, sets = [], {"5 to 60 seconds": {}, "10 minutes": {}}
    for place, (label, share) in enumerate(shares.items()):
        models = [f"{place}{seed} {label}" for seed in range(3)]
        rows.append({"label": label, "selection": "uniform", "models": models})
        for number, results in enumerate(sets.values()):
            for seed, model in enumerate(models):
                results[model] = made_up({"uniform": share - 0.4 * number, "blind": 0.15}, 10 * seed + place)
                results[model]["recall"] = {
                    "uniform": {
                        f"v{video}": dict.fromkeys(("events", "found", "represented", "scenes", "pure"), 1)
                        for video in range(40)
                    }
                }
    return Table("table3", "Scene merging (table 3)", rows, sets, ["Baseline, single frames"])


__all__ = ["made_up", "merging_table", "selection_table"]
