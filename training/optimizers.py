"""The trained parts with a learning rate each, and the optimizers: AdamW, or Muon with AdamW beside it."""

import math
from collections.abc import Callable

import torch
from torch import nn

from .settings import PARTS, TrainingError

# Adapters: image newlines, and what chooses and weights patches of other frames, are learned with the projector.
_PLACES = {
    "vision_tower": ("vision_tower.",),
    "multi_modal_projector": (
        "multi_modal_projector.",
        "image_newline",
        "background_encoder.",
        "cooperative_encoder.",
    ),
    "language_model": ("language_model.", "lm_head."),
    "scene_merger": ("scene_merger.",),
}


def part_of(name: str) -> str:
    """The part that a parameter belongs to, by its name in any wrapping."""
    for part in PARTS:
        if any(f".{place}" in f".{name}" for place in _PLACES[part]):
            return part
    raise TrainingError(f"The parameter {name!r} belongs to none of the parts {', '.join(PARTS)}.")


def freeze(model: nn.Module, learning_rates: dict[str, float], keep_frozen: bool = False) -> None:
    """
    Freezes what has no learning rate. With `keep_frozen`, what is frozen already (under adapters) stays so.

    Raises:
        TrainingError: If a part has a learning rate but no parameters to train, such as a merger that is a mean.
    """
    for name, parameter in model.named_parameters():
        trained = part_of(name) in learning_rates
        parameter.requires_grad_(trained and (parameter.requires_grad or not keep_frozen))
    found = {part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    for part in learning_rates:
        if part not in found:
            raise TrainingError(
                f"`learning_rates` has {part}, but nothing of it can be trained"
                + (": name it in `lora.target_modules` or `lora.modules_to_save`." if keep_frozen else " here.")
            )


class MuonWithAdamW(torch.optim.Optimizer):
    """
    Muon for hidden matrices and AdamW for all else, as one optimizer: groups say by `"muon": True` whose they are.

    Muon's steps are those of `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`. That one computes in bfloat16
    everywhere, which takes eighteen times as long on a processor that has no bfloat16.
    """

    def __init__(
        self, groups: list[dict], betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, momentum: float = 0.95
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "muon": False, "momentum": momentum})
        self.settings = {"betas": betas, "eps": eps}
        self._join()

    def _join(self) -> None:
        """AdamW works on this one's own groups and state: schedulers and checkpoints see only it."""
        groups = [group for group in self.param_groups if not group["muon"]]
        # It refuses to begin without parameters, and adapters may have nothing but matrices.
        copies = [{"params": group["params"]} for group in groups or self.param_groups]
        self.adamw = torch.optim.AdamW(copies, **self.settings)
        for group in groups:
            for name, value in self.adamw.defaults.items():
                group.setdefault(name, value)
        self.adamw.param_groups, self.adamw.state = groups, self.state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        self._join()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"] if group["muon"] else ():
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalize(parameter.grad.lerp(state["momentum_buffer"], group["momentum"]))
                # The root mean square of an orthogonal matrix's entries, brought to that of AdamW's steps.
                rate = group["lr"] * 0.2 * math.sqrt(max(parameter.shape))
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)
        self.adamw.step()
        return loss


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """
    Brings the singular values of a matrix to 0.7 to 1.2, but for those that are nearly zero, by five Newton-Schulz
    steps of Muon's polynomial: in bfloat16 on GPUs, in float32 elsewhere.
    """
    result = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    if matrix.shape[0] > matrix.shape[1]:
        result = result.T  # the products are squares of the shorter side
    result = result / result.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = result @ result.T
        result = 3.4445 * result + (-4.775 * gram + 2.0315 * gram @ gram) @ result
    return (result.T if matrix.shape[0] > matrix.shape[1] else result).to(matrix.dtype)


def is_hidden_matrix(name: str, parameter: nn.Parameter, embeddings: set[str]) -> bool:
    """Whether Muon takes it: a matrix between hidden states; no embedding, head, merger or convolution of patches."""
    return parameter.ndim == 2 and part_of(name) != "scene_merger" and name not in embeddings


def make_optimizer(
    model: nn.Module, name: str, learning_rates: dict[str, float], weight_decay: float, settings: dict
) -> torch.optim.Optimizer:
    """
    Args:
        model (`nn.Module`):
            The model; its parameters that are not frozen are optimized.
        name (`str`):
            `"adamw"` or `"muon"`.
        learning_rates (`dict[str, float]`):
            One per part; groups are named by their part.
        weight_decay (`float`):
            The decay of matrices; vectors and the merger's weights have none, which would pull a mean towards zero.
        settings (`dict`):
            `betas`, `eps`, and with Muon `momentum`.
    """
    embeddings = {
        f"{prefix}.{own}" if prefix else own
        for prefix, module in model.named_modules()
        if isinstance(module, nn.Embedding) or "lm_head" in prefix.split(".")
        for own, _ in module.named_parameters(recurse=False)
    }
    groups = {}
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = part_of(key)
        muon = name == "muon" and is_hidden_matrix(key, parameter, embeddings)
        decay = weight_decay if parameter.ndim >= 2 and part != "scene_merger" else 0.0
        group = groups.setdefault((part, muon, decay), [])
        group.append(parameter)
    groups = [
        {"params": parameters, "lr": float(learning_rates[part]), "weight_decay": decay, "part": part, "muon": muon}
        for (part, muon, decay), parameters in groups.items()
    ]
    if name == "muon":
        return MuonWithAdamW(groups, **settings)
    for group in groups:
        del group["muon"]
    return torch.optim.AdamW(groups, **settings)


__all__ = ["MuonWithAdamW", "freeze", "make_optimizer", "part_of"]
