"""Before any test: no network, and the helpers of this folder importable under `--import-mode=importlib`."""

import os
import sys
from pathlib import Path

# transformers and huggingface_hub read these when they are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# pytest's importlib mode leaves sys.path alone: `from helpers.tiny_models import ...` needs this.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config) -> None:
    # The maintainers' suites mark their tests; unregistered marks would warn.
    for mark in ("flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test", "generate"):
        config.addinivalue_line("markers", f"{mark}: set by transformers' own tests")
