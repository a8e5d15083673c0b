"""Profiles of hypothesis: the same few examples in each run of the tests, or many new ones (``make fuzz``)."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

_PHASES = [Phase.generate, Phase.shrink]
_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "properties", max_examples=5, deadline=None, database=None, phases=_PHASES, suppress_health_check=_CHECKS
)
settings.register_profile("fuzz", settings.get_profile("properties"), max_examples=50, print_blob=True)
