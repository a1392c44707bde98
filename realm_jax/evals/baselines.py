"""What a retrieval-augmented reader must beat, on the same questions.

BM25 with its best block's title as the answer; the pre-trained encoder without
evidence (closed book); and the reader itself with other blocks' text in the
place of what was found.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from realm_jax.data import fill_in, qa
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import Tokenizer
from realm_jax.evals import exact_match
from realm_jax.evals.bm25 import Bm25
from realm_jax.evals.qa import QaScores, chunks, score_answers, score_found
from realm_jax.evals.retrieval import CUTOFFS
from realm_jax.retrieval import block_tokens, evidence
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.evidence import Answer, Evidence
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.types import Array

_REGEX_LENS = (1, 2, 3)  # masks tried where an answer's length isn't known
_NO_ANSWER = Answer("", float("-inf"), ())


def evaluate_bm25(
  bm25: Bm25,
  questions: Sequence[qa.Question],
  store: BlockStore,
  cutoffs: Sequence[int] = CUTOFFS,
) -> QaScores:
  """BM25 as a retriever, and as a reader that answers with the best title."""
  found = bm25.search([q.question for q in questions], max(cutoffs))
  answers = [_title_answer(int(ids[0]), store) for ids in found.ids]
  scores = score_answers(questions, answers)
  recall = score_found(found.ids, questions, store, cutoffs)
  return QaScores(scores.predictions, scores.columns | recall, found)


def _title_answer(block: int, store: BlockStore) -> Answer:
  if block < 0:
    return _NO_ANSWER
  title = store.title(block)
  shown = Evidence(block, title, store.text(block), p=None)
  return Answer(title, float("nan"), (shown,))


def make_bm25(store: BlockStore) -> Bm25:
  """BM25 over title and text of every block."""
  return Bm25(f"{store.title(i)} {store.text(i)}" for i in range(len(store)))


def shuffle_blocks(
  open_qa: OpenQa, tokens: Tokens, seed: int = 0
) -> tuple[OpenQa, Tokens, np.ndarray]:
  """Gives each block the tokens of another: evidence that is none.

  The search still finds the same ids with the same scores; only what the
  reader reads there is another block's text.

  Returns:
    The reader without re-embedding (it would embed the wrong tokens), the
    shuffled tokens, and `text_of` [N]: whose tokens each block has now.
  """
  num_blocks = open_qa.retrieval.num_blocks
  shift = np.random.default_rng(seed).integers(1, max(num_blocks, 2))
  text_of = (np.arange(num_blocks) + shift) % num_blocks
  rows = np.concatenate([text_of, np.arange(num_blocks, tokens.num_rows)])
  shuffled = block_tokens.reorder(tokens, rows)
  return dataclasses.replace(open_qa, embed_found=False), shuffled, text_of


def evaluate_fill_in(
  realm: Realm,
  params,
  block_emb: Array | None,
  tokens: Tokens,
  questions: Sequence[qa.Question],
  store: BlockStore,
  tokenizer: Tokenizer,
  *,
  query_len: int,
  max_masks: int,
  template: str,
  batch_size: int = 32,
) -> QaScores:
  """Lets the pre-trained encoder fill masks in the answer's place.

  Without an index this is the closed book: what the encoder knows by heart.
  Generous: it is told how many wordpieces each true answer has, and any right
  filling counts.

  Args:
    realm: the pre-training model.
    params: {"embedder", "encoder"}.
    block_emb: [N, P] the index to search; None: only the null block is read.
    tokens: of all blocks.
    questions: B of them.
    store, tokenizer: the blocks' text and what they were made with.
    query_len: Q.
    max_masks: M; a longer answer is wrong.
    template: "[MASK] : {question}"; [MASK] is repeated as often as needed.
    batch_size: prompts at a time.
  """
  prompts = [
    (number, masks, _prompt(template, question.question, masks))
    for number, question in enumerate(questions)
    for masks in _answer_lens(question, tokenizer)
    if masks <= max_masks
  ]
  filled: list[list[Answer]] = [[] for _ in questions]
  for rows in chunks(len(prompts), batch_size):
    batch = fill_in.fill_in_batch(
      [prompts[i][2] if i >= 0 else "" for i in rows],
      tokenizer,
      query_len=query_len,
      max_masks=max_masks,
    )
    out = evidence.fill(realm, params, block_emb, tokens, jax.device_put(batch))
    num_masks = batch.mlm_mask.sum(-1).tolist()
    answers = evidence.fill_answers(out, num_masks, store, tokenizer)
    for i, answer in zip(rows.tolist(), answers, strict=True):
      if i >= 0:
        filled[prompts[i][0]].append(answer)
  best = [
    max(
      tried,
      key=lambda a, q=question: (exact_match.is_right(a.text, q), a.score),
      default=_NO_ANSWER,
    )
    for question, tried in zip(questions, filled, strict=True)
  ]
  return score_answers(questions, best)


def _prompt(template: str, question: str, masks: int) -> str:
  text = template.replace(fill_in.MASK, " ".join([fill_in.MASK] * masks))
  return text.replace("{question}", question)


def _answer_lens(question, tokenizer):
  """Wordpieces of the answers, each number once."""
  if question.regex:
    return _REGEX_LENS
  lens = {len(ids) for ids in tokenizer.encode_batch(question.answers)}
  return sorted(lens - {0})
