"""How circuits are evaluated: batched, differentiable torch programs."""
