"""A trained model behind an API: batching, keys, limits, metrics. `qattn serve` starts it."""
