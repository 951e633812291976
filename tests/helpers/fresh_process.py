"""Loads a repository in a process of its own, offline, by every auto class; see `load_everything.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path


def load_in_fresh_process(tmp_path, *arguments, **environment) -> dict:
    report = tmp_path / "report.json"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HOME": str(tmp_path / "home"),
        **environment,
    }
    program = [
        sys.executable,
        str(Path(__file__).parent / "load_everything.py"),
        str(report),
        *map(str, arguments),
    ]
    result = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(report.read_text())
