"""The command ``qattn``."""
