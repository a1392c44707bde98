import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import config_dict

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import (
  blocks,
  drops,
  input_pipeline,
  pages,
  prepare,
  qa,
  text_writer,
  tokenizer,
  update_blocks,
)
from realm_jax.data.articles import Article
from tests.data.dumps import dump, page

LINES = [
  {
    "id": f"a{i}",
    "title": f"Town {i}",
    "text": f"Town {i} lies in Switzerland. It was founded in {1800 + i}. The"
    f" poet Anna Keller lived there for {i + 2} years.",
  }
  for i in range(12)
]


def config(corpus, **changes):
  values = {
    "dir": "",
    "corpus": str(corpus),
    "text": "sentences",
    "qa": "",
    "qa_train": "",
    "qa_dev": "",
    "qa_test": "",
    "qa_options": {
      "regex": False,
      "hash_dev": False,
      "max_answer_words": 0,
      "regex_spans": 16,
      "regex_blocks": 0,
    },
    "annotator": "rules",
    "sentence_splitter": "rules",
    "block_len": 50,
    "max_articles": 0,
    "source_cache": "",
    "runner": "local",
    "workers": 1,
    "beam_args": "",
    "tokenizer": {
      "kind": "wordpiece",
      "vocab_size": 300,
      "vocab_file": "",
      "lower_case": True,
    },
  }
  made = config_dict.create(**values)
  made.update(changes)
  return made


@pytest.fixture
def corpus(tmp_path):
  path = tmp_path / "corpus.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
  return path


def contents(directory):
  """Every file of a directory with its hash, but for the seconds."""
  return {
    str(p.relative_to(directory)): files.sha256_file(p)
    for p in sorted(directory.rglob("*"))
    if p.is_file() and p.name != "manifest.json"
  }


def test_a_users_corpus_from_end_to_end(corpus, tmp_path):
  questions = tmp_path / "q.jsonl"
  questions.write_text(
    '{"question": "Who lived there?", "answer": ["Anna Keller"],'
    ' "article_id": "a3"}\n'
  )
  data = tmp_path / "data"
  manifest = prepare.prepare(
    config(corpus, qa="files", qa_train=str(questions)), data
  )
  assert manifest["counts"]["qa"] == {"train": 1, "dev": 0, "test": 0}
  assert manifest["counts"]["blocks"]["num_articles"] == 12
  assert manifest["counts"]["text"][0]["dev"] == 1
  assert "12 articles" in prepare.summary(manifest)
  sizes = {"batch_size": 3, "query_len": 20, "seed": 0}
  batch = next(
    input_pipeline.pretrain_batches(data, weights=[1], max_masks=4, **sizes)
  )
  store = input_pipeline.load_blocks(data)
  tok = tokenizer.load_tokenizer(data / "tokenizer")
  for row in range(3):
    body = store.body_ids(batch.own_block[row]).tolist()
    targets = batch.mlm_targets[row][batch.mlm_mask[row] == 1].tolist()
    assert targets
    assert set(targets) <= set(body)
  assert (batch.query.input_ids == tok.mask_id).any(axis=1).all()
  next(input_pipeline.ict_batches(data, block_len=40, mask_rate=1, **sizes))
  next(
    input_pipeline.qa_batches(
      data, "train", max_answers=1, max_answer_len=9, **sizes
    )
  )


def test_patterns_and_the_papers_dev_split(corpus, tmp_path):
  """Training looks for what the patterns match in the blocks."""
  questions = tmp_path / "q.jsonl"
  lines = [
    {"question": f"{i} what", "answer": [rf"180[{i}1]", "[", ""]}
    for i in range(23)
  ]
  questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
  options = {"regex": True, "hash_dev": True}
  manifest = prepare.prepare(
    config(corpus, qa="files", qa_train=str(questions), qa_options=options),
    tmp_path / "data",
  )
  dev = qa.read_qa(tmp_path / "data" / "qa" / "dev.jsonl")
  held_out = {  # by TensorFlow's hash
    2: ("1801", "1802"),
    9: ("1801", "1809"),
    10: ("1800", "1801"),
    22: ("1801", "1802"),
  }
  assert dev == [
    qa.Question(str(i), f"{i} what", [rf"180[{i}1]"], "", True, spans)
    for i, spans in held_out.items()
  ]
  counts = manifest["counts"]
  assert counts["qa"] == {"train": 19, "dev": 4, "test": 0}
  assert counts["qa_dropped"] == {
    "train": {"invalid regular expressions": 23, "empty answers": 23}
  }
  assert "dropped of qa_train: 23 invalid" in prepare.summary(manifest)
  batch = next(
    input_pipeline.qa_batches(
      tmp_path / "data", "train", batch_size=40, query_len=20, seed=0,
      max_answers=3, max_answer_len=9,
    )
  )  # fmt: skip
  tok = tokenizer.load_tokenizer(tmp_path / "data" / "tokenizer")
  years = {tuple(tok.encode(str(1800 + i))) for i in range(10)}
  rows = zip(
    batch.answer_ids.reshape(-1, 9), batch.answer_lens.ravel(), strict=True
  )
  found = {tuple(ids[:length].tolist()) for ids, length in rows if length}
  assert found == years


def test_patterns_looked_for_in_some_blocks(corpus, tmp_path):
  path = tmp_path / "q.jsonl"
  path.write_text('{"question": "when", "answer": ["18[01].", "20.."]}\n')
  options = {"regex": True, "regex_blocks": 3, "regex_spans": 2}
  changed = config(corpus, qa="files", qa_test=str(path), qa_options=options)
  prepare.prepare(changed, tmp_path / "data")
  (question,) = qa.read_qa(tmp_path / "data" / "qa" / "test.jsonl")
  assert question.spans == ("1800", "1804")  # of 1800, 1804 and 1808


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"qa_options": {"hash_dev": True}}, "it takes dev from train"),
    ({"qa_options": {"max_answer_words": 1}}, "none of its 1 questions is"),
  ],
)
def test_questions_that_cannot_be_had(corpus, tmp_path, changes, message):
  path = tmp_path / "q.jsonl"
  path.write_text('{"question": "who", "answer": ["two words"]}\n')
  train = "" if "hash_dev" in str(changes) else str(path)
  with pytest.raises(InputError, match=message):
    prepare.prepare(
      config(corpus, qa="files", qa_train=train, **changes), tmp_path / "data"
    )


def test_a_second_time_uses_what_is_there(corpus, tmp_path, monkeypatch):
  first = prepare.prepare(config(corpus), tmp_path / "data")
  monkeypatch.setattr(prepare, "_Preparation", None)
  assert prepare.prepare(config(corpus), tmp_path / "data") == first


def test_the_same_input_gives_the_same_files(corpus, tmp_path):
  prepare.prepare(config(corpus), tmp_path / "one")
  prepare.prepare(config(corpus), tmp_path / "two")
  assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_data_of_another_config_is_refused(corpus, tmp_path):
  prepare.prepare(config(corpus), tmp_path / "data")
  changed = config(corpus, block_len=60)
  with pytest.raises(InputError, match=r"data\.block_len = 50, now it is 60"):
    prepare.prepare(changed, tmp_path / "data")
  changed = config(corpus, tokenizer={"vocab_size": 299})
  with pytest.raises(InputError, match=r"data\.tokenizer\.vocab_size = 300"):
    prepare.prepare(changed, tmp_path / "data")
  with open(corpus, "a") as f:
    f.write('{"id": "n", "title": "New", "text": "New."}\n')
  with pytest.raises(InputError, match=r"the file .*corpus\.jsonl"):
    prepare.prepare(config(corpus), tmp_path / "data")


def test_data_from_before_splitters_could_be_chosen_is_used(corpus, tmp_path):
  prepare.prepare(config(corpus), tmp_path / "data")
  path = tmp_path / "data" / "manifest.json"
  manifest = files.read_json(path)
  del manifest["config"]["sentence_splitter"]
  files.write_json(path, manifest)
  assert prepare.prepare(config(corpus), tmp_path / "data") == manifest
  other = config(corpus, sentence_splitter="sentencex")
  with pytest.raises(InputError, match="sentence_splitter = 'rules', now it"):
    prepare.prepare(other, tmp_path / "data")


def test_another_splitter(tmp_path):
  text = "Am 3. Mai kam Anna Keller. Es regnete in Bonn."  # "3." ends none
  line = {"id": "b", "title": "Bonn", "text": text}
  (tmp_path / "de.jsonl").write_text(json.dumps(line) + "\n")
  (tmp_path / "texts.jsonl").write_text(json.dumps(line) + "\n")
  german = config(
    tmp_path / "de.jsonl",
    sentence_splitter="sentencex:de",
    text=str(tmp_path / "texts.jsonl"),
    tokenizer={"vocab_size": 80},
  )
  manifest = prepare.prepare(german, tmp_path / "data")
  store = blocks.BlockStore(tmp_path / "data" / "blocks")
  whole = [["Am 3. Mai kam Anna Keller.", "Es regnete in Bonn."]]
  assert [store.sentences(i) for i in range(len(store))] == whole
  assert manifest["counts"]["text"][0]["num_records"] == 2
  new = update_blocks.update_block_store(
    tmp_path / "new",
    store,
    tokenizer.load_tokenizer(tmp_path / "data" / "tokenizer"),
    [Article("k", "Bonn", "Der 4. Juni. Es schneite.")],
  )
  assert new.counts["added"] == 1
  new = blocks.BlockStore(tmp_path / "new")
  assert new.sentence_splitter == "sentencex:de"
  assert new.sentences(1) == ["Der 4. Juni.", "Es schneite."]


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece", "vocab"])
def test_every_kind_of_tokenizer(corpus, tmp_path, kind):
  vocab = tmp_path / "vocab.txt"
  pieces = [*tokenizer.SPECIALS, *"abcdefghijklmnopqrstuvwxyz0123456789."]
  pieces += [f"##{p}" for p in pieces[5:]]
  vocab.write_text("\n".join(pieces) + "\n")
  options = {"kind": kind, "vocab_file": str(vocab), "vocab_size": 120}
  changed = config(corpus, tokenizer=options, block_len=250)
  manifest = prepare.prepare(changed, tmp_path / "data")
  store = blocks.BlockStore(tmp_path / "data" / "blocks")
  tok = tokenizer.load_tokenizer(tmp_path / "data" / "tokenizer")
  assert store.meta["tokenizer_hash"] == tok.hash == manifest["tokenizer_hash"]
  assert tok.kind == (
    "sentencepiece" if kind == "sentencepiece" else "wordpiece"
  )


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"corpus": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
    ({"corpus": ""}, "data.corpus is empty"),
    ({"text": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
    ({"text": "lead_lines"}, 'add "leads" to it'),
    ({"qa": "leads"}, 'add "leads" to it'),
    ({"qa": "questions.tsv"}, 'data.qa="questions.tsv": wanted'),
    ({"qa": "files", "qa_dev": "no.tsv"}, "no.tsv: no such file"),
    ({"annotator": "bert"}, 'data.annotator="bert"'),
    ({"sentence_splitter": "nltk"}, 'data.sentence_splitter="nltk"'),
    ({"tokenizer": {"kind": "bpe"}}, 'data.tokenizer.kind="bpe"'),
    (
      {"tokenizer": {"kind": "vocab"}},
      "data.tokenizer.vocab_file is empty",
    ),
    ({"block_len": 5}, "data.block_len=5"),
    ({"runner": "spark"}, 'data.runner="spark"'),
    ({"max_articles": -1}, "data.max_articles=-1"),
  ],
)
def test_bad_values_are_named_before_anything_is_made(
  corpus, tmp_path, changes, message
):
  with pytest.raises(InputError) as e:
    prepare.prepare(config(**{"corpus": corpus} | changes), tmp_path / "data")
  assert message in str(e.value)
  assert "\n" not in str(e.value)
  assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
  "line, message",
  [
    ("", "empty corpus"),
    ('{"id": "a", "title": "b", "text": " "}', "empty corpus"),
    ('{"id": "a"', "corpus.jsonl:1: not JSON"),
    ('{"id": "a", "text": "b"}', 'corpus.jsonl:1: lacks "title"'),
    ('{"id": "a", "title": "b", "text": "no span."}', "has a salient span"),
  ],
)
def test_bad_corpora_are_named_and_leave_no_part(
  corpus, tmp_path, line, message
):
  corpus.write_text(line)
  with pytest.raises(InputError) as e:
    prepare.prepare(config(corpus), tmp_path / "data")
  assert message in str(e.value)
  assert not (tmp_path / "data" / "manifest.json").exists()
  assert not list((tmp_path / "data").glob(".tmp*"))


def test_full_disk_then_the_same_command_again(corpus, tmp_path, monkeypatch):
  monkeypatch.setenv("REALM_FAILPOINT", "publish:disk_full")
  with pytest.raises(InputError, match="no space left on the disk"):
    prepare.prepare(config(corpus), tmp_path / "data")
  monkeypatch.delenv("REALM_FAILPOINT")
  prepare.prepare(config(corpus), tmp_path / "data")
  prepare.prepare(config(corpus), tmp_path / "clean")
  assert contents(tmp_path / "data") == contents(tmp_path / "clean")


KILLED = """
import json, os, sys
from ml_collections import config_dict
from realm_jax.data import blocks, prepare
def kill(directory, *args, **kwargs):
  os.mkdir(directory.with_name(".tmp-blocks-1"))
  os.kill(os.getpid(), 9)
blocks.merge_block_stores = kill
values = json.load(open(sys.argv[1]))
prepare.prepare(config_dict.ConfigDict(values), sys.argv[2])
"""


def test_killed_then_resumed(corpus, tmp_path, monkeypatch):
  values = tmp_path / "config.json"
  values.write_text(config(corpus).to_json())
  killed = subprocess.run(
    [sys.executable, "-c", KILLED, str(values), str(tmp_path / "data")],
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    check=False,
  )
  assert killed.returncode == -signal.SIGKILL
  made = tmp_path / "data" / "tokenizer" / "meta.json"
  assert (tmp_path / "data" / ".tmp-blocks-1").exists()
  before = made.stat().st_mtime_ns
  prepare.prepare(config(corpus), tmp_path / "data")
  assert made.stat().st_mtime_ns == before  # the vocabulary was kept
  assert not list((tmp_path / "data").glob(".tmp-*"))
  prepare.prepare(config(corpus), tmp_path / "clean")
  assert contents(tmp_path / "data") == contents(tmp_path / "clean")


def test_parts_of_another_config_are_not_kept(corpus, tmp_path, monkeypatch):
  changed = config(corpus, tokenizer={"vocab_size": 90})
  with monkeypatch.context() as m:
    m.setattr(blocks, "merge_block_stores", None)
    with pytest.raises(TypeError):
      prepare.prepare(changed, tmp_path / "data")
  assert (tmp_path / "data" / "tokenizer").exists()
  manifest = prepare.prepare(config(corpus), tmp_path / "data")
  assert manifest["vocab_size"] > 90
  prepare.prepare(config(corpus), tmp_path / "clean")
  assert contents(tmp_path / "data") == contents(tmp_path / "clean")


@pytest.fixture
def a_dump(tmp_path):
  made = [page(i, f"Town {i}", LINES[i]["text"]) for i in range(5)]
  made += [page(8, "Old", redirect='<redirect title="Town 1" />')]
  (tmp_path / "w.xml").write_bytes(dump(*made))
  return tmp_path / "w.xml"


def test_a_dump_with_all_that_is_dropped(a_dump, tmp_path):
  texts = tmp_path / "t.jsonl"
  spans = [{"start": 0, "limit": 7}, {"start": 2, "limit": 7}]
  record = {"title": "x", "text": "Zürich is.", "spans": spans}
  texts.write_text(json.dumps(record) + "\n")
  names = f"sentences,{texts}"
  manifest = prepare.prepare(config(a_dump, text=names), tmp_path / "data")
  counted = files.read_json(tmp_path / "data" / drops.FILE)
  assert counted == manifest["counts"]["dropped"]
  of_dump = {pages.PAGES: 6, pages.ARTICLES: 5, pages.REDIRECT: 1}
  assert counted["corpus"] == {str(a_dump): of_dump}
  assert counted["text"]["sentences"] == {"sentences": 15, "kept": 15}
  of_texts = counted["text"][str(texts)]
  assert of_texts == {"sentences": 1, "kept": 1, text_writer.CUT_SPAN: 1}
  lines = drops.table(counted).splitlines()
  assert lines[0] == f"corpus {a_dump}"
  assert [line.split() for line in lines[1:4]] == [
    ["6", "pages"],
    ["5", "articles"],
    ["1", "redirect"],
  ]
  assert not (tmp_path / "data" / "shards").exists()


def test_a_dump_that_was_cut_off_is_refused_at_the_door(a_dump, tmp_path):
  a_dump.write_bytes(a_dump.read_bytes()[:-40])
  with pytest.raises(InputError, match=r"w\.xml: cut off"):
    prepare.prepare(config(a_dump), tmp_path / "data")
  assert not (tmp_path / "data").exists()
  part = config(a_dump, max_articles=3)
  made = prepare.prepare(part, tmp_path / "data")["counts"]["blocks"]
  assert made["num_articles"] == 3


def test_a_source_without_articles_is_refused_by_name(corpus, a_dump, tmp_path):
  a_dump.write_bytes(dump(page(1, "List of x"), page(2, "T", "{{x}}")))
  with pytest.raises(
    InputError, match=r"no article in .*w\.xml.*1 list.*2 pages"
  ):
    prepare.prepare(config(f"{corpus},{a_dump}"), tmp_path / "data")


def test_who_makes_the_data_is_not_its_identity(corpus, tmp_path):
  first = prepare.prepare(config(corpus), tmp_path / "data")
  other = config(corpus, workers=3, beam_args="--x")
  assert prepare.prepare(other, tmp_path / "data") == first


def test_a_users_own_folder_is_never_touched(corpus, tmp_path):
  (tmp_path / "data" / "text").mkdir(parents=True)
  (tmp_path / "data" / "text" / "mine").write_text("precious")
  with pytest.raises(InputError, match="that no preparation made"):
    prepare.prepare(config(corpus), tmp_path / "data")
  assert (tmp_path / "data" / "text" / "mine").read_text() == "precious"


def test_leads_of_the_smoke_config(tmp_path):
  changed = config(
    "leads", text="sentences,lead_lines", qa="leads", max_articles=200
  )
  manifest = prepare.prepare(changed, tmp_path / "data")
  counts = manifest["counts"]
  assert counts["blocks"]["num_articles"] == 200
  lines, questions = counts["text"][1], counts["qa"]
  assert all(lines[s] == questions[s] > 0 for s in ("train", "dev", "test"))
  assert counts["text"][0]["dev"] == counts["text"][0]["test"] == 0
  batches = input_pipeline.pretrain_eval_batches(
    tmp_path / "data", "dev", batch_size=64, query_len=40, max_masks=9
  )
  gold = next(batches).gold_block[: questions["dev"]]
  store = blocks.BlockStore(tmp_path / "data" / "blocks")
  held_out = [
    json.loads(line)
    for line in (tmp_path / "data/qa/dev.jsonl").read_text().splitlines()
  ]
  assert [store.article_id(b) for b in gold] == [
    q["article_id"] for q in held_out
  ]
  skipped = np.load(tmp_path / "data" / "held_out_sentences.npy")
  assert len(skipped) == counts["held_out_sentences"]


@pytest.mark.nightly
@pytest.mark.parametrize(
  "changes", [{"workers": 2}, {"runner": "beam"}], ids=["pool", "beam"]
)
def test_the_sample_dump_is_the_same_whoever_makes_it(tmp_path, changes):
  if "runner" in changes:
    pytest.importorskip("apache_beam", reason="extra beam is not installed")
  manifest = prepare.prepare(config("sample_dump"), tmp_path / "one")
  prepare.prepare(config("sample_dump", **changes), tmp_path / "two")
  assert contents(tmp_path / "one") == contents(tmp_path / "two")
  assert manifest["counts"]["dropped"]["corpus"]["sample_dump"] == {
    pages.PAGES: 206,
    pages.ARTICLES: 96,
    pages.REDIRECT: 99,
    pages.DISAMBIGUATION: 8,
    pages.BROKEN: 4,
    pages.LIST: 2,
    pages.NAMESPACE: 1,
  }
