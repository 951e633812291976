"""What several tests share: tiny models and processors, encoded videos, checkpoints, records."""
