"""Records the reference tokenizers' answers for tests/data/*_tokenizer_test.py.

Needs Python 3.11 and `pip install transformers==4.34.0` (which brings
tokenizers 0.14.1), nothing of realm_jax:

  python tests/oracle/record_tokenizer.py tests/testdata/tokenizer

writes vocab.txt (a small vocabulary), unicode.json (ids of random strings),
calls.json (answers of calls with random options) and saved_*/ (directories that
the reference saved) with saved.json (what it answers when it reads them).
Characters that Unicode 14, which Python 3.11 has, does not know are left out: a
newer interpreter takes them for letters. An answer is null where the reference
raised, and where it made an array of lists of rows that differ in length, which
ours refuses.
"""

import json
import pathlib
import random
import shutil
import string
import sys
import unicodedata

import numpy as np
import transformers

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
  "the of and in to was is on hello world new york it not n't 's i am dog un"
  " able want ##want ##ed ##able ##s Hello É é ##é straße ß ı σ ς ##σ Σ ﬁ привет"
  " ##вет مرحبا ال שלום 😀 👍 … « » ½ ™ café naive a.b"
).split()
IDEOGRAPHS = list("中国日本語東한국어あいが")
COMBINING = "\u0300\u0301\u0308\u0323\u0327\u0345\u05b0\u064b\u093c\u20dd\ufe0f"
CONTROL = (
  "\x00\x01\x08\x0b\x1b\x1c\x1f\x7f\x80\x85\xad\u200b\u200d\u200e\u202e\u2060"
  "\ufeff\ufffd\ufffe\ue000\U000e0001\U0010ffff"
)
SPACE = " \t\n\r\x0c\xa0\u1680\u2003\u2028\u2029\u202f\u3000"
SCRIPTS = "жПРИВЕТΑΣσςЀनमस्तेสวัสดีཀქართულიՀայ中国日本語한국어あアﾊ豈㐀𠀀"
RTL = "مرحبا بالعالم שלום עולם ﷺ ٱلْعَرَبِيَّة".split()
EMOJI = "😀 🤖 👍🏽 👨‍👩‍👧 🇫🇷 ❤️ ☃".split()
TEXT_WORDS = (
  "the of Hello WORLD New York don't it's unwanted wanted foo_bar model-name"
  " café École straße ΣΊΣΥΦΟΣ İstanbul ﬁne x² ① ａｂｃ zzz e.g. U.S. 3.14 $5 C++"
  " ##the [CLS [cls] [x] <s> `` '"
).split()
OPTIONS = [
  {},
  {"do_lower_case": False},
  {"do_lower_case": False, "strip_accents": True},
  {"strip_accents": False},
  {"tokenize_chinese_chars": False},
  {"never_split": ["foo_bar", "café", "model-name"]},
  {"do_basic_tokenize": False},
  {"model_max_length": 9, "padding_side": "left", "truncation_side": "left"},
  {"model_input_names": ["input_ids", "attention_mask"], "pad_token": "<pad>"},
  {"additional_special_tokens": ["[x]", "the"], "sep_token": "[CLS]"},
  {"clean_up_tokenization_spaces": False, "unk_token": "<unk>"},
]
SAVED = {
  "saved_slow": ("RealmTokenizer", OPTIONS[7]),
  "saved_fast": ("RealmTokenizerFast", OPTIONS[9]),
}


def vocabulary() -> list[str]:
  """A small vocabulary in which most letters are pieces."""
  letters = list(string.ascii_lowercase + string.digits)
  pieces = SPECIALS + letters + [f"##{c}" for c in letters]
  pieces += [*string.punctuation, *WORDS, *IDEOGRAPHS]
  return list(dict.fromkeys(pieces))


class Texts:
  """Random texts; the same seed gives the same ones."""

  def __init__(self, seed: int):
    self.rng = random.Random(seed)

  def any_char(self) -> str:
    while True:
      top = self.rng.choice([0x80, 0x250, 0x3000, 0x10000, 0x110000])
      char = chr(self.rng.randrange(top))
      if unicodedata.category(char) not in ("Cn", "Cs"):
        return char

  def piece(self) -> str:
    pick, run = self.rng.choice, self.rng.randint(1, 4)
    return pick(
      [
        *[pick(TEXT_WORDS)] * 4,
        pick(SPECIALS),
        "".join(pick(SCRIPTS) for _ in range(run)),
        pick("aeocnE") + pick(COMBINING),
        pick(CONTROL),
        pick(RTL),
        pick(EMOJI),
        pick(string.punctuation + "¡«“…—·、。！％€"),
        "".join(self.any_char() for _ in range(run)),
        pick(["a", "ab", "é", "中"]) * pick([1, 2, 3, 50, 100, 101]),
      ]
    )

  def text(self, pieces: int | None = None) -> str:
    n = self.rng.randint(0, 6) if pieces is None else pieces
    ends = ["", " ", " ", self.rng.choice(SPACE)]
    return "".join(self.piece() + self.rng.choice(ends) for _ in range(n))

  def words(self) -> list[str]:
    return [self.text(1) for _ in range(self.rng.randint(0, 3))]


def make(name: str, path: pathlib.Path, options: dict):
  """A tokenizer of the reference."""
  return getattr(transformers, name)(str(path), **options)


def plain(value):
  """Lists instead of arrays, dicts instead of encodings."""
  if isinstance(value, np.ndarray):
    return None if value.dtype == object else value.tolist()
  if hasattr(value, "keys"):
    return {key: plain(value[key]) for key in value}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  return value


def answer(tokenizer, method: str, args: list, options: dict):
  """What the method returns, None where it raises."""
  try:
    got = plain(getattr(tokenizer, method)(*args, **options))
    return None if isinstance(got, dict) and None in got.values() else got
  except Exception as error:
    print(f"{method}: {error!r:.90}")
    return None


def call_options(rng: random.Random) -> dict:
  """Random keyword arguments of a call."""
  values = {
    "add_special_tokens": [False],
    "padding": [True, "max_length", "longest", "do_not_pad"],
    "truncation": [True, "only_first", "only_second", False],
    "max_length": [1, 4, 6, 8, 12, 20],
    "stride": [1, 2],
    "pad_to_multiple_of": [4],
    "return_tensors": ["np"],
    "return_token_type_ids": [True, False],
    "return_attention_mask": [True, False],
    "return_overflowing_tokens": [True],
    "return_special_tokens_mask": [True],
    "return_offsets_mapping": [True],
    "return_length": [True],
  }
  often = ("padding", "truncation", "max_length")
  return {
    name: rng.choice(choices)
    for name, choices in values.items()
    if rng.random() < (0.6 if name in often else 0.15)
  }


def call(texts: Texts) -> tuple[str, list, dict]:
  """A random method with its arguments."""
  rng, text, words = texts.rng, texts.text, texts.words
  options = call_options(rng)
  split = {"is_split_into_words": True}
  ids = [rng.randrange(200) for _ in range(rng.randint(0, 12))]
  decode = {"skip_special_tokens": rng.random() < 0.5}
  batch = [[text(2), text(2)], [text(2), text(2)]]
  return rng.choice(
    [
      *[("__call__", [text()], options)] * 3,
      ("__call__", [text(), text()], options),
      ("__call__", [[text(), text(), text()]], options),
      ("__call__", [[text(), text()], [text(), text()]], options),
      ("__call__", [words()], options | split),
      ("__call__", [[words(), words()], [words(), words()]], options | split),
      ("decode", [ids], decode),
      ("batch_decode", [[ids, ids[:2]]], decode),
      ("tokenize", [text()], {}),
      ("batch_encode_candidates", [batch], options),
      ("batch_encode_candidates", [batch], options | {"text_pair": batch}),
      ("prepare_for_model", [ids, ids[:3]], options | {"return_tensors": None}),
      ("pad", [{"input_ids": [ids, ids[:2]]}], {"max_length": 5}),
      ("get_special_tokens_mask", [ids], {"already_has_special_tokens": True}),
      ("convert_ids_to_tokens", [ids], {"skip_special_tokens": True}),
      ("convert_tokens_to_ids", [["the", "##s", "nope", "[CLS]"]], {}),
      ("num_special_tokens_to_add", [rng.random() < 0.5], {}),
    ]
  )


def write(path: pathlib.Path, value) -> None:
  """Compact JSON, one item a line."""
  lines = ",\n".join(
    json.dumps(item, ensure_ascii=True, separators=(",", ":")) for item in value
  )
  path.write_text(f"[\n{lines}\n]\n")


def record_unicode(path: pathlib.Path, vocab: pathlib.Path) -> None:
  """[text, {tokenizer: ids}] of random texts."""
  texts = Texts(1)
  tokenizers = {
    f"{name} {i}": make(name, vocab, OPTIONS[i])
    for name in ("RealmTokenizer", "RealmTokenizerFast")
    for i in range(5)
  }
  rows = []
  for _ in range(300):
    text = texts.text()
    some = texts.rng.sample(sorted(tokenizers), 3)
    rows.append([text, {k: tokenizers[k].encode(text) for k in some}])
  write(path, rows)


def record_calls(path: pathlib.Path, vocab: pathlib.Path) -> None:
  """[class, options, method, args, keywords, answer] of random calls."""
  texts, rows = Texts(2), []
  for _ in range(260):
    name = texts.rng.choice(["RealmTokenizer", "RealmTokenizerFast"])
    options = texts.rng.choice(OPTIONS)
    row = [name, options, *call(texts)]
    rows.append([*row, answer(make(name, vocab, options), *row[2:])])
  write(path, rows)


def record_saved(directory: pathlib.Path, vocab: pathlib.Path) -> None:
  """[directory, class, text, answer] of tokenizers that were saved and read."""
  texts, rows = Texts(3), []
  for saved, (name, options) in SAVED.items():
    path = directory / saved
    shutil.rmtree(path, ignore_errors=True)
    make(name, vocab, options).save_pretrained(path)
    for reader in ("RealmTokenizer", "RealmTokenizerFast"):
      tokenizer = getattr(transformers, reader).from_pretrained(str(path))
      for _ in range(8):
        text = texts.text()
        rows.append([saved, reader, text, plain(tokenizer(text))])
  write(directory / "saved.json", rows)


def main(directory: str) -> None:
  path = pathlib.Path(directory)
  path.mkdir(parents=True, exist_ok=True)
  vocab = path / "vocab.txt"
  vocab.write_text("".join(f"{p}\n" for p in vocabulary()), encoding="utf-8")
  record_unicode(path / "unicode.json", vocab)
  record_calls(path / "calls.json", vocab)
  record_saved(path, vocab)


if __name__ == "__main__":
  main(sys.argv[1])
