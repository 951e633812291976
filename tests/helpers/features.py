"""Features of frames that were never seen: noise, shots of a film, and well separated groups."""

import torch


def noise(num_frames: int, dim: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_frames, dim, generator=torch.Generator().manual_seed(seed))


def video(num_frames: int, dim: int = 48, seed: int = 0, shot: int = 12) -> torch.Tensor:
    """Features of a video that cuts between a few places every `shot` frames."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randn(5, dim, generator=generator)
    order = torch.randint(5, (num_frames // shot + 1,), generator=generator).repeat_interleave(shot)[:num_frames]
    return places[order] + 0.3 * torch.randn(num_frames, dim, generator=generator)


def groups_of(sizes: list[int], seed: int = 0, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Features in well separated groups of such sizes, in a random order, and the group of each."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    groups = groups[torch.randperm(len(groups), generator=generator)]
    noise = torch.randn(len(groups), dim, generator=generator)
    return 30 * torch.eye(len(sizes), dim)[groups] + noise, groups
