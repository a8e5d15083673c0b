"""Runs the Python blocks of README.md as tests.

A block of another language is not run. To leave a Python block out, put the comment ``<!--- skip: next -->`` on a
line of its own before it.
"""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["README.md"]).pytest()
