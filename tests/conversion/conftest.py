"""Logits beside their source's, and the table of their differences: `pytest tests/conversion -k logits` prints it."""

from collections.abc import Callable

import pytest
import torch


@pytest.fixture
def same_logits(record_property) -> Callable[[str, torch.Tensor, torch.Tensor], None]:
    """Asserts that the logits of a layout's converted checkpoint are its source's, in float32."""

    def check(layout: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        assert ours.shape == theirs.shape
        difference, spread = (ours - theirs).abs().max().item(), theirs.std().item()
        record_property("logits", (layout, difference, spread))
        assert difference < 1e-5
        assert spread > 0.1  # there is something to compare

    return check


def pytest_terminal_summary(terminalreporter) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "logits":
                found.setdefault(value[0], []).append(value[1:])
    if found:
        terminalreporter.section("equal to the source")
        terminalreporter.write_line("| layout | cases | largest difference of logits | their spread |")
        terminalreporter.write_line("| --- | --- | --- | --- |")
    for layout, cases in sorted(found.items()):
        difference, spread = max(case[0] for case in cases), min(case[1] for case in cases)
        terminalreporter.write_line(f"| {layout} | {len(cases)} | {difference:.1e} | {spread:.2f} |")
