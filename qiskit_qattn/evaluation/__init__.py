"""Evaluation of models: causality, costs, reports, comparisons, noise sweeps and published claims."""
