"""A measurement in a process of its own, whose failure is shown with its own error."""

import subprocess


def run_child(command: list[str]) -> str:
    """
    Runs a command and gives what it wrote to standard output.

    Args:
        command (`list[str]`): The program and its arguments.

    Returns:
        `str`: Its standard output.

    Raises:
        ValueError: If it fails; with its exit status and all that it wrote to standard error.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command)} failed with status {done.returncode}:\n{done.stderr or done.stdout}")
    return done.stdout


__all__ = ["run_child"]
