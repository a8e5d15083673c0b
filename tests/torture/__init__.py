"""Attacks on what this package promises of jobs, money and errors: ``make torture`` prints a table of what held.

``python -m tests.torture --seed 7`` repeats the attacks of a seed. Paying processes are real: they run the real clients
of IBM and AWS against services on the loopback (``tests/providers``), whose own records say what was run and charged.
"""
