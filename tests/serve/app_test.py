"""Bad input and bad visitors: answered, or refused with a reason, never a 500."""

import html.parser
import json
import re

import pytest
from starlette.testclient import TestClient

from realm_jax.serve import app, limits
from realm_jax.serve.folder import Folder

LIMITS = limits.Limits(seconds=5.0)
HOSTS = ("localhost", "127.0.0.1", "[::1]", "realm.example")


def make_client(untrained, parrots, token="", limit=LIMITS, **options):
  desk = parrots.desk(**options)
  folder = Folder(untrained)
  desk.start()
  made = app.make_app(folder, desk, limits=limit, hosts=HOSTS, token=token)
  return TestClient(
    made, base_url="http://localhost:8765", raise_server_exceptions=False
  )


@pytest.fixture
def client(untrained, parrots):
  return make_client(untrained, parrots)


def ask(client, question, **more):
  return client.post("/api/ask", json={"question": question, **more})


def test_an_answer_is_the_explanation(client):
  answer = ask(client, "who?")
  assert answer.status_code == 200
  assert answer.json()["answer"] == "who?"
  assert answer.json()["run"] == "finetune"  # the most able
  assert answer.json()["evidence"][0]["span"] == [0, 1]
  assert ask(client, "who?", run="first").json()["run"] == "first"


@pytest.mark.parametrize(
  "question",
  [
    "מי צייר את הנערה",
    "من رسم الفتاة؟ \u202e reversed",
    "<script>alert(1)</script>",
    "'; DROP TABLE blocks; -- x",
    "a\x00b\x07",
    "é" * 2000,
    "🦊 fox",
    "[MASK]",
    "../../etc/passwd",
  ],
)
def test_odd_text_is_text(client, question):
  answer = ask(client, question)
  assert answer.status_code == 200
  assert answer.json()["question"] == question
  assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
  ("body", "status", "said"),
  [
    (b'{"question": ""}', 400, "has no word"),
    (b'{"question": " \\n?! "}', 400, "has no word"),
    (b'{"question": "%s"}' % (b"x" * 2001), 400, "2001 characters: at most"),
    (b'{"question": "%s"}' % (b"x" * 100_000), 413, "more than 64 kB"),
    (b"\xff\xfe\x00\x01", 400, "not JSON in UTF-8"),
    (b'{"question": "\xff"}', 400, "not JSON in UTF-8"),
    (b'{"question": "\\ud800 x"}', 400, "half a character"),
    (b"", 400, "not JSON"),
    (b"[]", 400, "wanted"),
    (b"null", 400, "wanted"),
    (b'{"question": 3}', 400, "wanted"),
    (b'{"question": ["x"]}', 400, "wanted"),
    (b"[" * 60_000, 400, "not JSON"),
    (b'{"question": "x", "cheat": 1}', 400, "unknown key 'cheat'"),
    (b'{"question": "x", "run": 3}', 400, "run: wanted"),
    (b'{"question": "x", "run": "../../etc"}', 400, "no such run; there are: "),
    (b'{"question": "x", "run": "/etc"}', 400, "no such run"),
    (b'{"question": "x", "index": true}', 400, "index: wanted"),
    (b'{"question": "x", "index": 1.5}', 400, "index: wanted"),
    (b'{"question": "x", "index": "../7"}', 400, "has no such version"),
    (b'{"question": "x", "index": %s}' % (b"9" * 5000), 400, "not JSON"),
  ],
)  # fmt: skip
def test_bad_questions_are_refused_with_a_reason(client, body, status, said):
  headers = {"content-type": "application/json"}
  answer = client.post("/api/ask", content=body, headers=headers)
  assert answer.status_code == status
  assert said in answer.json()["error"]


def test_a_long_body_that_hides_its_length(client):
  def pieces():
    for _ in range(70):
      yield b"x" * 1024

  headers = {"content-type": "application/json"}
  answer = client.post("/api/ask", content=pieces(), headers=headers)
  assert answer.status_code == 413


def test_a_form_of_another_site_is_refused(client):
  for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
    answer = client.post(
      "/api/ask", content=b'{"question": "x"}', headers={"content-type": kind}
    )
    assert answer.status_code == 415


def test_a_fault_of_ours_shows_nothing_of_it(untrained, parrots):
  client = make_client(untrained, parrots)
  answer = ask(client, "divide by zero")
  assert answer.status_code == 500
  assert answer.json() == {"error": "a fault of the server's; its log has more"}


@pytest.mark.parametrize(
  ("host", "status"),
  [
    ("localhost", 200),
    ("LOCALHOST:99", 200),
    ("[::1]:8765", 200),
    ("realm.example", 200),
    ("evil.example", 421),
    ("localhost.evil.example", 421),
    ("localhost:8765@evil.example", 421),
    ("", 421),
  ],
)
def test_hosts(client, host, status):
  answer = client.get("/", headers={"host": host})
  assert answer.status_code == status
  assert client.get("/api/runs", headers={"host": host}).status_code == status


def test_the_token(untrained, parrots):
  client = make_client(untrained, parrots, token="s3cret-s3cret-s3cret")
  assert client.get("/").status_code == 200
  for given in ("", "Bearer ", "Bearer s3cret", "Basic é"):
    headers = {"authorization": given.encode()}
    for answer in (
      client.get("/api/runs", headers=headers),
      client.post("/api/ask", json={"question": "x"}, headers=headers),
    ):
      assert answer.status_code == 401
      assert "token" in answer.json()["error"]
  headers = {"authorization": "Bearer s3cret-s3cret-s3cret"}
  assert client.get("/api/runs", headers=headers).status_code == 200


@pytest.mark.parametrize(
  "path",
  [
    "/page", "/page/", "/page.css/", "/index.html", "/app.py", "/__init__.py",
    "/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "//etc/passwd", "/etc/passwd",
    "/first/config.json", "/api", "/api/", "/api/ask/", "/%00", "/static/",
    "/api/curves/..%2f..%2f",
  ],
)  # fmt: skip
def test_no_other_file_and_no_listing(client, path):
  answer = client.get(path, follow_redirects=False)
  assert answer.status_code in (404, 307)
  assert "root:" not in answer.text and "import" not in answer.text


def test_methods(client):
  assert client.get("/api/ask").status_code == 405
  assert client.post("/", content=b"x").status_code == 405
  assert client.request("TRACE", "/").status_code == 405
  assert client.head("/").status_code == 200


def test_headers_are_on_everything(client):
  answers = [
    client.get("/"),
    client.get("/main.js"),
    client.get("/nowhere"),
    client.get("/", headers={"host": "evil.example"}),
    ask(client, "x"),
    ask(client, ""),
  ]
  for answer in answers:
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "unsafe" not in policy and "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


class _Page(html.parser.HTMLParser):
  """What a policy of 'self' forbids, and what comes from elsewhere."""

  def __init__(self):
    super().__init__()
    self.found, self.ids = [], set()

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.ids.add(attrs.get("id"))
    self.found += [f"{tag} {a}" for a in attrs if a.startswith("on")]
    self.found += ["style"] if tag == "style" or "style" in attrs else []
    self.found += ["script"] if tag == "script" and "src" not in attrs else []
    for name in ("src", "href", "action"):
      address = attrs.get(name, "/")
      if not (address.startswith(("/", "#"))) or address.startswith("//"):
        self.found.append(address)


def test_the_page_has_nothing_inline_and_nothing_foreign(client):
  page = _Page()
  page.feed(client.get("/").text)
  assert page.found == []
  for path in sorted(app.PAGE.glob("*.js")):
    source = path.read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(",
                 "document.write", "Function(", "DOMParser"):  # fmt: skip
      assert word not in source, f"{path.name}: {word}"
    used = set(re.findall(r'byId\("([\w-]+)"\)', source))
    assert used <= page.ids | {"token"}  # made when it is wanted


def test_too_many_wait(untrained, parrots):
  client = make_client(untrained, parrots, max_waiting=0)
  answer = ask(client, "x")
  assert answer.status_code == 503
  assert answer.headers["retry-after"] == "1"
  assert answer.json() == {"error": "too many questions wait"}


def test_too_long_in_work(untrained, parrots):
  limit = limits.Limits(seconds=0.2)
  client = make_client(untrained, parrots, limit=limit)
  assert ask(client, "x").status_code == 200
  parrots.opened[0].go_on.clear()
  answer = ask(client, "x")
  assert answer.status_code == 503
  assert answer.json() == {"error": "no answer within 0.2 s"}
  assert answer.headers["retry-after"] == "1"
  parrots.opened[0].go_on.set()


def test_the_runs(client, untrained):
  known = client.get("/api/runs").json()
  assert (known["default"], known["filler"]) == ("finetune", "finetune")
  first, second = known["runs"]  # as they began
  assert (first["name"], first["kind"], first["step"]) == ("first", "finds", 9)
  assert (second["name"], second["num_steps"]) == ("finetune", 21)
  assert set(known["differences"]) == {
    "train.num_steps", "name", "mask_rate", "reader_beam_size"
  }  # fmt: skip
  assert known["differences"]["mask_rate"] == {"first": 0.1, "finetune": None}


def test_a_damaged_run_hides_no_other(client, untrained):
  (untrained / "first" / "config.json").write_text("[")
  (untrained / "finetune" / "index").mkdir()
  (untrained / "finetune" / "index" / "swaps.jsonl").write_text("{\n")
  first, second = client.get("/api/runs").json()["runs"]
  assert "config.json" in first["trouble"]
  assert "swaps.jsonl:1 is damaged" in second["trouble"]
  assert second["step"] == 8


def test_curves_grow_with_the_file(client, untrained):
  def read(**more):
    return client.get("/api/curves", params={"run": "first", **more})

  path = untrained / "first" / "metrics.jsonl"
  before = read().json()
  (panel,) = before["panels"]  # a figure that is null everywhere has none
  assert (panel["title"], panel["unit"], panel["headline"]) == (
    "Loss", "nats", True
  )  # fmt: skip
  assert panel["curves"] == {"loss": {"steps": [0, 1, 2], "values": [4, 3, 2]}}
  assert read(mark=before["mark"]).status_code == 304
  with path.open("a") as f:
    f.write('{"step": 3, "loss": 1.5}\n{"step": 4, "lo')
  (panel,) = read(mark=before["mark"]).json()["panels"]
  assert panel["curves"]["loss"]["values"] == [4, 3, 2, 1.5]
  path.unlink()
  path.write_text('{"step": 0, "loss": 9}\n')  # begun anew
  (panel,) = read().json()["panels"]
  assert panel["curves"]["loss"] == {"steps": [0], "values": [9]}
  assert read(run="nowhere").status_code == 400
  assert client.get("/api/curves").status_code == 400


def test_what_openapi_says_is_what_is_there(client):
  said = client.get("/openapi.json").json()
  paths = {p: [m.upper() for m in ways] for p, ways in said["paths"].items()}
  assert paths == {
    "/api/ask": ["POST"], "/api/runs": ["GET"], "/api/curves": ["GET"]
  }  # fmt: skip
  schemas = said["components"]["schemas"]
  for name, value in (
    ("Explanation", ask(client, "x").json()),
    ("Block", ask(client, "x").json()["evidence"][0]),
    ("Runs", client.get("/api/runs").json()),
    ("Run", client.get("/api/runs").json()["runs"][0]),
    ("Curves", client.get("/api/curves?run=first").json()),
    ("Error", client.get("/nowhere").json()),
  ):
    assert set(schemas[name]["required"]) == set(value), name
    assert set(schemas[name]["properties"]) == set(value), name
  keys = set(schemas["Question"]["properties"])
  assert keys == app.ASKED
  answers = json.dumps(said["paths"]["/api/ask"]["post"]["responses"])
  assert all(str(code) in answers for code in (400, 401, 413, 415, 421, 503))
