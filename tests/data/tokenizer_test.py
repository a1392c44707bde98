import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm_jax.config import InputError
from realm_jax.data import tokenizer, wordpieces

TEXTS = [
  "The quick brown fox jumps over the lazy dog.",
  "Zürich lies in Switzerland, and Genève too.",
  "Sphinx of black quartz, judge my vow; 12345 67890 times!",
] * 20


@pytest.fixture(scope="module", params=["wordpiece", "sentencepiece"])
def trained(request):
  if request.param == "wordpiece":
    return tokenizer.train_wordpiece(TEXTS, 160)
  return tokenizer.train_sentencepiece(TEXTS, 120)


def test_wordpiece_against_greedy_longest_match():
  pieces = [*tokenizer.SPECIALS, "un", "##aff", "##able", "##a", "hello", "."]
  path_tokenizer = _from_pieces(pieces)
  ids = path_tokenizer.encode("Hello unaffable. unaffX")
  expected = ["hello", "un", "##aff", "##able", ".", "[UNK]"]
  assert path_tokenizer.tokens(ids) == expected


def _from_pieces(pieces, lower_case=True, folder=None):
  import tempfile
  from pathlib import Path

  folder = Path(folder or tempfile.mkdtemp())
  (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
  return tokenizer.load_vocab(folder / "vocab.txt", lower_case)


def test_save_and_load(trained, tmp_path):
  trained.save(tmp_path / "t")
  loaded = tokenizer.load_tokenizer(tmp_path / "t")
  assert loaded.hash == trained.hash
  assert loaded.vocab_size == trained.vocab_size
  assert loaded.encode(TEXTS[1]) == trained.encode(TEXTS[1])


def test_training_is_reproducible():
  first = tokenizer.train_wordpiece(TEXTS, 160)
  assert tokenizer.train_wordpiece(iter(TEXTS), 160).hash == first.hash


def test_special_ids_are_five_and_never_come_from_text(trained):
  specials = {
    trained.pad_id,
    trained.unk_id,
    trained.cls_id,
    trained.sep_id,
    trained.mask_id,
  }
  assert len(specials) == 5
  ids = trained.encode("[CLS] fox [MASK] dog [SEP] [PAD]")
  assert not specials - {trained.unk_id} & set(ids)


def test_batch_agrees_with_one_by_one(trained):
  assert trained.encode_batch(TEXTS[:3]) == [
    trained.encode(t) for t in TEXTS[:3]
  ]


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="abcdefghxyz Zürchè.,!月\n", max_size=60))
def test_offsets_are_bytes_of_the_text(text):
  for trained in (_wordpiece(), _sentencepiece()):
    ids, offsets = trained.encode_with_offsets(text)
    assert ids == trained.encode(text)
    raw = text.encode()
    for start, end in offsets:
      assert 0 <= start <= end <= len(raw)
      raw[start:end].decode()  # never inside a character
    assert offsets == sorted(offsets)


def _wordpiece(cache={}):  # noqa: B006 - trained once
  return cache.setdefault("x", tokenizer.train_wordpiece(TEXTS, 160))


def _sentencepiece(cache={}):  # noqa: B006 - trained once
  return cache.setdefault("x", tokenizer.train_sentencepiece(TEXTS, 120))


def test_offsets_of_words(trained):
  text = "Zürich lies"
  ids, offsets = trained.encode_with_offsets(text)
  assert len(ids) == len(offsets)
  assert offsets[0][0] == 0
  assert offsets[-1][1] == len(text.encode())
  starts_of_second_word = len("Zürich ".encode())
  assert starts_of_second_word in [start for start, _ in offsets]


def test_decode(trained):
  assert trained.decode(trained.encode("the lazy dog")) == "the lazy dog"
  ids = [trained.cls_id, *trained.encode("the dog"), trained.sep_id]
  assert trained.decode([*ids, trained.pad_id]) == "the dog"


def test_case_option_is_in_the_hash():
  pieces = [*tokenizer.SPECIALS, "a", "A"]
  lower, cased = _from_pieces(pieces), _from_pieces(pieces, lower_case=False)
  assert lower.hash != cased.hash
  assert (lower.encode("A"), cased.encode("A")) == ([5], [6])


def test_bad_vocabularies_are_named(tmp_path):
  with pytest.raises(InputError, match="no such vocabulary"):
    tokenizer.load_vocab(tmp_path / "vocab.txt")
  with pytest.raises(InputError, match=r"vocab.txt: lacks \[CLS\]"):
    _from_pieces(["[PAD]", "[UNK]"], folder=tmp_path)
  with pytest.raises(InputError, match=r"vocab.txt:7: .* on line 6 too"):
    _from_pieces([*tokenizer.SPECIALS, "a", "a"], folder=tmp_path)
  with pytest.raises(InputError, match="vocab_size=5"):
    tokenizer.train_wordpiece(TEXTS, 5)
  with pytest.raises(InputError, match="vocab_size=9:"):
    tokenizer.train_sentencepiece(TEXTS, 9)


def test_changed_vocabulary_is_refused(trained, tmp_path):
  trained.save(tmp_path / "t")
  meta = (tmp_path / "t" / "meta.json").read_text()
  (tmp_path / "t" / "meta.json").write_text(
    meta.replace(trained.hash, "0" * 64)
  )
  with pytest.raises(InputError, match="prepare the data again"):
    tokenizer.load_tokenizer(tmp_path / "t")


def test_char_to_byte_against_encoding():
  text = "aé月𝄞z"
  expected = [len(text[:i].encode()) for i in range(len(text) + 1)]
  assert wordpieces.char_to_byte(text) == expected
  assert wordpieces.char_to_byte("") == [0]
