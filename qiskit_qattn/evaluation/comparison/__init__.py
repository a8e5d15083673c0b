"""A comparison of kinds of head: plan, matched sizes, training of each cell, statistics and report."""
