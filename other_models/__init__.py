"""Frames for video models other than FiLA-Video."""
