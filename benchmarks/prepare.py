"""What each step of preparation costs on one core, and all of Wikipedia.

  python -m benchmarks.prepare [--corpus=sample_dump] [--annotator=rules]

Columns: CPU seconds, articles/s, wordpieces/s, and the core-hours that English
Wikipedia would take. Those go by wordpieces: the articles here are several
times as long as the average one. Reading goes by the bytes of the dump, most
of which are other pages than articles.
"""

import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

from absl import flags

from benchmarks import start
from realm_jax.data import (
  block_writer,
  blocks,
  corpora,
  packing,
  salient_spans,
  sentences,
  tokenizer,
)

_BLOCK_LEN = 288


class Costs:
  """CPU seconds of the steps, as they are run."""

  def __init__(self):
    self.seconds: dict[str, float] = {}

  def run(self, step: str, work: Callable[[], Any]) -> Any:
    """Runs a step; what it returns is made whole before the clock stops."""
    start = time.process_time()
    result = work()
    self.seconds[step] = time.process_time() - start
    return result


def measure(
  corpus: str, annotator: str, vocab_size: int, folder: pathlib.Path
) -> tuple[Costs, int, blocks.BlockStore, int]:
  """Takes a corpus through all steps.

  Returns:
    The costs, its articles, their blocks, characters that were read.
  """
  costs = Costs()
  parts = corpora.parts(corpus)
  pages = costs.run(
    "read", lambda: [(p, page) for p in parts for page in corpora.read(p)]
  )
  made = costs.run("clean", lambda: [corpora.make_article(*x) for x in pages])
  articles = [article for article, _ in made if article]
  tok = tokenizer.train_wordpiece(
    (text for a in articles for text in (a.title, a.text)), vocab_size
  )
  costs.run(
    "sentences", lambda: [sentences.split_sentences(a.text) for a in articles]
  )
  packed = costs.run(
    "blocks (with sentences)",
    lambda: [
      block
      for chunk in _chunks(articles)
      for block in packing.pack_articles(chunk, tok, _BLOCK_LEN)
    ],
  )
  writer = block_writer.StoreWriter(folder, tok)
  costs.run("write", lambda: _write(writer, articles, packed))
  (folder / "merged").mkdir()
  store = costs.run(
    "merge", lambda: _merge(folder, blocks.BlockStore(folder), tok)
  )
  annotate = salient_spans.make_annotator(annotator)
  pairs = [(store.text(i), store.title(i)) for i in range(len(store))]
  costs.run(f"salient spans ({annotator})", lambda: annotate(pairs))
  return costs, len(articles), store, sum(len(p.text) for _, p in pages)


def _chunks(articles: list) -> Iterable[list]:
  size = block_writer.CHUNK
  return (articles[i : i + size] for i in range(0, len(articles), size))


def _write(writer, articles, packed) -> None:
  for article, of_article in zip(articles, packed, strict=True):
    writer.add(article, of_article)
  writer.finish(_BLOCK_LEN)


def _merge(folder, store, tok) -> blocks.BlockStore:
  writer = block_writer.StoreWriter(folder / "merged", tok)
  writer.copy(store, 0, store.num_articles)
  writer.finish(_BLOCK_LEN)
  return blocks.BlockStore(folder / "merged")


def main(f) -> None:
  os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core
  with tempfile.TemporaryDirectory() as folder:
    costs, num_articles, store, num_chars = measure(
      f.corpus, f.annotator, f.vocab_size, pathlib.Path(folder)
    )
    num_tokens = store.meta["num_tokens"]
    print(
      f"{f.corpus}: {num_articles} articles, {len(store)} blocks,"
      f" {num_tokens} wordpieces of {num_chars / 1e6:.1f} MB markup"
    )
    times = f.wiki_blocks / len(store)
    total = 0.0
    names = ("CPU s", "articles/s", "wordpieces/s", "Wikipedia, core-hours")
    print(f"{'':28}" + "".join(f"{name:>22}" for name in names))
    for step, seconds in costs.seconds.items():
      scale = f.wiki_bytes / num_chars if step == "read" else times
      hours = seconds * scale / 3600
      total += 0 if step == "sentences" else hours
      cells = (f"{seconds:.2f}", f"{num_articles / seconds:.1f}",
               f"{num_tokens / seconds:,.0f}", f"{hours:.1f}")  # fmt: skip
      print(f"{step:28}" + "".join(f"{cell:>22}" for cell in cells))
  print(
    f"all of Wikipedia, {f.wiki_blocks} blocks: {total:.0f} core-hours;"
    " reading and merging are done by one process (on Beam, reading by one a"
    " file of the dump)"
  )


if __name__ == "__main__":
  flags.DEFINE_string("corpus", "sample_dump", "as config.data.corpus")
  flags.DEFINE_string("annotator", "rules", "as config.data.annotator")
  flags.DEFINE_integer("vocab_size", 30_522, "of the vocabulary, BERT's")
  flags.DEFINE_integer(
    "wiki_blocks", 13_353_718, "blocks of the original corpus"
  )
  flags.DEFINE_float("wiki_bytes", 7e10, "of a whole dump, about, as XML")
  start.run(main)
