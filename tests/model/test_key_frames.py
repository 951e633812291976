"""How cooperative encoding (DynFocus) finds prototypes and key frames: density peaks, and a choice with a gradient."""

import math

import pytest
import torch
from fila_video.cooperative_encoding_fila_video import (
    FilaVideoScoreNet,
    density_clusters,
    density_peaks,
    perturbed_top_k,
    top_k,
)
from helpers.tiny_models import random_frames, tiny_model


def test_density_peaks_of_six_points_on_a_line_by_hand() -> None:
    """
    Points 0, 1, 2, 10, 11, 30, dim 1, two neighbors. Mean squared distances to the nearest two: 2.5, 1, 2.5, 41, 50.5,
    380.5. The densest is 1, whose separation is the farthest distance, 29; of 0 and 2 it is 1, of 10 (to 2) 8, of 11
    (to 10) 1, of 30 (to 11) 19.
    """
    points = torch.tensor([0.0, 1.0, 2.0, 10.0, 11.0, 30.0])[None, :, None]
    order, separation = density_peaks(points, 2)
    torch.testing.assert_close(separation[0], torch.tensor([1, 29, 1, 8, 1, 19.0]).double())
    scores = [-2.5, math.log(29) - 1, -2.5, math.log(8) - 41, -50.5, math.log(19) - 380.5]
    assert order[0].tolist() == sorted(range(6), key=lambda point: -scores[point]) == [1, 0, 2, 3, 4, 5]


def naive_peaks(points: list[list[float]], neighbors: int) -> list[int]:
    count, dim = len(points), len(points[0])
    squared = [[sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in points] for p in points]
    density = []
    for point in range(count):
        nearest = sorted(squared[point][:point] + squared[point][point + 1 :])[:neighbors]
        density.append(-sum(nearest) / len(nearest) / dim)
    score = []
    for point in range(count):
        # Of equally dense points, as mutual nearest ones are, the earlier is denser.
        mine = (density[point], -point)
        denser = [squared[point][other] for other in range(count) if (density[other], -other) > mine]
        score.append(density[point] + math.log(math.sqrt(min(denser) if denser else max(squared[point]))))
    return sorted(range(count), key=lambda point: -score[point])


def test_density_peaks_of_random_points_are_those_of_an_independent_loop() -> None:
    points = torch.randn(5, 23, 4, generator=torch.Generator().manual_seed(0))
    for neighbors in (1, 3, 8):
        order, _ = density_peaks(points, neighbors)
        for each, found in zip(points.double().tolist(), order.tolist(), strict=True):
            assert found == naive_peaks(each, neighbors)
        # Each set is ranked as it is alone.
        assert all(torch.equal(density_peaks(points[i : i + 1], neighbors)[0][0], order[i]) for i in range(5))


def test_clusters_are_those_of_the_nearest_center_and_never_empty() -> None:
    points = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(1))
    labels = density_clusters(points, 5, 3)
    centers = density_peaks(points, 3)[0][:, :5].sort(dim=1).values
    for each, label, center in zip(points, labels, centers, strict=True):
        for point, found in zip(each, label, strict=True):
            distances = [(point - each[c]).norm() for c in center]
            assert distances[found] == min(distances)
    equal = density_clusters(torch.ones(1, 7, 2), 3, 2)
    assert equal[0].tolist() == [0, 1, 2, 0, 0, 0, 0]  # ties go to the earlier


def test_top_k_is_sorted_by_place_and_takes_the_earlier_of_equal_scores() -> None:
    assert top_k(torch.tensor([0.1, 0.9, 0.3, 0.9, 0.2]), 3).tolist() == [1, 2, 3]
    assert top_k(torch.zeros(5), 2).tolist() == [0, 1]


def test_the_perturbed_choice_is_the_choice_without_noise_and_an_expectation_with_it() -> None:
    scores = torch.tensor([0.1, 0.9, 0.3, 0.8])
    hard = perturbed_top_k(scores, 2, 10, 1e-6)
    torch.testing.assert_close(hard, torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1.0]]))
    soft = perturbed_top_k(scores, 2, 2000, 0.3)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(2))
    assert 0 < soft[0, 0] < soft[0, 1] < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_training_does_not_depend_on_the_default_type(dtype) -> None:
    settings = {"frame_encoding": "cooperative", "scene_size": 1, "num_prototypes": 6, "background_tokens": 2}
    model, questions = tiny_model(**settings).train(), torch.tensor([[11, 12]])
    frames, found = random_frames(8, model.config)[None], []
    for default in (torch.float32, dtype):
        torch.set_default_dtype(default)
        try:
            torch.manual_seed(0)
            video = model.get_video_features(pixel_values_videos=frames, video_question_ids=questions)
            video.pooler_output[0].sum().backward()
        finally:
            torch.set_default_dtype(torch.float32)
        found.append(video.pooler_output[0])
    torch.testing.assert_close(*found)


def test_the_gradient_of_the_perturbed_choice_is_that_of_its_expectation() -> None:
    """Against finite differences of the expectation, with common random numbers and another seed."""
    sigma, samples = 0.5, 400_000
    scores = torch.tensor([0.2, 0.7, 0.4, 0.9])
    weight = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.3, 1.0, -1.0, 2.0]])
    noise = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1))

    def expectation(at: torch.Tensor) -> float:
        return float((perturbed_top_k(at, 2, samples, sigma, noise) * weight).sum())

    step, expected = 0.05, []
    for place in range(4):
        move = torch.zeros(4)
        move[place] = step
        expected.append((expectation(scores + move) - expectation(scores - move)) / (2 * step))
    leaf = scores.clone().requires_grad_()
    other = torch.randn(samples, 4, generator=torch.Generator().manual_seed(2))
    (perturbed_top_k(leaf, 2, samples, sigma, other) * weight).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.tensor(expected), atol=0.03, rtol=0)
    assert leaf.grad.abs().max() > 0.3


def test_scores_are_from_zero_to_one_and_depend_on_the_other_prototypes() -> None:
    torch.manual_seed(0)
    net = FilaVideoScoreNet(8)
    for weight in net.parameters():
        weight.data *= 3
    patches = torch.randn(5, 9, 8)
    scores = net(patches)
    assert scores.min() == 0
    assert 0.99 < scores.max() <= 1
    assert scores.dtype == net(patches.bfloat16()).dtype == torch.float32
    swapped = net(patches[[1, 0, 2, 3, 4]])
    torch.testing.assert_close(swapped, scores[[1, 0, 2, 3, 4]])
    others = patches.clone()
    others[4] = torch.randn(9, 8)
    assert not torch.allclose(net(others)[:4], scores[:4])
