"""Everything a person wants to see beside an answer, as plain values.

What the page shows, what `realm_jax.explain` returns and what `/api/ask` sends
is this one struct.
"""

import dataclasses
from typing import Any

_WIDTH = 78  # columns of a repr
_SHOWN = 6  # blocks of a repr


@dataclasses.dataclass(frozen=True)
class Block:
  """A block as evidence.

  Attributes:
    block_id: its row in the index; -1 is the null block (no evidence).
    title, text: its raw text.
    p: p(z | x) among the blocks shown.
    answer: what this block by itself answers; "" where nothing reads it.
    answer_p: a reader: probability of that span among all spans of all blocks;
      an encoder: p(y | z, x) of it; None where nothing reads it.
    p_of_answer: an encoder's p(y | z, x) of the answer that all blocks give
      together; None for a reader.
    span: where `answer` stands in `text`, characters; None: nowhere.
    chosen: whether the answer was read here.
  """

  block_id: int
  title: str
  text: str
  p: float
  answer: str = ""
  answer_p: float | None = None
  p_of_answer: float | None = None
  span: tuple[int, int] | None = None
  chosen: bool = False


@dataclasses.dataclass(frozen=True)
class Word:
  """A wordpiece that may fill a mask.

  Attributes:
    text: the wordpiece.
    p: p(y | x), summed over the blocks.
    p_without: p(y | null, x), the null block's alone.
  """

  text: str
  p: float
  p_without: float


@dataclasses.dataclass(frozen=True)
class Guess:
  """What is answered from memory, without evidence, with its probability."""

  answer: str
  p: float


@dataclasses.dataclass(frozen=True)
class IndexState:
  """The index version that was searched.

  Attributes:
    version: its number; None: the run has none, it was made as it was opened.
    params_step: training step of the params that embedded the blocks.
    steps_behind: training steps between those params and the run's newest.
    made: when it was written, seconds since 1970; None: see version.
    num_blocks: blocks in it.
  """

  version: int | None
  params_step: int
  steps_behind: int
  made: float | None
  num_blocks: int


@dataclasses.dataclass(frozen=True, repr=False)
class Explanation:
  """An answer and all that speaks for it; its repr fits a screen.

  Attributes:
    question: as it was asked.
    how: "read": a span of a block; "filled in": in the place of [MASK]; "found":
      there is no answer, only blocks.
    answer: "" where the model has none.
    p: its probability, see Block.answer_p; an encoder's is p(y | x), summed over
      the blocks. None where nothing answers.
    evidence: the blocks, highest p(z | x) first.
    without: the answer without evidence; None: nothing knows one.
    words: of each [MASK] the best words, best first.
    run: name of the run.
    step: training steps of its params.
    index: which version was searched.
    note: what a reader of the answer must know; "" for nothing.
  """

  question: str
  how: str
  answer: str
  p: float | None
  evidence: tuple[Block, ...]
  without: Guess | None
  words: tuple[tuple[Word, ...], ...]
  run: str
  step: int
  index: IndexState
  note: str = ""

  def to_json(self) -> dict[str, Any]:
    """The same as dicts and lists."""
    return dataclasses.asdict(self)

  def __repr__(self) -> str:
    lines = [f"Q {self.question}", f"A {self.answer or '(none)'}"]
    if self.p is not None:
      lines[-1] += f"  {self.p:.0%}"
    if self.without is not None:
      guess = self.without
      lines.append(f"  without evidence: {guess.answer}  {guess.p:.0%}")
    for words in self.words:
      said = ", ".join(f"{w.text} {w.p:.0%} ({w.p_without:.0%})" for w in words)
      lines.append(f"  [MASK] (without evidence): {said}")
    lines += ["", "  p(z|x)  says            block"]
    lines += [_line(block) for block in self.evidence[:_SHOWN]]
    if more := len(self.evidence) - _SHOWN:
      lines += [f"  and {more} more"] if more > 0 else []
    index = self.index
    lines += ["", f"  run {self.run}, step {self.step}, {_in_words(index)}"]
    return "\n".join(
      line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
      for line in lines
    )


def _line(block: Block) -> str:
  title = block.title or ("(null block)" if block.block_id < 0 else "")
  says = _cut(block.answer, 14)
  body = _cut(f"{title}: {block.text}" if block.text else title, 50)
  return f"  {block.p:6.3f}{'*' if block.chosen else ' '} {says:15} {body}"


def _cut(text: str, most: int) -> str:
  text = " ".join(text.split())
  return text if len(text) <= most else text[: most - 1] + "…"


def _in_words(index: IndexState) -> str:
  version = "none" if index.version is None else index.version
  behind = f", {index.steps_behind} steps behind" if index.steps_behind else ""
  return f"index version {version} of {index.num_blocks} blocks{behind}"
