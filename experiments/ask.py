"""Answers a question with a run, and shows the evidence.

  python -m experiments.ask --workdir=DIR "Dutch painter of the 17th century"

DIR is a run's or a demo's directory. A run that is only pre-trained fills in
[MASK] instead: "Vermeer was a [MASK] painter". --config.index=VERSION asks over
another index version and its corpus.

Needs: a run with an index (build_index), or a folder of such runs.
"""

import textwrap

from ml_collections import config_dict

from experiments import command
from realm_jax.config import InputError
from realm_jax.serve.predictor import Predictor

_WIDTH = 78


def main(config, workdir, words):
  if not words:
    raise InputError('no question: give one, as "Dutch painter in Delft"')
  show(workdir, " ".join(words), config)


def options() -> config_dict.ConfigDict:
  """What the command takes as --config.KEY, with its defaults."""
  defaults = config_dict.ConfigDict()
  # another index version than the newest, with its blocks: its number, its
  # directory, or a run's
  defaults.index = ""
  defaults.evidence = 5  # blocks shown
  defaults.characters = 400  # of each block's text
  return defaults


def show(workdir, question: str, config):
  """Prints the answer and its evidence, config as `options`."""
  predictor = Predictor(workdir, batch_size=1, index=config.index)
  (answer,) = predictor.answer([question])
  if predictor.note:
    print(f"note: {predictor.note}")
  if answer.score == answer.score:  # not NaN: there is an answer
    print(f"answer: {answer.text or '(none)'}")
    print(f"score: {answer.score:.3f} (its log-probability)")
  for block in answer.evidence[: config.evidence]:
    print()
    print(_block(block, config.characters))


def _block(block, characters: int) -> str:
  """p(z|x), title and text of a block, the answer between »marks«."""
  if block.block_id < 0:
    return f"p(z|x) {block.p:.3f}  (null block: no evidence)"
  text = block.text
  if block.span:
    start, end = block.span
    text = f"{text[:start]}»{text[start:end]}«{text[end:]}"
  text = textwrap.shorten(text, characters, placeholder=" …")
  head = f"p(z|x) {block.p:.3f}  block {block.block_id}  {block.title}"
  return head + "\n" + textwrap.indent(textwrap.fill(text, _WIDTH), "  ")


if __name__ == "__main__":
  command.run(main, defaults=options(), words="question")
