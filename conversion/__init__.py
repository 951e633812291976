"""Checkpoints of LLaVA-OneVision and LLaVA-Video, or of parts, into FiLA-Video's repository."""
