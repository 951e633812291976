"""The four mergers against independent reimplementations of the paper's equations, scene by scene in numpy."""

import numpy as np
import pytest
import torch
from fila_video.scene_merging_fila_video import SCENE_MERGERS, merge_most_similar
from helpers.tiny_models import tiny_config, tiny_model, tiny_vision_config


def merger(merger_type: str, **kwargs) -> torch.nn.Module:
    """The merger of a model, with other weights than its first ones."""
    return tiny_model(merger_type=merger_type, **kwargs).model.scene_merger


def features_of(config, num_scenes: int = 4, seed: int = 0) -> torch.Tensor:
    shape = (num_scenes, config.scene_size, config.num_patches, config.vision_config.hidden_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def similar_frames(config, num_scenes: int = 3, seed: int = 0) -> torch.Tensor:
    """Features whose frames resemble each other, as those of a scene do."""
    features = features_of(config, num_scenes, seed)
    return features[:, :1] + 0.3 * features


def attention_by_hand(features, query_weight, key_weight):
    """Supplement C.1, equations 1 to 4, a patch at a time; `(M, L, D)` to `(L, D)`."""
    merged = np.empty_like(features[0])
    for patch in range(features.shape[1]):
        query = query_weight @ features[features.shape[0] // 2, patch]
        scores = np.array([query @ (key_weight @ frame[patch]) for frame in features]) / np.sqrt(len(query))
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        merged[patch] = sum(weight * frame[patch] for weight, frame in zip(weights, features, strict=True))
    return merged


def bsm_by_hand(features):
    """
    Algorithm 1 on one scene: lists of tokens, each a set of the patches in it. A token is always the plain mean of its
    patches, which is what weighting by size must come to. `(M, L, D)` to `(L, D)`, and the patches in each token.
    """
    frames, num_patches, _ = features.shape
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    # The patches averaged in a token, and the patch whose place it keeps.
    tokens = [([index], index) for index in range(frames * num_patches)]
    while len(tokens) > num_patches:
        r = min(len(tokens) - num_patches, len(tokens) // 2)
        means = [flat[members].mean(axis=0) for members, _ in tokens]
        metric = [mean / np.linalg.norm(mean) for mean in means]
        even, odd = range(0, len(tokens), 2), range(1, len(tokens), 2)
        edges = []
        for a in even:
            scores = [metric[a] @ metric[b] for b in odd]
            best = int(np.argmax(scores))
            edges.append((scores[best], a, odd[best]))
        edges.sort(key=lambda edge: -edge[0])
        merged = {a: b for _, a, b in edges[:r]}
        unmerged = [a for _, a, _ in edges[r:]]
        grown = {b: list(tokens[b][0]) for b in odd}
        for a, b in merged.items():
            grown[b] += tokens[a][0]
        tokens = [tokens[a] for a in unmerged] + [(grown[b], tokens[b][1]) for b in odd]
    # Raster order of the places: the patch first, then the frame.
    tokens.sort(key=lambda token: (token[1] % num_patches, token[1] // num_patches))
    return np.stack([flat[members].mean(axis=0) for members, _ in tokens]), [members for members, _ in tokens]


@pytest.mark.parametrize("scene_size", [1, 2, 3, 5])
def test_weighted_merging_is_equation_8(scene_size) -> None:
    config = tiny_config(scene_size=scene_size)
    module, features = merger("weighted", scene_size=scene_size), features_of(config)
    weight = module.weight.detach().numpy()
    assert weight.shape == (scene_size, 25, 32)
    expected = np.zeros((4, 25, 32), dtype=np.float64)
    for scene in range(4):
        for i in range(scene_size):
            expected[scene] += features[scene, i].numpy() * weight[i]
    np.testing.assert_allclose(module(features).detach().numpy(), expected, atol=1e-5)


def test_every_weight_starts_at_one_over_scene_size() -> None:
    from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration

    for scene_size in (1, 3, 4):
        weight = FilaVideoForConditionalGeneration(tiny_config(scene_size=scene_size)).model.scene_merger.weight
        assert torch.equal(weight, torch.full_like(weight, 1 / scene_size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_untrained_weighted_merger_is_the_mean(dtype) -> None:
    config = tiny_config()
    weighted = SCENE_MERGERS["weighted"](config)
    torch.nn.init.constant_(weighted.weight, 1 / config.scene_size)
    features = features_of(config, num_scenes=32).to(dtype)
    mean = SCENE_MERGERS["mean"](config)(features)
    expected = features.double().mean(dim=1)
    assert weighted(features).dtype == mean.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(weighted(features).double(), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(mean.double(), expected, atol=tolerance, rtol=0)


def test_the_weights_have_the_papers_number_of_parameters() -> None:
    from fila_video.configuration_fila_video import FilaVideoConfig

    with torch.device("meta"):
        assert sum(p.numel() for p in SCENE_MERGERS["weighted"](FilaVideoConfig()).parameters()) == 2_519_424


@pytest.mark.parametrize("scene_size", [2, 3, 5])
def test_attention_pooling_is_supplement_c1(scene_size) -> None:
    module = merger("attention", scene_size=scene_size)
    features = features_of(tiny_config(scene_size=scene_size))
    query_weight, key_weight = module.query_weight.detach().numpy(), module.key_weight.detach().numpy()
    expected = [attention_by_hand(scene, query_weight, key_weight) for scene in features.numpy()]
    np.testing.assert_allclose(module(features).detach().numpy(), np.stack(expected), atol=1e-4)


def test_attention_pooling_starts_with_xavier_weights() -> None:
    from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration

    module = FilaVideoForConditionalGeneration(tiny_config(merger_type="attention")).model.scene_merger
    bound = (6 / (32 + 32)) ** 0.5
    for weight in (module.query_weight, module.key_weight):
        assert 0.95 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("make", [features_of, similar_frames])
@pytest.mark.parametrize("scene_size", [1, 2, 3, 4])
def test_bipartite_merging_is_algorithm_1(scene_size, make) -> None:
    config = tiny_config(scene_size=scene_size)
    features = make(config)
    result = merger("bsm", scene_size=scene_size)(features)
    assert result.shape == (features.shape[0], 25, 32)
    for scene, merged in zip(features.numpy(), result.numpy(), strict=True):
        expected, members = bsm_by_hand(scene)
        assert sorted(index for token in members for index in token) == list(range(scene_size * 25))
        np.testing.assert_allclose(merged, expected, atol=1e-5)


def test_bipartite_merging_weighs_tokens_by_their_patches() -> None:
    # Token 1 takes in token 0, which already stands for three patches.
    tokens = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]]])
    sizes = torch.tensor([[3.0, 1.0, 1.0, 1.0]])
    merged, sizes, order = merge_most_similar(tokens, sizes, torch.arange(4)[None], num_merged=1)
    torch.testing.assert_close(merged[0], torch.tensor([[0.0, 1.0], [0.975, 0.025], [-1.0, 0.0]]))
    assert sizes.tolist() == [[1, 4, 1]] and order.tolist() == [[2, 1, 3]]


def test_bipartite_merging_of_a_single_frame_changes_nothing() -> None:
    config = tiny_config(scene_size=1)
    features = features_of(config)
    assert torch.equal(merger("bsm", scene_size=1)(features), features[:, 0])


@pytest.mark.parametrize("patches", [5, 7, 9])
def test_bipartite_merging_keeps_the_grid(patches) -> None:
    """
    Three equal frames: patches merge with their own copies and come back in their places. One token is left over after
    the first round; where its copy has fallen into the same half, another pair merges, which displaces a few.
    """
    config = tiny_config(vision_config=tiny_vision_config(image_size=4 * patches))
    frame = features_of(config, num_scenes=8)[:, :1]
    merged = SCENE_MERGERS["bsm"](config)(frame.expand(-1, 3, -1, -1).contiguous())
    in_place = (merged - frame[:, 0]).abs().amax(dim=-1) < 1e-5
    assert in_place.float().mean() > 0.6
    assert (in_place.all(dim=1)).any()
    # Displaced or not, nothing but the frame's own patches and a merged pair is there.
    known = (torch.cdist(merged, frame[:, 0]) < 0.05).any(dim=-1)
    assert (known.sum(dim=1) >= config.num_patches - 1).all()


@pytest.mark.parametrize("merger_type", ["weighted", "mean", "attention", "bsm"])
def test_a_scene_does_not_depend_on_its_neighbours(merger_type) -> None:
    module, features = merger(merger_type), similar_frames(tiny_config(), num_scenes=5)
    torch.testing.assert_close(module(features)[3:4], module(features[3:4]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("merger_type", ["weighted", "mean", "attention", "bsm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_stays(merger_type, dtype) -> None:
    module, features = merger(merger_type), similar_frames(tiny_config()).to(dtype)
    expected = module(features.float())
    result = module(features)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("merger_type", ["weighted", "mean", "attention", "bsm"])
def test_gradients_reach_every_frame_and_every_weight(merger_type) -> None:
    module, features = merger(merger_type), similar_frames(tiny_config()).requires_grad_()
    module(features).square().sum().backward()
    assert (features.grad.abs().sum(dim=(0, 2, 3)) > 0).all()
    for parameter in module.parameters():
        assert parameter.grad.abs().sum() > 0
