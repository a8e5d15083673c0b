from __future__ import annotations

from qiskit_qattn.training.playtext import plain_text

PLAY = r"""# The Two Testers

## ACT I

### SCENE I. A room.

_Enter ALPHA, and
BETA with a lamp_

**ALPHA**/
Who's there?/
Speak, I say!

**BETA**/
_\[Aside to ALPHA]_/
'Tis I: now stand,\--or sit. _\[Sits]_

**Second Tester**/
[Within]_/
Ho, _\[Knocks]_ within!

_Thunder_

Ho again, & c. he cries —

#### ACT II

Lines that nobody speaks.

*A list.*

1\. First, a lamp/
and a torch.

**ALPHA: & BETA:**/
*[They sit.]*/
We 2 are "one".

**BETA**/
__\[Sighs]_

_Exeunt_
""".replace("/\n", "  \n")  # a slash stands for the two spaces of a Markdown line break

TEXT = """ALPHA:
Who's there?
Speak, I say!

BETA:
'Tis I: now stand,--or sit.

Second Tester:
Ho, within!
Ho again, &c. he cries --

ALPHA & BETA:
We 2 are "one".
"""


def test_a_play_reads_as_a_play():
    assert plain_text(PLAY) == TEXT


def test_a_text_without_speeches_is_empty():
    assert plain_text("") == ""
    assert plain_text("# Title\n\n_Exeunt_\n\nA line.\n") == ""


def test_every_block_opens_with_a_name():
    for block in plain_text(PLAY).split("\n\n"):
        name, *lines = block.split("\n")
        assert name.endswith(":")
        assert lines


def test_paragraphs_of_one_speech_stay_together():
    assert plain_text("**A**  \nOne,  \ntwo.\n\nThree.\n \nFour.\n") == "A:\nOne,\ntwo.\nThree.\nFour.\n"


def test_a_name_within_a_paragraph_starts_a_speech():
    assert plain_text("**A**  \nOne.\n_\\[To B]_  \n**B**  \nTwo.\n") == "A:\nOne.\n\nB:\nTwo.\n"
