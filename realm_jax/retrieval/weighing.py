"""What each block by itself makes of a question, for a person to look at.

An answer (evidence.py) is what all blocks say together; here is the same pass
with what one would want to see of it: the best span of every block, or p(y | z,
x) beside every block and p(y | x) of the best words, as the paper's example of
Fermat has them.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from realm_jax.retrieval import evidence
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.evidence import Filling, Reading
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.types import Array, Inputs, PretrainBatch


@struct.dataclass
class EachRead:
  """A reading, and the best span of each block.

  Attributes:
    reading: of all blocks together.
    start, end: [B, K] in the block's body, wordpieces, end inclusive.
    score: [B, K] log-probability of that span among all spans of all K blocks.
  """

  reading: Reading
  start: Array
  end: Array
  score: Array


@struct.dataclass
class EachFilled:
  """What is filled in, by all blocks together and beside each.

  Attributes:
    block_ids: [B, K] candidates, slot 0 the null block (-1).
    log_probs: [B, K] log p(z | x).
    word_ids: [B, M, T] the wordpieces of highest p(y_m | x), best first.
    word_log_probs: [B, M, T] log p(y_m | x) of them.
    null_log_probs: [B, M, T] log p(y_m | null, x) of them: without evidence.
    block_word_ids: [B, K, M] the wordpiece of highest p(y_m | z, x).
    block_score: [B, K] sum over the masks of log p(y_m | z, x) of that word.
    answer_score: [B, K] the same of the first of word_ids.
  """

  block_ids: Array
  log_probs: Array
  word_ids: Array
  word_log_probs: Array
  null_log_probs: Array
  block_word_ids: Array
  block_score: Array
  answer_score: Array

  def filling(self, mlm_mask: Array) -> Filling:
    """What all blocks together say, of masks [B, M]."""
    score = (self.word_log_probs[..., 0] * mlm_mask).sum(-1)
    return Filling(self.block_ids, self.log_probs, self.word_ids[..., 0], score)


@functools.partial(jax.jit, static_argnames=("open_qa", "beam"))
def read_each(
  open_qa: OpenQa,
  params,
  block_emb: Array,
  tokens: Tokens,
  question: Inputs,
  beam: int,
) -> EachRead:
  """Finds `beam` blocks for each question [B, Q] and reads the best."""
  output = open_qa(params, block_emb, tokens, question, beam)
  logits = output.span_logits  # [B, K, S]
  flat = jax.nn.log_softmax(logits.reshape(logits.shape[0], -1), axis=-1)
  best = logits.argmax(-1)  # [B, K]
  starts, ends = open_qa.spans()
  return EachRead(
    reading=evidence.reading(output),
    start=jnp.asarray(starts)[best],
    end=jnp.asarray(ends)[best],
    score=flat.reshape(logits.shape).max(-1),
  )


@functools.partial(jax.jit, static_argnames=("realm", "num_words"))
def fill_each(
  realm: Realm,
  params,
  block_emb: Array,
  tokens: Tokens,
  batch: PretrainBatch,
  num_words: int = 5,
) -> EachFilled:
  """As evidence.fill, with what each block says and the `num_words` best."""
  specials = realm.retrieval.specials
  output = realm(params, block_emb, tokens, batch)
  marginal = evidence.word_log_probs(output, specials)  # [B, M, V]
  word_log_probs, word_ids = jax.lax.top_k(marginal, num_words)
  alone = jax.nn.log_softmax(output.mlm_logits)  # [B, K, M, V]
  alone = alone.at[..., jnp.array(specials)].set(-jnp.inf)
  answer = word_ids[:, None, :, :1]  # [B, 1, M, 1]
  answer_log_probs = jnp.take_along_axis(alone, answer, -1)[..., 0]
  mask = batch.mlm_mask[:, None]  # [B, 1, M]
  return EachFilled(
    block_ids=output.candidate_ids,
    log_probs=output.candidate_log_probs,
    word_ids=word_ids,
    word_log_probs=word_log_probs,
    null_log_probs=jnp.take_along_axis(alone[:, 0], word_ids, -1),
    block_word_ids=alone.argmax(-1),
    block_score=(alone.max(-1) * mask).sum(-1),
    answer_score=(answer_log_probs * mask).sum(-1),
  )
