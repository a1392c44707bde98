"""The page in a real browser: Debian's chromium, headless, through selenium.

What answers is a parrot whose evidence has a script in it; the folder has two
runs, index versions, swaps and a worker. Screenshots stay in pytest's folder.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import threading
import time

import pytest

from realm_jax import files
from realm_jax.data import sources
from realm_jax.retrieval import manifest
from realm_jax.serve import limits, server
from realm_jax.serve.folder import Folder

pytestmark = pytest.mark.nightly
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = "axe-core-4.14.1"
AXE_SHA512 = (
  "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37"
  "OgudVGtQ=="
)
INJECTIONS = [
  "<script>window.hit=1</script>",
  "<img src=x onerror=window.hit=1>",
  "<svg onload=window.hit=1>",
  '"><script>window.hit=1</script>',
  "'-window.hit=1-'",
  "javascript:window.hit=1",
  "{{constructor.constructor('window.hit=1')()}}",
  "${window.hit=1}",
  "</title><script>window.hit=1</script>",
  "<iframe srcdoc='<script>parent.hit=1</script>'>",
  "<math><mtext><style><img src=x onerror=window.hit=1>",
  "<a href=javascript:window.hit=1 autofocus onfocus=window.hit=1>x",
]


@pytest.fixture
def runs(untrained):
  """The folder, with what a run under way has."""
  run = untrained / "finetune"
  for version, step in ((3, 4), (4, 7)):
    path = run / "index" / str(version)
    path.mkdir(parents=True)
    made = dict.fromkeys(manifest.KEYS, "")
    more = {"version": version, "params_step": step, "shape": [11, 4]}
    manifest.write(path, made | more | {"seconds": 0.5})
  swaps = [{"step": s, "version": v, "params_step": s, "overlap": 0.5, "seconds": 1}
           for s, v in ((3, 3), (6, 4))]  # fmt: skip
  lines = "".join(json.dumps(swap) + "\n" for swap in swaps)
  (run / "index" / "swaps.jsonl").write_text(lines)
  said = {"state": "embedding", "message": "3 of 9 chunks"}
  files.write_json(run / "workers" / "w1.json", said)
  return untrained


@pytest.fixture
def site(runs, parrots):
  options = server.Options(port=0, limits=limits.Limits(seconds=5.0))
  desk = parrots.desk(max_waiting=64)
  desk.start()
  made = server.make_server(Folder(runs), desk, options, parrots.notes.append)
  sock = made.config.bind_socket()
  thread = threading.Thread(target=made.run, kwargs={"sockets": [sock]})
  thread.start()
  yield f"http://localhost:{sock.getsockname()[1]}"
  made.should_exit = True
  thread.join(20)
  sock.close()


class Browser:
  """A window; `close` says what it complained of."""

  def __init__(self, site, folder, width=1280, height=900, dark=False):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
      options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    self.driver = webdriver.Chrome(options=options, service=service)
    self._site, self._folder = site, folder
    self.cdp(
      "Emulation.setDeviceMetricsOverride",
      width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
    )  # fmt: skip
    scheme = {
      "name": "prefers-color-scheme",
      "value": "dark" if dark else "light",
    }
    self.cdp("Emulation.setEmulatedMedia", features=[scheme])

  def cdp(self, command, **arguments):
    return self.driver.execute_cdp_cmd(command, arguments)

  def open(self, address="/"):
    self.driver.get(self._site + address)

  def all(self, selector):
    return self.driver.find_elements("css selector", selector)

  def one(self, selector, seconds=8):
    """The first visible element; waits for it."""
    for _ in range(20 * seconds):
      if found := [e for e in self.all(selector) if e.is_displayed()]:
        return found[0]
      time.sleep(0.05)
    raise AssertionError(f"{selector} never came: {self.all('body')[0].text}")

  def text(self, selector):
    return self.one(selector).text

  def run(self, script, *arguments):
    return self.driver.execute_script(script, *arguments)

  def press(self, *keys):
    """Keys to whatever has the focus."""
    self.driver.switch_to.active_element.send_keys(*keys)

  def ask(self, question):
    from selenium.webdriver.common.keys import Keys

    field = self.one("#question")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(question, Keys.ENTER)

  def shoot(self, name):
    got = self.cdp("Page.captureScreenshot", captureBeyondViewport=True)
    path = self._folder / f"{name}.png"
    path.write_bytes(base64.b64decode(got["data"]))

  def complaints(self):
    """Errors and refusals of the policy, in the console."""
    return [
      line["message"]
      for line in self.driver.get_log("browser")
      if line["level"] != "DEBUG"
    ]


@pytest.fixture
def browser(site, tmp_path):
  """browser(**options) -> Browser."""
  pytest.importorskip("selenium", reason="no selenium: pip install .[browser]")
  if not (CHROMIUM and DRIVER):
    pytest.skip("no chromium and chromedriver: apt install chromium-driver")
  opened = []

  def call(**options):
    opened.append(Browser(site, tmp_path, **options))
    return opened[-1]

  yield call
  for one in opened:
    said = one.complaints()
    one.driver.quit()
    assert said == []


def test_ask_and_read_the_evidence(browser):
  b = browser()
  b.open()
  b.ask("who lived in Delft")
  assert b.text(".with .says") == "who lived in Delft"
  assert b.text(".with .sure").replace("\u2009", " ") == "25 %"
  assert b.text(".without .says") == "nothing"
  assert "index 1, 4 steps behind, made" in b.text(".source")
  first, null = b.all(".block")
  assert "p(z|x) 0.750" in first.text and "the answer" in first.text
  assert "No evidence (null block)" in null.text
  assert b.text("mark.chosen") == "w"  # the span is (0, 1)
  share = b.run("const [t, s] = arguments; return s.offsetWidth / t.offsetWidth",
                b.one(".block .bar"), b.one(".block .bar span"))  # fmt: skip
  assert share == pytest.approx(0.75, abs=0.01)
  b.shoot("ask")


def test_a_permalink_and_the_way_back(browser):
  b = browser()
  b.open()
  b.ask("first question")
  b.one(".says")
  b.ask("second question")
  while b.text(".says") != "second question":
    time.sleep(0.05)
  address = b.driver.current_url
  b.driver.back()
  while b.text(".says") != "first question":
    time.sleep(0.05)
  b.driver.get(address)
  assert b.text(".says") == "second question"
  assert b.one("#question").get_attribute("value") == "second question"
  assert b.driver.title.startswith("second question")


def test_the_lists_follow_the_way_back(browser):
  b = browser()
  b.open("/?q=who&run=finetune&index=3")
  b.one(".says")
  chosen = (
    "return ['run', 'index'].map((id) => document.getElementById(id).value)"
  )
  assert b.run(chosen) == ["finetune", "3"]
  b.run("document.querySelector('[data-view=runs]').click()")
  b.one(".chart")
  b.run("document.querySelector('[data-view=ask]').click()")
  assert b.run(chosen) == ["", ""]
  b.driver.back()
  b.driver.back()
  b.one(".says")
  assert b.run(chosen) == ["finetune", "3"]


def test_two_versions_side_by_side(browser):
  b = browser()
  b.open("/?q=who&run=finetune&beside=finetune~3")
  b.one("#answers.two")
  sources = [e.text for e in b.all(".source")]
  assert "index 1" in sources[0] and "index 3" in sources[1]
  assert "2 of 2 blocks are found by both" in b.text(".shared")
  left, right = b.all(".answer")
  assert left.rect["y"] == right.rect["y"] and left.rect["x"] < right.rect["x"]
  b.shoot("beside")


def test_the_keyboard_alone(browser):
  from selenium.webdriver.common.keys import Keys

  b = browser()
  b.open()
  b.one(".hint")
  b.press("typed at once", Keys.ENTER)  # the field has the focus
  assert b.text(".says") == "typed at once"
  b.run("document.activeElement.blur()")
  b.one("body").send_keys("/")
  assert b.run("return document.activeElement.id") == "question"
  reached = set()
  for _ in range(9):
    b.press(Keys.TAB)
    reached.add(b.run("return document.activeElement.id || "
                      "document.activeElement.textContent"))  # fmt: skip
  assert {"run", "index", "beside", "Ask", "Runs"} <= reached | {"Ask", "Runs"}
  b.open("/?view=runs")
  b.one(".chart").click()
  b.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
  assert "step 0" in b.text(".chart .readout")
  box = b.one("input[type=checkbox]")
  box.send_keys(Keys.SPACE)
  assert b.run("return document.activeElement.type") == "checkbox"


def test_the_dashboard_of_a_live_run(browser, runs):
  b = browser()
  b.open("/?view=runs")
  rows = [e.text for e in b.all("tbody tr")] if b.one(".chart") else []
  assert "first live finds blocks 9 / 20" in rows[0].replace("\n", " ")
  assert "4, 1 step behind" in rows[1] and "1 of 1" in rows[1]
  assert "live" in rows[1]
  assert b.text(".chart .value") == "2"
  b.run("document.querySelector('.chart').focus()")
  value = "return document.querySelector('.chart .value')?.textContent"
  with (runs / "finetune" / "metrics.jsonl").open("a") as f:
    f.write('{"step": 3, "loss": 0.5}\n')
  for _ in range(200):
    if b.run(value) == "0.5":
      break
    time.sleep(0.05)
  assert b.run(value) == "0.5"  # drawn anew, and the keyboard is where it was
  assert b.run("return document.activeElement.className") == "chart"
  label = b.one(".timeline").get_attribute("aria-label")
  assert "version 3 from step 3, version 4 from step 6" in label
  assert "3 of 9 chunks" in b.text("#workers")
  b.all("input[type=checkbox]")[0].click()
  b.one("#differences summary").click()
  assert "mask_rate" in b.text("#differences")
  b.shoot("runs")


@pytest.mark.parametrize("dark", [False, True])
def test_phone_width(browser, dark):
  b = browser(width=360, height=740, dark=dark)
  for name, address in (
    ("ask", "/?q=" + "long" * 60 + "&beside=first~"),
    ("runs", "/?view=runs"),
  ):
    b.open(address)
    b.one(".answer, .chart")
    wide = "return document.documentElement.scrollWidth - innerWidth"
    assert b.run(wide) <= 0, name
    b.shoot(f"phone_{name}_{'dark' if dark else 'light'}")
  paper = "return getComputedStyle(document.body).backgroundColor"
  assert (b.run(paper) == "rgb(23, 24, 26)") == dark


def test_refusals_are_shown(browser):
  b = browser()
  b.open("/?q=%3F%21")
  assert b.text(".status.trouble") == (
    "No answer: the question has no word: write some."
  )
  said = b.complaints()
  assert len(said) == 1 and "400" in said[0]  # the browser's own line


def test_what_is_injected_is_text(browser):
  b = browser()
  for text in INJECTIONS:
    b.open()
    b.ask(f"what {text}")
    assert b.text(".with .says") == " ".join(f"what {text}".split())
    assert f"{text} <img src=x onerror=alert(1)>" in b.text(".text")
  assert b.run("return window.hit") is None
  assert not b.all(
    "#answers script, #answers img, #answers svg, #answers iframe"
  )


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(browser, dark):
  b = browser(dark=dark)
  for address in ("/", "/?q=who&beside=first~", "/?view=runs"):
    b.open(address)
    b.one(".hint, .answer, .chart")
    for details in b.all("details"):
      details.find_element("css selector", "summary").click()
    b.run(_axe())
    found = b.driver.execute_async_script(
      "axe.run(document).then(arguments[arguments.length - 1])"
    )
    said = [
      (v["id"], v["impact"], [node["html"][:120] for node in v["nodes"]][:3])
      for v in found["violations"]
    ]
    assert said == [], address
    assert len(found["passes"]) > 10


def _axe():
  """The source of axe-core, fetched once from npm and checked."""
  path = sources.cache_dir() / f"{AXE}.tgz"
  if not path.exists():
    if not shutil.which("npm"):
      pytest.skip(f"no npm to fetch {AXE}: put {AXE}.tgz at {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    name = AXE.replace("core-", "core@")
    subprocess.run(["npm", "pack", name], cwd=path.parent, check=True)
  digest = hashlib.sha512(path.read_bytes()).digest()
  assert base64.b64encode(digest).decode() == AXE_SHA512
  with tarfile.open(path) as archive:
    return archive.extractfile("package/axe.min.js").read().decode()
