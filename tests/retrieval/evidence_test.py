"""Answers are cut out of the blocks' raw text, to the character."""

import unicodedata

import pytest

from realm_jax.data import blocks, tokenizer
from realm_jax.data.articles import Article
from realm_jax.retrieval import evidence

TEXTS = (
  "Émile Zola wrote «Germinal» in 1885. It cost 3,50 francs! 東京 is a city"
  " 🎈 of Japan. Ada\u200b Lovelace\u00a0and Đà Nẵng. One\tmore line.",
  # Not one space: it's cut between characters.
  "東京大阪名古屋" * 9 + ". Next Sentence here.",
)


@pytest.fixture(params=["wordpiece", "sentencepiece"])
def tok(request):
  train = getattr(tokenizer, f"train_{request.param}")
  return train([*TEXTS, "A to Z"] * 3, 260)


@pytest.fixture
def store(tok, tmp_path):
  articles = [Article(str(i), "A to Z", text) for i, text in enumerate(TEXTS)]
  blocks.write_block_store(tmp_path / "blocks", articles, tok, 24)
  return blocks.BlockStore(tmp_path / "blocks")


def test_every_span_is_the_text_of_its_wordpieces(store, tok):
  count = 0
  for block in range(len(store)):
    text, body = store.text(block), store.body_ids(block)
    for start in range(len(body)):
      for end in range(start, min(start + 4, len(body))):
        ids = body[start : end + 1].tolist()
        if tok.unk_id not in ids:
          first, last = evidence.span_of(store, tok, block, start, end)
          assert _plain(text[first:last]) == _plain(tok.decode(ids))
          count += 1
  assert count > 300


def _plain(text):
  """Without what a tokenizer may change: case, accents, blanks."""
  kept = unicodedata.normalize("NFKD", text.casefold())
  return "".join(
    c for c in kept if not unicodedata.combining(c) and c.isprintable()
  ).replace(" ", "")
