"""A comparison of kinds of head: planned, matched in size, trained cell by cell, measured, judged and reported."""
