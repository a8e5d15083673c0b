"""The tables of ``gpu.py``: models, circuits, training speed."""
