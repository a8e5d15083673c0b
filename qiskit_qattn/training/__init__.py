"""Data, the training loop and its checkpoints."""
