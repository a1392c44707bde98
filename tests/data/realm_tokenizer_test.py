"""RealmTokenizer and RealmTokenizerFast answer as the reference does.

tests/oracle/record_tokenizer.py recorded the answers. What needs no reference
is tested with random texts.
"""

import copy
import inspect
import json
import pathlib
import pickle
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

import realm_jax
from realm_jax import InputError, RealmTokenizer, RealmTokenizerFast
from realm_jax.data import added_tokens, encode_options
from realm_jax.data import tokenizer as data_tokenizer
from realm_jax.data.basic_tokenization import BasicTokenizer
from realm_jax.data.encode_options import EncodeOptions

RECORDED = pathlib.Path(__file__).parents[1] / "testdata" / "tokenizer"
VOCAB = RECORDED / "vocab.txt"
OPTIONS = [  # "RealmTokenizer 2" in unicode.json has OPTIONS[2]
  {},
  {"do_lower_case": False},
  {"do_lower_case": False, "strip_accents": True},
  {"strip_accents": False},
  {"tokenize_chinese_chars": False},
]
BOTH = pytest.mark.parametrize("cls", [RealmTokenizer, RealmTokenizerFast])


def recorded(name):
  return json.loads((RECORDED / name).read_text())


def plain(value):
  """Lists instead of arrays, dicts instead of encodings."""
  if isinstance(value, np.ndarray):
    return value.tolist()
  if hasattr(value, "keys"):
    return {key: plain(value[key]) for key in value}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  return value


@pytest.fixture(scope="module")
def slow():
  return RealmTokenizer(VOCAB)


@pytest.fixture(scope="module")
def fast():
  return RealmTokenizerFast(VOCAB)


def test_ids_of_random_unicode_are_the_reference_s():
  tokenizers = {
    f"{cls.__name__} {i}": cls(VOCAB, **options)
    for cls in (RealmTokenizer, RealmTokenizerFast)
    for i, options in enumerate(OPTIONS)
  }
  rows = recorded("unicode.json")
  assert len(rows) == 300
  for text, answers in rows:
    got = {name: tokenizers[name].encode(text) for name in answers}
    assert got == answers, ascii(text)


def test_calls_answer_as_the_reference():
  rows = recorded("calls.json")
  assert len(rows) == 260
  for name, options, method, args, keywords, want in rows:
    tokenizer = getattr(realm_jax, name)(VOCAB, **options)
    case = ascii((name, options, method, args, keywords))
    if want is None:  # it raised, or rows differ in length
      with pytest.raises(ValueError):
        getattr(tokenizer, method)(*args, **keywords)
    else:
      got = plain(getattr(tokenizer, method)(*args, **keywords))
      assert got == want, case


def test_directories_that_the_reference_saved_are_read():
  for saved, name, text, want in recorded("saved.json"):
    cls = getattr(realm_jax, name)
    assert plain(cls.from_pretrained(RECORDED / saved)(text)) == want


@pytest.mark.parametrize(
  "cls, saved, options",
  [
    (
      RealmTokenizer,
      "saved_slow",
      {
        "model_max_length": 9,
        "padding_side": "left",
        "truncation_side": "left",
      },
    ),
    (
      RealmTokenizerFast,
      "saved_fast",
      {
        "additional_special_tokens": ["[x]", "the"],
        "sep_token": "[CLS]",
      },
    ),
  ],
)
def test_writes_the_files_that_the_reference_writes(
  cls, saved, options, tmp_path
):
  written = cls(VOCAB, **options).save_pretrained(tmp_path)
  want = sorted((RECORDED / saved).iterdir())
  assert sorted(written) == [str(tmp_path / path.name) for path in want]
  for path in want:
    got = (tmp_path / path.name).read_text()
    if path.suffix == ".json":
      assert json.loads(got) == json.loads(path.read_text()), path.name
    else:
      assert got == path.read_text()


@BOTH
def test_an_older_directory_is_read(cls, tmp_path):
  """Before 4.34 tokenizer_config.json had no added_tokens_decoder."""
  (tmp_path / "vocab.txt").write_bytes(VOCAB.read_bytes())
  (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  special = {
    "pad_token": "[PAD]",
    "cls_token": {"content": "<s>", "lstrip": True},
    "additional_special_tokens": ["[x]"],
  }
  (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
  size = len(cls(VOCAB))
  added = {"new_word": size, "<s>": size + 1}
  (tmp_path / "added_tokens.json").write_text(json.dumps(added))
  tokenizer = cls.from_pretrained(tmp_path, pad_token="[MASK]")
  assert not tokenizer.do_lower_case
  assert tokenizer.cls_token_id == size + 1
  assert tokenizer.additional_special_tokens_ids == [size + 2]
  assert tokenizer.pad_token_id == tokenizer.mask_token_id == 4
  new_word = tokenizer.added_tokens_decoder[size]
  assert new_word.rstrip == new_word.lstrip == (not cls.is_fast)
  ids = [size + 1, tokenizer.get_vocab()["the"], size, size + 2, 3]
  assert tokenizer.encode("the new_word [x]") == ids


def test_the_slow_one_takes_added_tokens_from_tokenizer_json(fast, tmp_path):
  made = copy.deepcopy(fast)
  made.add_tokens("new_word")
  made.save_pretrained(tmp_path)
  for name in ("tokenizer_config.json", "added_tokens.json"):
    (tmp_path / name).unlink()
  read = RealmTokenizer.from_pretrained(tmp_path)
  assert read.tokenize("a new_word") == ["a", "new_word"]


@pytest.mark.parametrize("saver", [RealmTokenizer, RealmTokenizerFast])
@pytest.mark.parametrize("reader", [RealmTokenizer, RealmTokenizerFast])
def test_what_is_saved_is_read_by_both(saver, reader, tmp_path):
  made = saver(VOCAB, do_lower_case=False, never_split={"it"}, pad_token="<p>")
  made.add_tokens([AddedToken("foo bar", single_word=True)])
  made.add_special_tokens({"additional_special_tokens": ["[x]"]})
  made(["the dog", "a"], padding=True, truncation=True, max_length=3)
  made.save_pretrained(tmp_path)
  read = reader.from_pretrained(str(tmp_path))
  assert read.get_vocab() == made.get_vocab()
  assert len(read) == len(made) == made.vocab_size + 3
  text = "Hello [x] it foo bar a.b foo bars [PAD]"
  assert read.encode(text) == made.encode(text)
  assert read.pad_token == "<p>" and not read.do_lower_case
  # All special tokens are "additional" once they are read, as the reference's.
  assert "[x]" in read.additional_special_tokens
  assert "[CLS]" in read.additional_special_tokens
  again = reader.from_pretrained(tmp_path, do_lower_case=True)
  assert again.encode("hello") == again.encode("HELLO")


def test_the_fast_one_needs_one_file_only(fast, tmp_path):
  fast.save_pretrained(tmp_path, legacy_format=False, filename_prefix="my")
  left = RealmTokenizerFast(VOCAB, padding_side="left", truncation_side="left")
  left("a", padding=True, truncation=True, max_length=4)
  left.backend_tokenizer.save(str(tmp_path / "left.json"))
  read = RealmTokenizerFast(tokenizer_file=tmp_path / "left.json")
  assert read.padding_side == read.truncation_side == "left"
  names = {path.name for path in tmp_path.iterdir()}
  assert "my-tokenizer.json" in names and "my-vocab.txt" not in names
  read = RealmTokenizerFast(tokenizer_file=tmp_path / "my-tokenizer.json")
  assert read("it's unwanted") == fast("it's unwanted")


ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
LATIN = st.lists(
  st.one_of(
    st.characters(min_codepoint=0, max_codepoint=0xFF),
    st.sampled_from("\u4e2d\u56fd\u3002\u0416\u03a3\u03c3\u0301\ufb01\u3000"),
    st.sampled_from(["[MASK]", " ", "##", "the "]),
  ),
  max_size=40,
).map("".join)
SETTINGS = st.fixed_dictionaries(
  {},
  optional={
    "padding": st.sampled_from([True, False, "max_length"]),
    "truncation": st.sampled_from([True, False]),
    "max_length": st.integers(3, 20),
    "add_special_tokens": st.booleans(),
  },
)


@given(LATIN)
def test_slow_and_fast_agree_on_common_text(slow, fast, text):
  assert slow.tokenize(text) == fast.tokenize(text)
  assert slow(text) == fast(text)
  options = {"truncation": True, "max_length": 6, "padding": "max_length"}
  left = [copy.copy(slow), copy.copy(fast)]
  for tokenizer in left:
    tokenizer.padding_side = tokenizer.truncation_side = "left"
  assert left[0](text, **options) == left[1](text, **options)


@given(LATIN)
def test_offsets_slice_the_text(fast, text):
  out = fast(text, return_offsets_mapping=True, add_special_tokens=False)
  end = 0
  for token, (first, last) in zip(
    out.tokens(), out.offset_mapping, strict=True
  ):
    assert end <= first < last <= len(text)
    end = last
    piece = text[first:last]
    if piece.isascii() and token != "[UNK]":
      # Control characters inside a word are in its piece, not in its token.
      letters = "".join(c for c in piece if c.isprintable())
      assert letters.lower() == token.removeprefix("##").lower()
    assert out.char_to_token(first) == out.char_to_token(last - 1)


@given(ASCII)
def test_decoding_keeps_what_encoding_sees(slow, fast, text):
  for tokenizer in (slow, fast):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.encode(tokenizer.decode(ids))[1:-1] == ids


@given(st.lists(LATIN, min_size=1, max_size=3), SETTINGS)
def test_a_batch_is_its_texts_one_by_one(slow, fast, texts, settings):
  if settings.get("padding") is True:
    del settings["padding"]  # the longest of the batch
  for tokenizer in (slow, fast):
    batch = tokenizer(texts, **settings)
    for i, text in enumerate(texts):
      one = tokenizer([text], **settings)
      assert {k: v[i] for k, v in batch.items()} == {
        k: v[0] for k, v in one.items()
      }


@given(st.lists(LATIN, min_size=1, max_size=3), LATIN, st.integers(3, 12))
def test_lengths_after_padding_and_cutting(slow, fast, texts, pair, length):
  for tokenizer in (slow, fast):
    for side in ("left", "right"):
      sided = copy.copy(tokenizer)
      sided.padding_side = side
      out = sided(
        texts,
        [pair] * len(texts),
        padding="max_length",
        truncation=True,
        max_length=length,
        return_tensors="np",
        return_special_tokens_mask=True,
      )
      assert all(a.shape == (len(texts), length) for a in out.values())
      pads = out.attention_mask == 0
      assert (out.input_ids[pads] == tokenizer.pad_token_id).all()
      assert (out.special_tokens_mask[pads] == 1).all()
      step = 1 if side == "right" else -1
      assert (np.diff(pads.astype(int) * step, axis=1) >= 0).all()
      assert ((out.input_ids == 3) & ~pads).sum(1).min() >= 2
      bare = sided(
        texts, [pair] * len(texts), truncation=True, max_length=length
      )
      got = [
        r[m == 1].tolist()
        for r, m in zip(out.input_ids, out.attention_mask, strict=True)
      ]
      assert got == bare.input_ids


@BOTH
def test_mapping(cls, slow):
  out = cls(VOCAB)(["the dog", "a"], padding=True, return_tensors="np")
  assert list(out) == ["input_ids", "token_type_ids", "attention_mask"]
  assert out.input_ids is out["input_ids"]
  assert {**out}.keys() == out.keys() and "input_ids" in out
  assert out.input_ids.dtype == np.int64
  for again in (copy.deepcopy(out), pickle.loads(pickle.dumps(out))):
    np.testing.assert_array_equal(again.input_ids, out.input_ids)
  with pytest.raises(AttributeError):
    _ = out.labels
  assert out.is_fast == (cls is RealmTokenizerFast)
  if not out.is_fast:
    assert out[1:]["input_ids"].shape[0] == 1
    with pytest.raises(InputError, match="RealmTokenizerFast"):
      out.tokens()


def test_places(fast):
  out = fast("unwanted dog", "the")
  assert out.tokens() == "[CLS] un ##want ##ed dog [SEP] the [SEP]".split()
  assert out.word_ids() == [None, 0, 0, 0, 1, None, 0, None]
  assert out.sequence_ids() == [None, 0, 0, 0, 0, None, 1, None]
  assert out.word_to_tokens(0) == (1, 4) and out.word_to_chars(0, 1) == (9, 12)
  assert out.token_to_chars(2) == (2, 6) and out.token_to_chars(0) is None
  assert out.char_to_token(0, 9) == 4 and out.char_to_word(0, 9) == 1
  assert out.token_to_word(4) == 1 and out.token_to_sequence(0, 6) == 1
  assert out.n_sequences == 2


@BOTH
def test_special_tokens(cls):
  tokenizer = cls(VOCAB, additional_special_tokens=["[x]"])
  size = tokenizer.vocab_size
  assert len(tokenizer) == size + 1
  assert (tokenizer.unk_token_id, tokenizer.sep_token_id) == (1, 3)
  assert tokenizer.bos_token is None and tokenizer.bos_token_id is None
  assert tokenizer.all_special_ids == [1, 3, 0, 2, 4, size]
  tokenizer.pad_token = "the"
  tokenizer.cls_token_id = 3
  assert tokenizer.pad_token_id == tokenizer.get_vocab()["the"]
  assert tokenizer.cls_token == "[SEP]"
  assert tokenizer.add_special_tokens({"eos_token": "</s>"}) == 1
  tokenizer.additional_special_tokens = ["a"]
  assert tokenizer.additional_special_tokens == ["[x]", "a"]
  assert tokenizer.encode("it </s> it")[2] == tokenizer.eos_token_id == size + 1
  assert tokenizer.add_tokens("NEW_word") == 1
  ids = [size + 2, size + 1]
  name = {True: "NEW_word", False: "new_word"}[tokenizer.is_fast]
  assert tokenizer.convert_ids_to_tokens(ids) == [name, "</s>"]
  assert tokenizer.decode(ids, skip_special_tokens=True) == name
  assert tokenizer.max_len_single_sentence == tokenizer.model_max_length - 2


def test_overlapping_added_tokens_match_the_longest_first(slow):
  tokenizer = RealmTokenizer(VOCAB)
  tokenizer.add_tokens(["<x>", "<xy>", "foo", "foobar"])
  got = tokenizer.tokenize("a<xy><x> foobarfoo")
  assert got == ["a", "<xy>", "<x>", "foobar", "foo"]


@pytest.mark.parametrize(
  "flags, want",
  [
    ({}, ["a ", "<x>", " b"]),
    ({"rstrip": True}, ["a ", "<x>", "b"]),
    ({"lstrip": True}, ["a", "<x>", " b"]),
    ({"single_word": True}, ["a ", "<x>", " b"]),
  ],
)
def test_added_tokens_take_the_spaces_they_ask_for(flags, want):
  token = AddedToken("<x>", **flags)
  assert added_tokens.split("a <x> b", {"<x>": token}) == want
  glued = ["a<x>", "b"] if token.single_word else ["a", "<x>", "b"]
  assert added_tokens.split("a<x>b", {"<x>": token}) == glued


@pytest.mark.parametrize(
  "truncation, num, stride, side, want",
  [
    ("longest_first", 2, 0, "right", ([1, 2], [7], [])),
    ("longest_first", 1, 0, "left", ([2, 3], [7, 8], [])),
    ("longest_first", 3, 0, "right", ([1], [7], [])),
    ("only_first", 2, 0, "right", ([1], [7, 8], [2, 3])),
    ("only_first", 1, 1, "right", ([1, 2], [7, 8], [2, 3])),
    ("only_first", 1, 1, "left", ([2, 3], [7, 8], [1, 2])),
    ("only_first", 3, 0, "right", ([1, 2, 3], [7, 8], [])),  # too short
    ("only_second", 1, 9, "right", ([1, 2, 3], [7], [7, 8])),
    ("only_second", 2, 0, "right", ([1, 2, 3], [7, 8], [])),
  ],
)
def test_pairs_are_cut(truncation, num, stride, side, want):
  options = EncodeOptions(truncation=truncation, stride=stride)
  got = encode_options.truncate([1, 2, 3], [7, 8], num, options, side)
  assert got == want


@pytest.mark.parametrize(
  "first, last",
  [
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
  ],
)
def test_ideographs_are_words(first, last):
  basic = BasicTokenizer(do_lower_case=False)
  known = [c for c in (first, last) if unicodedata.category(chr(c)) == "Lo"]
  assert known
  for code in known:
    assert basic.tokenize(f"a{chr(code)}b") == ["a", chr(code), "b"]


def test_final_sigma_is_lowered_like_any_other(slow, fast):
  for tokenizer in (slow, fast):
    assert tokenizer.tokenize("\u03a3\u03a3") == ["\u03c3", "##\u03c3"]


def test_never_split(slow):
  tokenizer = RealmTokenizer(VOCAB, never_split=["zzz", "a-b"])
  assert tokenizer.tokenize("zzz a-b a-bs") == [
    *("zzz", "a-b", "a", "-", "b", "##s")
  ]
  got = slow.tokenize("[MASK] it[MASK]", split_special_tokens=True)
  assert got == ["[MASK]", "it", "[", "m", "##a", "##s", "##k", "]"]


def test_decoding_sets_tokens_outside_the_vocabulary_apart(slow, fast):
  for tokenizer, want in ((slow, "[x] ##s"), (fast, "[x]s")):
    made = type(tokenizer)(VOCAB, additional_special_tokens=["[x]"])
    ids = made.convert_tokens_to_ids(["[x]", "##s"])
    assert made.decode(ids) == want
  assert slow.decode(slow.vocab["it"]) == "i t"  # so does the reference


def test_a_second_text_without_ids(slow, fast):
  assert slow.build_inputs_with_special_tokens([7], []) == [2, 7, 3, 3]
  assert fast.build_inputs_with_special_tokens([7], []) == [2, 7, 3]
  assert slow("a", "").input_ids[1:] == [*fast("a", "").input_ids[1:], 3]


def test_max_input_chars_per_word():
  tokenizer = RealmTokenizer(VOCAB)
  assert len(tokenizer.tokenize("a" * 100)) == 100
  assert tokenizer.tokenize("a" * 101) == ["[UNK]"]
  tokenizer.wordpiece_tokenizer.max_input_chars_per_word = 2
  assert tokenizer.tokenize("it dog") == ["it", "[UNK]"]


def test_a_tokenizer_can_be_copied(slow, fast):
  for tokenizer in (slow, fast):
    for again in (
      copy.deepcopy(tokenizer),
      pickle.loads(pickle.dumps(tokenizer)),
    ):
      assert again("Hello [MASK]") == tokenizer("Hello [MASK]")


def test_labels(slow):
  out = slow("the dog", text_target=["it", "a dog"])
  assert out.labels == slow(["it", "a dog"]).input_ids


def test_gives_a_training_tokenizer_the_same_ids(slow, tmp_path):
  (path,) = slow.save_vocabulary(tmp_path)
  data = data_tokenizer.load_vocab(path, lower_case=slow.do_lower_case)
  text = "It's unwanted, caf\u00e9!"
  assert data.encode(text) == slow.encode(text, add_special_tokens=False)


@BOTH
@pytest.mark.parametrize(
  "options, word",
  [
    ({"padding": "bad"}, "do_not_pad"),
    ({"truncation": "bad"}, "longest_first"),
    ({"return_tensors": "pt"}, '"np"'),
    ({"return_tensors": "tf"}, '"np"'),
    ({"return_tensors": "np"}, "padding=True"),
    (
      {
        "padding": True,
        "truncation": True,
        "max_length": 7,
        "pad_to_multiple_of": 4,
      },
      "multiple",
    ),
  ],
)
def test_bad_options_are_named(cls, options, word):
  with pytest.raises(InputError, match=word):
    cls(VOCAB)(["the dog", "a"], **options)


@BOTH
@pytest.mark.parametrize("text", [None, 3, [3], [["a"], 3], [], [[[["a"]]]]])
def test_bad_texts_are_refused(cls, text):
  with pytest.raises(InputError):
    cls(VOCAB)(text)


@BOTH
def test_mistakes_are_named(cls, tmp_path):
  tokenizer = cls(VOCAB)
  with pytest.raises(InputError, match=r"nowhere.*no such directory"):
    cls.from_pretrained(tmp_path / "nowhere")
  with pytest.raises(InputError, match=r"lacks vocab\.txt"):
    cls.from_pretrained(tmp_path)
  with pytest.raises(InputError, match="no such file"):
    cls(tmp_path / "vocab.txt")
  (tmp_path / "file").write_bytes(b"\xff")
  with pytest.raises(InputError, match="UTF-8"):
    cls(tmp_path / "file")
  with pytest.raises(InputError, match="is a file"):
    tokenizer.save_pretrained(tmp_path / "file")
  with pytest.raises(InputError, match="padding_side"):
    cls(VOCAB, padding_side="top")
  with pytest.raises(InputError, match="mask_token"):
    cls(VOCAB, mask_token=4)
  with pytest.raises(InputError, match="additional_special_tokens"):
    cls(VOCAB, additional_special_tokens="[x]")
  with pytest.raises(InputError, match="as many"):
    tokenizer(["a", "a"], ["a"])
  with pytest.raises(InputError, match="batch_decode"):
    tokenizer.decode([[1], [2]])
  with pytest.raises(InputError, match="no pad token"):
    cls(VOCAB, pad_token=None)(["a"], padding=True)
  with pytest.raises(InputError, match="input_ids"):
    tokenizer.pad({"ids": [1]})


def test_mistakes_with_one_of_them_are_named(slow, fast):
  with pytest.raises(InputError, match="RealmTokenizerFast"):
    slow("a", return_offsets_mapping=True)
  with pytest.raises(InputError, match="max_length"):
    slow("a", return_overflowing_tokens=True)
  with pytest.raises(InputError, match="legacy_format"):
    slow.save_pretrained("unused", legacy_format=False)
  with pytest.raises(InputError, match="paddding"):
    fast("a", paddding=True)
  with pytest.raises(InputError, match="stride"):
    fast("a b c d e", max_length=4, truncation=True, stride=2)
  with pytest.raises(InputError, match="already_has_special_tokens"):
    fast.get_special_tokens_mask([1])
  assert fast("a b")["input_ids"][0] == 2  # it still works


def test_constructors_have_the_reference_s_arguments():
  slow = list(inspect.signature(RealmTokenizer).parameters)
  fast = list(inspect.signature(RealmTokenizerFast).parameters)
  tokens = "unk_token sep_token pad_token cls_token mask_token".split()
  last = ["tokenize_chinese_chars", "strip_accents", "kwargs"]
  assert slow == [
    "vocab_file",
    "do_lower_case",
    "do_basic_tokenize",
    "never_split",
    *tokens,
    *last,
  ]
  assert fast == [
    "vocab_file",
    "tokenizer_file",
    "do_lower_case",
    *tokens,
    *last,
  ]
