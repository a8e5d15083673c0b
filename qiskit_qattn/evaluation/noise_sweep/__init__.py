"""The loss of a trained model against noise and against shots, with and without noise-aware training."""
