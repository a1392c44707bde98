import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realm_jax.config import InputError
from realm_jax.data import blocks, packing, tokenizer
from realm_jax.data.articles import Article


@pytest.mark.parametrize("block_len", range(25, 49))
def test_blocks_hold_whole_sentences_greedily(articles, tok, block_len):
  packed = packing.pack_blocks(articles[3], tok, block_len)
  assert len(packed) > 1
  title = tok.encode("Moon")
  for block, after in zip(packed, [*packed[1:], None], strict=True):
    used = 3 + len(title) + len(block.body_ids)
    assert block.title_ids == title
    assert used <= block_len
    assert tok.encode(block.text) == block.body_ids
    if after:  # its first sentence had no room left
      ends = [*after.sentence_starts, len(after.body_ids)]
      assert used + ends[1] > block_len
  assert " ".join(b.text for b in packed) == articles[3].text


def test_a_long_sentence_is_cut_between_words(tok):
  text = " ".join(["Moon orbits Earth"] * 30)
  packed = packing.pack_blocks(Article("x", "Moon", text), tok, 20)
  assert all(3 + 1 + len(b.body_ids) <= 20 for b in packed)
  assert " ".join(b.text for b in packed) == text
  unbroken = "1234567890" * 9  # no space to cut at
  packed = packing.pack_blocks(Article("x", "Moon", unbroken), tok, 20)
  assert "".join(b.text for b in packed) == unbroken


class _Counting:
  """A tokenizer that counts the characters it is given."""

  def __init__(self, tok):
    self._tok, self.num_chars = tok, 0

  def __getattr__(self, name):
    return getattr(self._tok, name)

  def encode(self, text):
    self.num_chars += len(text)
    return self._tok.encode(text)

  def encode_with_offsets(self, text):
    self.num_chars += len(text)
    return self._tok.encode_with_offsets(text)


@pytest.mark.parametrize(
  "word", ["Moon orbits ", "月", "🌕", "moonmoon", "U.S. "]
)
def test_the_work_on_a_long_article_grows_with_its_length(tok, word):
  counting = _Counting(tok)
  text = word * 4000
  packed = packing.pack_blocks(Article("x", "Moon", text), counting, 40)
  assert counting.num_chars < 60 * len(text)
  assert all(len(b.body_ids) <= 36 for b in packed)
  joined = "".join(b.text for b in packed)
  assert joined.replace(" ", "") == text.replace(" ", "")


WEIRD = st.text(
  st.sampled_from("aé月語שלام🏛️🇨🇭\u200f\u0301\x00\x07\n\u2028\ufeff .!?\"'A")
)


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece"])
@given(text=WEIRD)
def test_any_text_is_cut_into_blocks(request, tok, kind, text):
  if kind == "sentencepiece":
    tok = request.getfixturevalue("sentencepiece_tok")
  article = Article("x", text[:5], text)
  for block in packing.pack_blocks(article, tok, 16):
    assert 0 < len(block.body_ids) <= 16 - 3 - len(block.title_ids)
    assert block.text.strip()
  [[whole]] = packing.pack_whole([article], tok, 16)
  assert whole.text == text
  raw, starts = text.encode(), whole.sentence_bytes
  assert starts[0] == whole.sentence_starts[0] == 0
  for a, b in zip(starts, [*starts[1:], len(raw) + 1], strict=True):
    raw[a : b - 1].decode()


@pytest.fixture(scope="module")
def sentencepiece_tok():
  words = "aé 月語 שלום moon orbits Earth at night while nobody looks."
  return tokenizer.train_sentencepiece([words] * 50, 60)


def test_a_long_title_leaves_room(tok):
  article = Article("x", "Moon " * 50, "Neil Armstrong walked.")
  (block,) = packing.pack_blocks(article, tok, 30)
  assert len(block.title_ids) == 10
  assert block.text == "Neil Armstrong walked."


def test_store_gives_back_what_was_packed(articles, tok, store):
  packed = [(a, b) for a in articles for b in packing.pack_blocks(a, tok, 40)]
  assert len(store) == len(packed) == store.meta["num_blocks"]
  for i, (article, block) in enumerate(packed):
    assert store.title(i) == article.title
    assert store.article_id(i) == article.id
    assert store.text(i) == block.text
    assert store.title_ids(i).tolist() == block.title_ids
    assert store.body_ids(i).tolist() == block.body_ids
    assert store.sentence_starts(i).tolist() == block.sentence_starts
    assert " ".join(store.sentences(i)) == block.text
  assert store.tokens.flat.dtype == np.uint16
  assert store.meta["tokenizer_hash"] == tok.hash


def test_blocks_of_an_article(store):
  for article_id in ("a1", "a2", "a3", "a4", "missing"):
    expected = [
      i for i in range(len(store)) if store.article_id(i) == article_id
    ]
    assert store.block_of_article(article_id) == expected
  assert store.block_of_article("a3") == []


def test_sentence_table_against_the_blocks(store):
  block, start, length = store.sentence_table()
  expected = []
  for i in range(len(store)):
    ends = [*store.sentence_starts(i)[1:], len(store.body_ids(i))]
    expected += [
      (i, a, b - a) for a, b in zip(store.sentence_starts(i), ends, strict=True)
    ]
  assert list(zip(block, start, length, strict=True)) == expected


def test_device_tokens(store):
  tokens = store.device_tokens(14, num_rows=len(store) + 2)
  assert tokens.token_ids.shape == (len(store) + 2, 11)
  for i in range(len(store)):
    row = [*store.title_ids(i), *store.body_ids(i)][:11]
    assert tokens.token_ids[i].tolist() == row + [0] * (11 - len(row))
    assert tokens.lens[i] == len(row)
    assert tokens.title_lens[i] == len(store.title_ids(i))
  assert not tokens.token_ids[len(store) :].any()
  assert not tokens.lens[len(store) :].any()


def test_tokens_of_some_blocks(store):
  every, ids = store.device_tokens(14), np.array([2, 0, 3])
  some = store.take(ids, 14)
  for name in ("token_ids", "title_lens", "lens"):
    got, want = getattr(some, name), getattr(every, name)
    np.testing.assert_array_equal(got, want[ids])
    assert got.dtype == want.dtype


def test_hash_names_the_corpus(articles, tok, store, tmp_path):
  def corpus_hash(name, corpus, block_len=40):
    blocks.write_block_store(tmp_path / name, corpus, tok, block_len)
    return blocks.BlockStore(tmp_path / name).meta["corpus_hash"]

  assert corpus_hash("same", articles) == store.meta["corpus_hash"]
  digest = hashlib.sha256()
  for i in range(len(store)):
    identity = [store.article_id(i), store.title(i), store.text(i)]
    digest.update(json.dumps(identity).encode())
  assert digest.hexdigest() == store.meta["corpus_hash"]
  assert corpus_hash("order", articles[::-1]) != store.meta["corpus_hash"]
  assert corpus_hash("cuts", articles, 30) != store.meta["corpus_hash"]


def test_empty_corpus_leaves_nothing(articles, tok, tmp_path):
  with pytest.raises(InputError, match="empty corpus"):
    blocks.write_block_store(tmp_path / "b", articles[2:3], tok, 40)
  assert not list(tmp_path.iterdir())


def test_full_disk_leaves_nothing(articles, tok, tmp_path, monkeypatch):
  monkeypatch.setenv("REALM_FAILPOINT", "publish:disk_full")
  with pytest.raises(InputError, match="no space left"):
    blocks.write_block_store(tmp_path / "b", articles, tok, 40)
  assert not list(tmp_path.iterdir())
