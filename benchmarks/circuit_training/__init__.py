"""Tools for training circuits, each compared with training without it."""
