"""Put what a study found into docs/findings.md: question, method, tables, figures, limits and the one command.

    qattn compare --kinds all --tasks characters,films,digits ... --out runs/study
    python -m benchmarks.findings runs/study

The part of the page between two comments is replaced by the report of the study, and its figures are copied. What it
means is written by hand, around that part. A study that is not complete is refused.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

BEGIN = "<!-- python -m benchmarks.findings STUDY writes what stands from here -->"
END = "<!-- to here -->"
_PAGE = Path(__file__).parents[1] / "docs" / "findings.md"
_FIGURES = ("differences", "cost")


def put(study: Path, page: Path) -> None:
    """Write a study's report into a page, and its figures into the folder ``images`` beside it.

    Args:
        study: The folder of a comparison over tasks, with its ``report.md``.
        page: The page, with the two comments.

    Raises:
        SystemExit: If the study is not complete, or the page has no place for it.
    """
    report, text = (study / "report.md").read_text(encoding="utf-8"), page.read_text(encoding="utf-8")
    found = re.search(r"^## Question$.*", report, re.MULTILINE | re.DOTALL)
    if "**Incomplete:**" in report or found is None:
        raise SystemExit(f"{study} holds no complete comparison over tasks; run its command to the end.")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} needs two lines, {BEGIN} and {END}, between which the results go.")
    body = found[0].strip()
    for name in _FIGURES:
        shutil.copyfile(study / f"{name}.png", page.parent / "images" / f"findings-by-task-{name}.png")
        body = body.replace(f"({name}.png)", f"(images/findings-by-task-{name}.png)")
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the folder of the study, its --out")
    put(parser.parse_args().study, _PAGE)


if __name__ == "__main__":
    main()
