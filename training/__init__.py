"""Training: the default checkpoint, the data and the stages."""
