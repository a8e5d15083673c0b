"""Torch modules: the connector, quantum heads, their classical controls, attention and the GPT."""
