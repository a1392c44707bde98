"""Made-up words and wordpieces, for measuring where there is no corpus.

Prepared data has the sizes that a config wants (vocabulary, title and body
lengths), made by the same prepare() as any other data; blocks and queries alone
are drawn as wordpieces. Only lengths matter to a benchmark.
"""

import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import ict
from realm_jax import run_config
from realm_jax.data import prepare
from realm_jax.data.packing import NUM_SPECIALS
from realm_jax.retrieval.candidates import Specials
from realm_jax.train import checkpoint, run, warm_start
from realm_jax.train.corpus import open_corpus
from realm_jax.types import BlockTokens, Inputs, PretrainBatch

_NUM_ARTICLES = 10_000  # where config.data.max_articles does not say
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPECIALS = Specials(
  *map(_SPECIALS.index, ("[PAD]", "[CLS]", "[SEP]", "[MASK]"))
)
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


def block_tokens(
  rng: np.random.Generator,
  shape: tuple[int, ...],
  block_len: int,
  vocab_size: int,
  mean: float,
) -> BlockTokens:
  """Blocks [...] of random wordpieces, as long as leads are.

  Args:
    rng: of lengths and wordpieces.
    shape: of the blocks.
    block_len: C, the most.
    vocab_size: V.
    mean: wordpieces of a block, about, with the specials.
  """
  words = lengths(rng, shape, mean, block_len) - NUM_SPECIALS
  return BlockTokens(
    token_ids=_wordpieces(rng, (*shape, block_len - NUM_SPECIALS), vocab_size),
    title_lens=np.minimum(rng.integers(1, 6, shape), words - 1).astype(
      np.int32
    ),
    lens=words,
  )


def lengths(
  rng: np.random.Generator, shape: tuple[int, ...], mean: float, most: int
) -> np.ndarray:
  """Lengths of texts: about a quarter of the mean apart, none over `most`."""
  drawn = rng.normal(mean, mean / 4, shape)
  return np.clip(drawn.round(), mean // 4, most).astype(np.int32)


def masked_queries(
  rng: np.random.Generator,
  batch_size: int,
  query_len: int,
  vocab_size: int,
  specials: Specials,
  mean: float,
  masks: int,
) -> PretrainBatch:
  """Queries [B, Q] of random wordpieces, with so many masks each."""
  shape, at = (batch_size, query_len), np.arange(query_len)
  end = lengths(rng, (batch_size, 1), mean, query_len)
  there = at < end
  ids = _wordpieces(rng, shape, vocab_size)
  targets = _wordpieces(rng, (batch_size, masks), vocab_size)
  places = [
    np.sort(rng.choice(np.arange(1, e - 1), masks, False)) for e in end[:, 0]
  ]
  places = np.stack(places).astype(np.int32)
  np.put_along_axis(ids, places, specials.mask, axis=1)
  ids = np.where(at == 0, specials.cls, ids)
  ids = np.where(at == end - 1, specials.sep, ids)
  nothing = np.full(batch_size, -1, np.int32)
  return PretrainBatch(
    query=Inputs(
      input_ids=np.where(there, ids, specials.pad).astype(np.int32),
      attention_mask=there.astype(np.int32),
      token_type_ids=np.zeros(shape, np.int32),
    ),
    mlm_positions=places,
    mlm_targets=targets,
    mlm_mask=np.ones_like(targets),
    own_block=nothing,
    gold_block=nothing,
    example_ids=np.arange(batch_size),
  )


def _wordpieces(rng, shape, vocab_size):
  """None of the specials, which come first."""
  return rng.integers(len(_SPECIALS), vocab_size, shape, np.int32)


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
  run_config.claim(workdir, config.to_dict())
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
