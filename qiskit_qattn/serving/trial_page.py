"""The page to try a model: one file, and the headers that let a browser run nothing but what is in it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files


@cache
def trial_page() -> tuple[str, dict[str, str]]:
    """Return the page, and the headers of its answer.

    Its policy names the hashes of the one script and the one style sheet that it has; the page loads nothing, speaks to
    its own server only, is in no other page's frame, and cannot turn text into elements.
    """
    text = files("qiskit_qattn.serving").joinpath("page/index.html").read_text("utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": _hashes(text, "script"),
        "style-src": _hashes(text, "style"),
        "img-src": "data:",  # the empty icon
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return text, {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "cache-control": "no-cache",
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def _hashes(text: str, element: str) -> str:
    """Return the hashes of the content of all such elements, as a policy has them."""
    found = re.findall(rf"<{element}>(.*?)</{element}>", text, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode("ascii") for each in found]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
