"""The page to try a model, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from qiskit_qattn import GPT, GPTConfig
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.keys import Keys, create_key
from qiskit_qattn.serving.models import load
from qiskit_qattn.serving.settings import Settings
from qiskit_qattn.serving.trial_page import trial_page
from qiskit_qattn.training.checkpoint import save_model
from qiskit_qattn.training.tokenizer import CharTokenizer
from tests.browser import chromium

from .servers import Served, serving, until

HOSTILE = "<script>document.title='hit'</script><img src=x onerror=\"document.title='hit'\">"


def saying(text: str, folder: Path) -> Path:
    """Save a GPT whose most likely continuation of "say:" is a text, whatever its heads compute."""
    letters = CharTokenizer("".join(sorted({*"say:", *text})))
    config = GPTConfig(
        vocab_size=letters.vocab_size,
        **{"block_size": len(text) + 4, "n_layer": 2, "n_head": 2, "n_embd": 64, "num_qubits": 3},
        heads="qisa:1,classical:1",
    )
    torch.manual_seed(0)
    model, unit = GPT(config), torch.eye(64)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        model.wte.weight.copy_(unit[: letters.vocab_size])
        model.wpe.weight.zero_()
        model.wpe.weight[3:-1] = 10 * unit[letters.encode(text)]
    save_model(folder, model, letters)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a function that opens a server's page and returns the browser."""
    with chromium(tmp_path_factory.mktemp("chromium"), "browser") as browser:
        yield Page(browser)


class Page:
    """The page as its user sees it."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def open(self, served: Served) -> Page:
        self.browser.get_log("browser")  # of the test before
        self.browser.get(f"{served.url}/")
        self.browser.execute_script("sessionStorage.clear()")
        assert until(lambda: self["model"].get_attribute("value") or self.error)
        return self

    def __getitem__(self, name: str) -> Any:
        return self.browser.find_element("id", name)

    def text(self, name: str) -> str:
        return str(self[name].get_attribute("textContent"))

    @property
    def error(self) -> str:
        return self.text("error")

    def set(self, name: str, value: object) -> None:
        """Fill a field or move a slider, as the user's events do."""
        self.browser.execute_script(
            "arguments[0].value = arguments[1]; for (const kind of ['input', 'change'])"
            " arguments[0].dispatchEvent(new Event(kind, {bubbles: true}));",
            self[name],
            value,
        )

    def generate(self, prompt: str, **fields: object) -> None:
        for name, value in {"prompt": prompt, **fields}.items():
            self.set(name, value)
        self["go"].click()

    def ended(self) -> str:
        """Wait for the end of an answer, and return the status."""
        assert until(lambda: self["go"].is_enabled())
        return self.text("status")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server whose model says what would run in a careless page."""
    model = load(str(saying(HOSTILE, tmp_path_factory.mktemp("models") / "hostile")))
    with serving({"hostile": Engine(model)}, Settings(port=0, log_level="error")) as found:
        yield found


def test_a_text_streams_and_is_shown_as_text_with_where_heads_ran(page: Page, hostile: Served):
    page.open(hostile)
    assert page.text("layers").count("not yet") == 4
    page.browser.execute_script(
        "window.lengths = []; new MutationObserver(() => window.lengths.push(document.getElementById('answer')"
        ".textContent.length)).observe(document.getElementById('answer'), {childList: true, subtree: true});"
    )
    page.generate("say:", temperature=0, max_tokens=len(HOSTILE))
    assert re.fullmatch(rf"{len(HOSTILE)} tokens in \d+\.\d s\.", page.ended())
    assert page.text("answer") == "say:" + HOSTILE
    lengths = page.browser.execute_script("return window.lengths")
    assert len(set(lengths)) > 3 and lengths == sorted(lengths)
    assert page.browser.title == "qattn" and not page.browser.find_elements(
        "css selector", "#answer script, #answer img"
    )
    rows = [row.text.split("\n") for row in page.browser.find_elements("css selector", "#layers > li")]
    assert rows == [[f"Layer {layer}", "qisa-v3", "statevector", "classical", "torch"] for layer in range(2)]
    assert f"statevector: {2 * len(HOSTILE)} calls" in page.text("legend")
    assert not page.error and not page.browser.get_log("browser")  # nothing was blocked


def test_the_same_seed_gives_the_same_text_as_the_api(page: Page, hostile: Served):
    with hostile.client() as client:
        options: dict[str, Any] = {"max_tokens": 12, "temperature": 2.0, "top_p": 0.9, "seed": 7}
        text = client.completions.create(model="hostile", prompt="say:", **options).choices[0].text
    page.open(hostile)
    page.generate("say:", **options)
    page.ended()
    assert page.text("answer") == "say:" + text
    assert page.browser.find_element("css selector", "output[for=top_p]").text == "0.9"


def test_stop_ends_the_generation(page: Page, hostile: Served):
    page.open(hostile)
    before = hostile.engine.stats()["cancelled"]
    page.generate("say:", max_tokens=1000)
    assert until(lambda: len(page.text("answer")) > 8)
    page["stop"].click()
    assert page.ended() == "Stopped."
    assert 8 < len(page.text("answer")) < 1004
    assert until(lambda: hostile.engine.stats()["cancelled"] == before + 1)
    page.generate("say:", max_tokens=3)
    assert page.ended().startswith("3 tokens")


CLOSED = """
from qiskit.primitives import StatevectorEstimator
from qiskit_qattn.backends.registry import Backend, Provider
from qiskit_qattn.errors import BackendError

class Lab(StatevectorEstimator):
    def run(self, pubs, *, precision=None):
        raise BackendError("The laboratory is <b>closed</b>.")

PROVIDER = Provider("A laboratory", lambda spec: Backend(str(spec), Lab()))
"""


@pytest.mark.filterwarnings("ignore::qiskit_qattn.nn.audit.FallbackWarning")
def test_what_fell_back_is_told(page: Page, tmp_path: Path, install_package: Any):
    install_package("qattn-lab-page", "qattn_lab_page", CLOSED, {"lab": "qattn_lab_page:PROVIDER"})
    model = load(str(saying("hey", tmp_path / "hey")), backend="lab -> statevector")
    with serving({"hey": Engine(model)}, Settings(port=0, log_level="error")) as served:
        page.open(served).generate("say:", temperature=0, max_tokens=3)
        assert page.ended().startswith("3 tokens") and page.text("answer") == "say:hey"
    assert "statevector" in page.text("layers")
    assert "Layer 0, qisa-v3: lab failed 3 times, then statevector. The laboratory is <b>closed</b>." in page.text(
        "notes"
    )


@pytest.mark.more
def test_a_model_for_chats_is_asked_in_a_conversation(page: Page, byte_tokenizer: Any):
    from transformers import LlamaConfig, LlamaForCausalLM

    from qiskit_qattn.serving.hugging_face import ServedTransformer

    torch.manual_seed(0)
    byte_tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(byte_tokenizer), max_position_embeddings=256, eos_token_id=None, **sizes)
    model = ServedTransformer("talker", LlamaForCausalLM(config), byte_tokenizer)
    with serving({"talker": Engine(model)}, Settings(port=0, log_level="error")) as served:
        page.open(served).generate("Hello", max_tokens=4)
        assert page.ended().startswith("4 tokens") and not page.error
        page.generate("Again", max_tokens=4)
        page.ended()
        who = [each.text for each in page.browser.find_elements("css selector", "#answer .who")]
        assert who == ["You", "Model", "You", "Model"] and "Hello" in page.text("answer")
        page["clear"].click()
        assert page.text("answer") == ""
    assert page.text("notes") == "This model has no heads that can be told apart."


def test_errors_are_shown_as_the_server_says_them(page: Page, hostile: Served):
    page.open(hostile)
    page.generate("say:", max_tokens=2)
    page.ended()
    page.generate("€")
    page.ended()
    assert "€" in page.error and page["error"].is_displayed()
    assert page.text("layers").count("not yet") == 4  # not where the last answer was computed
    page.generate("say:", max_tokens=2)
    assert page.ended().startswith("2 tokens") and not page["error"].is_displayed()


@pytest.fixture
def keyed(hostile: Served, tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """Return a server that asks for a key, and the key."""
    secret = create_key(tmp_path / "keys.jsonl", "alice")
    engines, settings = {"keyed": Engine(hostile.engine.model)}, Settings(port=0, log_level="error")
    with serving(engines, settings, Keys(tmp_path / "keys.jsonl")) as found:
        yield found, secret


def test_a_key_is_asked_for_and_kept_in_the_tab_only(page: Page, keyed: tuple[Served, str]):
    served, secret = keyed
    page.open(served)
    assert "API key" in page.error and not page["model"].get_attribute("value")
    page.set("key", "wrong")
    assert until(lambda: "Incorrect API key" in page.error)
    page.set("key", secret)
    assert until(lambda: page["model"].get_attribute("value")) and not page.error
    page.generate("say:", max_tokens=4)
    assert page.ended().startswith("4 tokens")
    assert page.browser.execute_script("return [localStorage.length, document.cookie]") == [0, ""]
    page.browser.refresh()
    assert until(lambda: page["model"].get_attribute("value"))


def test_keys_of_the_keyboard_and_names_of_fields(page: Page, hostile: Served):
    from selenium.webdriver.common.keys import Keys as Press

    page.open(hostile)
    page.set("max_tokens", 3)
    page["prompt"].send_keys("say:", Press.CONTROL, Press.ENTER)
    assert until(lambda: page.text("status").startswith("3 tokens"))
    fields = page.browser.find_elements("css selector", "input, select, textarea, button, #answer")
    shown = [field for field in fields if field.is_displayed()]
    assert len(shown) == 10 and all(field.accessible_name for field in shown)
    order = []
    page.browser.execute_script("arguments[0].focus()", page["model"])
    for _ in range(4):
        page.browser.switch_to.active_element.send_keys(Press.TAB)
        order.append(page.browser.switch_to.active_element.get_attribute("id"))
    assert order == ["prompt", "go", "temperature", "top_p"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_width_with_enough_contrast(page: Page, hostile: Served, scheme: str):
    page.open(hostile)
    feature = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
    page.generate("say:", max_tokens=5)
    page.ended()
    for width in (390, 1280, 1920):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= width
        boxes = "return [...document.querySelectorAll('section')].map(each => each.getBoundingClientRect().toJSON())"
        text, heads = page.browser.execute_script(boxes)
        assert heads["top"] - text["bottom"] < 20  # one directly below the other, or side by side
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    low = page.browser.execute_script(LOW_CONTRAST)
    assert low == []


# Texts whose contrast with what is behind them is below 4.5, as WCAG defines it.
LOW_CONTRAST = """
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const color = numbers(getComputedStyle(element).backgroundColor);
    if (color.length < 4 || color[3]) return color;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll("body *")]
  .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((each) => each.checkVisibility())
  .filter((each) => !["SCRIPT", "STYLE"].includes(each.tagName) && !each.disabled)
  .map((each) => [each.outerHTML.slice(0, 80), light(numbers(getComputedStyle(each).color)), light(behind(each))])
  .map(([name, a, b]) => [name, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)])
  .filter(([, ratio]) => ratio < 4.5);
"""


def test_nothing_else_than_the_page_itself_may_run(page: Page, hostile: Served):
    answer = httpx2.get(f"{hostile.url}/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    page.open(hostile)
    for code in ("body.innerHTML = '<b>hit</b>'", "body.setAttribute('onclick', 'document.title = 1')"):
        with pytest.raises(Exception, match="This document requires 'Trusted"):
            page.browser.execute_script(f"document.{code}")
    page.browser.execute_script(
        "const made = document.createElement('style'); made.append('body {color: red}'); document.head.append(made)"
    )
    [message] = [each["message"] for each in page.browser.get_log("browser") if "style" in each["message"]]
    assert "violates the following Content Security Policy" in message
    assert page.browser.title == "qattn"


def test_the_page_loads_nothing_and_inserts_text_only():
    text, _ = trial_page()
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage", text)
