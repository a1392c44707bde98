"""Prepared data of made-up words, for measuring where there is no corpus.

It has the sizes that a config wants (vocabulary, title and body lengths), made
by the same prepare() as any other data. Only lengths matter to a benchmark.
"""

import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import ict
from realm_jax.data import prepare
from realm_jax.train import checkpoint, run, warm_start
from realm_jax.train.corpus import open_corpus

_NUM_ARTICLES = 10_000  # where config.data.max_articles does not say
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_YEARS = (1500, 2000)  # what is masked: a date in each sentence
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def prepare_words(config: ConfigDict, folder: pathlib.Path) -> None:
  """Writes articles and a vocabulary to `folder`, and prepares them.

  Sets config.data so that it names them.
  """
  rng = np.random.default_rng(config.seed)
  data = config.data
  years = [str(year) for year in range(*_YEARS)]
  size = data.tokenizer.vocab_size - len(_SPECIALS) - len(years) - 1
  words = _words(rng, max(size, 1))
  vocab = folder / "vocab.txt"
  vocab.write_text("\n".join([*_SPECIALS, ".", *years, *words]) + "\n")
  data.corpus = str(folder / "corpus.jsonl")
  with open(data.corpus, "w") as f:
    for i in range(data.max_articles or _NUM_ARTICLES):
      article = {"id": str(i), "title": " ".join(rng.choice(words, 2)),
                 "text": _text(rng, words, years)}  # fmt: skip
      f.write(json.dumps(article) + "\n")
  data.tokenizer.kind, data.tokenizer.vocab_file = "vocab", str(vocab)
  data.text, data.qa = "sentences", ""
  data.dir = str(folder / "data")
  config.text_weights = (1.0,)
  prepare.prepare(data, data.dir)


def retriever_config(
  num_blocks: int, layers: int, hidden: int, block_len: int
) -> ConfigDict:
  """The config of a retriever of these sizes."""
  config = ict.get_config("demo")
  config.data.max_articles = num_blocks
  config.block_len = block_len
  config.mesh.data = 1
  config.embedder.update(
    num_hidden_layers=layers,
    hidden_size=hidden,
    num_attention_heads=hidden // 64 or 1,
    intermediate_size=4 * hidden,
    max_position_embeddings=block_len,
  )
  return config


def make_run(
  config: ConfigDict, workdir: pathlib.Path, steps: Sequence[int]
) -> None:
  """Fills a run's directory with checkpoints of an untrained retriever.

  Args:
    config: of prepared data.
    workdir: the run's directory.
    steps: of the checkpoints; each has other params.
  """
  corpus = open_corpus(config, workdir)
  embedder = run.make_retrieval(config, corpus).embedder
  words = np.zeros((1, config.block_len), np.int32)
  checkpoint.open_run(workdir, config.to_dict())
  checkpoints = checkpoint.Checkpoints(workdir, keep=len(steps))
  init = jax.jit(warm_start.init_fn(embedder, words))
  params = init(jax.random.key(config.seed))
  for step in steps:
    changed = jax.tree.map(lambda x, s=step: x * (1 + 1e-3 * s), params)
    tree = {"state": {"params": {"embedder": changed}}}
    checkpoints.save(step, tree, meta=corpus.meta)
  checkpoints.close()


def _words(rng, count):
  """Different words of five letters."""
  numbers = rng.choice(26**5, count, replace=False)
  letters = [_LETTERS[numbers // 26**i % 26] for i in range(5)]
  return ["".join(word) for word in zip(*letters, strict=True)]


def _text(rng, words, years):
  """One to five sentences of 8 to 24 words, each with a year."""
  sentences = []
  for _ in range(rng.integers(1, 6)):
    sentence = list(rng.choice(words, rng.integers(8, 25)))
    sentence[-2] = "in"
    sentence[-1] = rng.choice(years)
    sentences.append(" ".join(sentence).capitalize() + ".")
  return " ".join(sentences)
