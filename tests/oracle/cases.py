"""Named cases of the oracle: sizes, lengths and texts that differ where bugs hide.

A case says everything about a directory of reference checkpoints but its random
numbers. Dimensions of one case are pairwise different where that is possible, so
that a swapped axis or size changes a shape.
"""

import dataclasses

PLAIN = (
  "alan turing was born in london in 1912",
  "alan mathison turing was a pioneer of modern computer science",
  "paris is the capital of france .",
  "the thames is a river in london",
  "rome is the capital of italy ; the tiber flows through it",
  "the second war : 1939 - 1945 , and peace",
)
UNICODE = (
  "Zürich lies on the Limmat – a naïve café, coöperating!",
  "東京 is the capital of 日本.",
  "The “ﬁrst” prize was €5 (≈ $6)… isn't it?",
  "Αθήνα; Москва: don't we'll rock'n'roll",
  "a [SEP] in the text, a [MASK] and a [PAD]",
  "tabs\tand\nlines   and\u00a0spaces\u200b",
  "an emoji 😀 is unknown; so is qqq",
  "a bell \x07 and a nul \x00 are dropped",
)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclasses.dataclass(frozen=True)
class Case:
  """One named case.

  Attributes:
    config: of RealmConfig; vocab_size and num_block_records follow from the
      texts where they are not given.
    batch: sequences or queries in a batch.
    lengths: of a query, of a candidate block, of a joint sequence.
    question, answers: of open-domain QA.
    more: further questions with their answers.
    sentences: blocks are drawn from them.
    blocks: how many; extra_blocks come on top.
    pad_at: the line of vocab.txt at which the specials begin.
    unknown: words that are left out of the vocabulary.
    cased: whether the tokenizer keeps capitals.
    tokenizer_json: whether tokenizer.json is written, or vocab.txt alone.
    spread: standard deviation of the random weights.
  """

  config: dict
  batch: int
  lengths: tuple[int, int, int]
  question: str
  answers: tuple[str, ...]
  more: tuple[tuple[str, tuple[str, ...]], ...] = ()
  sentences: tuple[str, ...] = PLAIN
  blocks: int = 11
  extra_blocks: tuple[str, ...] = ()
  pad_at: int = 0
  unknown: tuple[str, ...] = ()
  cased: bool = False
  tokenizer_json: bool = True
  spread: float = 0.15


TURING = "who was the pioneer of modern computer science ?"
LONG = " ".join(["who was a river in the capital of the war and peace ,"] * 3)


def _sizes(layers, heads, hidden, intermediate, proj, span, act, **more):
  return {
    "num_hidden_layers": layers,
    "num_attention_heads": heads,
    "hidden_size": hidden,
    "intermediate_size": intermediate,
    "retriever_proj_size": proj,
    "span_hidden_size": span,
    "hidden_act": act,
    **more,
  }


def _reading(candidates, width, read, found, length, positions, **more):
  return {
    "num_candidates": candidates,
    "max_span_width": width,
    "reader_beam_size": read,
    "searcher_beam_size": found,
    "reader_seq_len": length,
    "max_position_embeddings": positions,
    **more,
  }


CASES = {
  # The sizes of the checkpoint that came first.
  "tiny": Case(
    config=_sizes(3, 4, 32, 37, 16, 20, "gelu_new")
    | _reading(4, 5, 3, 6, 32, 64, vocab_size=99, pad_token_id=0),
    batch=5,
    lengths=(14, 17, 17),
    question=TURING,
    answers=("alan mathison turing", "turing"),
    blocks=24,
    tokenizer_json=False,
  ),
  # One of everything: layer, head, span width, block read.
  "relu": Case(
    config=_sizes(1, 1, 24, 50, 9, 14, "relu", layer_norm_eps=1e-5)
    | _reading(2, 1, 1, 5, 23, 23, pad_token_id=0),
    batch=3,
    lengths=(13, 11, 15),
    question="where was turing born ?",
    answers=("london",),
    more=(("what is the capital of france ?", ("paris", "france")),),
  ),
  # Projection and block wider than usual; segments 0, 1, 2; [PAD] at line 4.
  "gelu": Case(
    config=_sizes(3, 3, 36, 19, 40, 6, "gelu", reader_layer_norm_eps=0.1)
    | _reading(5, 4, 3, 7, 29, 29, type_vocab_size=3, pad_token_id=4),
    batch=2,
    lengths=(15, 21, 27),
    question=TURING,
    answers=("alan mathison turing", "turing", "computer science"),
    more=(("who was born in 1912 ?", ("alan turing", "nobody")),),
    pad_at=4,
    tokenizer_json=False,
  ),
  # No answer in any block; pad_token_id is not the tokenizer's [PAD].
  "selu": Case(
    config=_sizes(2, 4, 20, 31, 7, 11, "selu", layer_norm_eps=1e-3)
    | _reading(3, 6, 3, 8, 25, 26, pad_token_id=5),
    batch=4,
    lengths=(9, 19, 21),
    question="who was king of spain ?",
    answers=("the moon", "spain"),
    more=((TURING, ("turing",)), ("rome ?", ())),
    blocks=13,
    unknown=("king",),
    spread=0.2,
  ),
  # The question is longer than most blocks: both parts are cut.
  "longest": Case(
    config=_sizes(1, 12, 48, 13, 17, 48, "gelu_new", layer_norm_eps=1e-6)
    | _reading(8, 3, 2, 9, 31, 47, reader_layer_norm_eps=1e-12),
    batch=3,
    lengths=(47, 5, 33),
    question=LONG,
    answers=("capital of", "in", "paris is the capital"),
    more=((LONG + " turing", ("rome",)), ("?", ("war : 1939 - 1945",))),
    extra_blocks=("", "peace", " ".join(PLAIN)),
    tokenizer_json=False,
  ),
  # Capitals, accents, CJK, punctuation, specials in the text, unknown words.
  "unicode": Case(
    config=_sizes(2, 2, 22, 22, 12, 8, "gelu_new")
    | _reading(6, 7, 3, 10, 37, 41, pad_token_id=0),
    batch=3,
    lengths=(17, 23, 29),
    question="Is 東京 qqq the capital of 日本 – isn't it?",
    answers=("日本", "capital of", "qqq"),
    more=(
      ("what is a [SEP] in [MASK] text ?", ("text",)),
      ("Zürich’s café?", ("Zürich", "naïve café")),
    ),
    sentences=UNICODE,
    extra_blocks=("", "\n", "日本日本日本"),
    unknown=("qqq", "Москва", "😀"),
    cased=True,
  ),
  # The same without capitals; the specials stand at BERT's kind of place.
  "lower": Case(
    config=_sizes(2, 3, 21, 34, 10, 9, "relu")
    | _reading(4, 10, 4, 12, 28, 33, pad_token_id=7),
    batch=3,
    lengths=(10, 11, 12),
    question="Where is ZÜRICH, in a CAFÉ?",
    answers=("zurich", "Limmat", "a bell"),
    more=(("ﬁrst €5?", ("prize was €5",)),),
    sentences=UNICODE + PLAIN,
    blocks=17,
    pad_at=7,
    unknown=("qqq", "москва"),
  ),
  # Small enough to be committed.
  "small_relu": Case(
    config=_sizes(1, 3, 9, 7, 5, 4, "relu", reader_layer_norm_eps=0.02)
    | _reading(2, 4, 3, 5, 17, 17, type_vocab_size=3, pad_token_id=4),
    batch=3,
    lengths=(8, 10, 11),
    question="where was turing born ?",
    answers=("london", "in 1912"),
    more=(("turing ?", ("nobody",)),),
    sentences=PLAIN[:3:2],
    blocks=6,
    pad_at=4,
    spread=0.3,
  ),
  "small_gelu": Case(
    config=_sizes(1, 2, 6, 11, 9, 4, "gelu", layer_norm_eps=1e-5)
    | _reading(3, 2, 1, 5, 18, 19, pad_token_id=0),
    batch=2,
    lengths=(7, 10, 12),
    question="is 日本 qqq ?",
    answers=("日本", "qqq"),
    sentences=UNICODE[1:5:3],
    blocks=5,
    extra_blocks=("", "日本 qqq"),
    unknown=("qqq",),
    tokenizer_json=False,
    spread=0.3,
  ),
}
