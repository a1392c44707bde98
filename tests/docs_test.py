"""docs/api.md is what the docstrings say, and its examples run."""

import importlib.util
import pathlib
import re
import runpy

import numpy as np
import pytest

import realm_jax
from realm_jax import (
  Pretrained,
  RealmConfig,
  RealmEmbedder,
  RealmForOpenQA,
  RealmKnowledgeAugEncoder,
  RealmReader,
  RealmRetriever,
  RealmScorer,
  RealmTokenizerFast,
  save_pretrained,
)
from tests import untrained

DOCS = pathlib.Path(__file__).parents[1] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
WORDS = """hello world nice to meet you the cute cat adorable dog my is how are
what item in picture who pioneer modern computer science alan mathison turing
was a an ! . , ?""".split()
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# directory -> (class, a call that shows it all its inputs)
MODELS = {
  "realm-cc-news-pretrained-embedder": RealmEmbedder,
  "realm-cc-news-pretrained-scorer": RealmScorer,
  "realm-cc-news-pretrained-encoder": RealmKnowledgeAugEncoder,
  "realm-orqa-nq-reader": RealmReader,
  "realm-orqa-nq-openqa": RealmForOpenQA,
}
RECORDS = [b"alan turing was a pioneer.", b"the cute cat.", b"a dog is nice."]


def params_of(module):
  """Fresh params; each module is shown the inputs it takes."""
  ids, candidates = np.zeros((1, 12), np.int32), np.zeros((1, 2, 12), np.int32)
  more = {}
  if isinstance(module, RealmScorer):
    more = {"candidate_input_ids": candidates}
  if isinstance(module, RealmKnowledgeAugEncoder):
    ids = candidates
  if isinstance(module, RealmReader):
    more = {
      "relevance_score": np.zeros(1, np.float32),
      "block_mask": np.ones_like(ids),
      "token_type_ids": np.zeros_like(ids),
    }
  return untrained.params(module, ids, **more)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
  """A folder with tiny models under the hub's names."""
  folder = tmp_path_factory.mktemp("hub")
  vocab = folder / "vocab.txt"
  vocab.write_text("\n".join([*SPECIALS, *WORDS]) + "\n")
  tokenizer = RealmTokenizerFast(vocab)
  for name, module_class in MODELS.items():
    config = RealmConfig(
      vocab_size=len(tokenizer),
      hidden_size=12,
      num_hidden_layers=1,
      num_attention_heads=3,
      intermediate_size=20,
      retriever_proj_size=8,
      max_position_embeddings=40,
      span_hidden_size=7,
      max_span_width=4,
      reader_beam_size=2,
      searcher_beam_size=3,
      reader_seq_len=32,
      num_block_records=len(RECORDS),
      architectures=[module_class.__name__],
      num_candidates=2,
      pad_token_id=0,
    )
    module = module_class(config)
    block_emb = retriever = None
    if module_class is RealmForOpenQA:
      retriever = RealmRetriever(RECORDS, tokenizer)
      rng = np.random.default_rng(0)
      block_emb = rng.standard_normal((len(RECORDS), 8)).astype(np.float32)
    model = Pretrained(
      config, module, params_of(module), tokenizer, retriever, block_emb
    )
    save_pretrained(folder / "google" / name, model)
  return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(example, hub, tmp_path, monkeypatch):
  (tmp_path / "google").symlink_to(hub / "google")
  monkeypatch.chdir(tmp_path)
  assert runpy.run_path(str(example))


def test_every_class_has_an_example():
  classes = {n for n in realm_jax.__all__ if n.startswith("Realm")}
  assert classes <= {example.stem for example in EXAMPLES}


def test_api_is_what_the_docstrings_say():
  spec = importlib.util.spec_from_file_location("x", DOCS / "make_api.py")
  make_api = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(make_api)
  text = make_api.api()
  assert (DOCS / "api.md").read_text() == text, "run python docs/make_api.py"
  titles = re.findall(r"^## (\w+)$", text, re.MULTILINE)
  assert set(realm_jax.__all__) <= set(titles)
  assert "0x" not in text  # no address of an object
