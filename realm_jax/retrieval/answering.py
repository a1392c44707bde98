"""Open-domain QA as the reference does it: search, fetch the texts, read.

Search and reading are one jitted program each, for all questions of a batch;
the texts are joined on the host in between. Lengths are padded to few sizes, so
that few programs are compiled, and the outputs cut back to what the reference
gives.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from realm_jax.config import InputError
from realm_jax.models import bert
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import span_candidates
from realm_jax.retrieval import mips
from realm_jax.retrieval.retriever import RealmRetriever
from realm_jax.types import Array, Evidence, Inputs, RealmForOpenQAOutput

_STEP = 32  # lengths of questions are multiples of it


def question_inputs(question_batch: Mapping[str, Any]) -> Inputs:
  """What a tokenizer returned for questions, as Inputs [B, T].

  Raises:
    InputError: no input_ids, or rows of different lengths.
  """
  try:
    ids = np.asarray(question_batch["input_ids"])
  except (KeyError, ValueError) as e:
    raise InputError(f"question_batch: {e}: wanted input_ids [B, T]") from e
  if ids.ndim != 2:
    raise InputError(f"question_batch: input_ids {ids.shape}: wanted [B, T]")
  given = (question_batch.get(n) for n in ("attention_mask", "token_type_ids"))
  return bert.make_inputs(ids, *given)


def find_evidence(
  module: RealmForOpenQA,
  params: Any,
  block_emb: Array,
  retriever: RealmRetriever,
  question: Inputs,
  answer_ids: Any = None,
  *,
  beam: int,
  mesh: Mesh | None = None,
) -> Evidence:
  """Searches the index and joins questions with the blocks found.

  Args:
    module: embeds the questions.
    params: of the module.
    block_emb: [N, P] the index; with a mesh, rows over all of its axes.
    retriever: has the blocks' texts.
    question: [B, T].
    answer_ids: for one question its answers, for B a list of answers each.
    beam: how many blocks to find.
    mesh: where the index lies.

  Returns:
    Evidence for the module's forward, without an axis B where B = 1.

  Raises:
    InputError: fewer blocks than the beam, or parts that don't fit together.
  """
  if len(block_emb) < beam:
    raise InputError(
      f"a search for {beam} blocks in an index of {len(block_emb)}: lower"
      " reader_beam_size, or searcher_beam_size in training"
    )
  most = module.config.max_position_embeddings
  padded = _padded(question, most)
  found = _search(module, params, padded, block_emb, beam, mesh)
  block_ids, found_emb = (np.asarray(x) for x in found)  # [B, N], [B, N, P]
  one = len(block_ids) == 1
  if one:
    block_ids, found_emb = block_ids[0], found_emb[0]
    answer_ids = _of_one(answer_ids)
  config = (module.reader_config or module.config)
  *labels, joint = retriever(
    block_ids, question.input_ids, answer_ids, max_length=config.reader_seq_len
  )
  names = ("input_ids", "attention_mask", "token_type_ids")
  k = config.reader_beam_size  # the others are not read
  read = Inputs(*(joint[n][..., :k, :] for n in names))
  special = joint["special_tokens_mask"][..., :k, :]
  return Evidence(
    block_ids,
    found_emb,
    read,
    (special == 0) & (read.token_type_ids != 0),
    *(None if x is None else np.array(x) for x in labels),
  )


def answer(
  module: RealmForOpenQA,
  params: Any,
  question: Inputs,
  evidence: Evidence,
  rng: Array | None = None,
) -> RealmForOpenQAOutput:
  """The module's forward, jitted; one question's answer without padding.

  Args:
    module: embedder and reader.
    params: of the module.
    question: [B, T].
    evidence: what find_evidence found for them.
    rng: key of dropout; None for no dropout.
  """
  config = module.reader_config or module.config
  length = evidence.joint.input_ids.shape[-1]
  if length < config.max_span_width:
    raise InputError(
      f"joint sequences of {length} wordpieces are shorter than"
      f" max_span_width={config.max_span_width}"
    )
  most = min(config.reader_seq_len, config.max_position_embeddings)
  padded_length = max(length, most)
  output = _read(
    module,
    params,
    _padded(question, module.config.max_position_embeddings),
    _padded_evidence(evidence, padded_length),
    rng,
  )
  output = _cut(output, padded_length, length, config)
  ids = output.predicted_answer_ids
  return output if ids.ndim > 1 else output.replace(
    predicted_answer_ids=ids[ids >= 0]
  )


@functools.partial(jax.jit, static_argnames=("module", "beam", "mesh"))
def _search(module, params, question, block_emb, beam, mesh):
  """Ids [B, N] and embeddings [B, N, P] of the best blocks."""
  query_emb = module.apply({"params": params}, question, method=module.embed)
  _, ids = mips.top_k(block_emb, query_emb, beam, mesh=mesh)
  return ids, block_emb[ids]


@functools.partial(jax.jit, static_argnames="module")
def _read(module, params, question, evidence, rng):
  return module.apply(
    {"params": params},
    question.input_ids,
    question.attention_mask,
    question.token_type_ids,
    evidence,
    return_dict=True,
    deterministic=rng is None,
    rngs=None if rng is None else {"dropout": rng},
  )


def _of_one(answer_ids):
  """The answers of one question, given as such or as a list of one."""
  nested = answer_ids and len(answer_ids[0]) and np.ndim(answer_ids[0][0])
  return answer_ids[0] if nested else answer_ids


def _padded(question: Inputs, most: int) -> Inputs:
  """[B, T] with T up to the next step; what is added is not attended to."""
  t = question.input_ids.shape[1]
  more = max(0, min(-t % _STEP, most - t))
  return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, more))), question)


def _padded_evidence(evidence: Evidence, length: int) -> Evidence:
  """Joint sequences of `length`, and answers up to the next power of two."""

  def wider(x, width, fill):
    pad = [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])]
    return np.pad(x, pad, constant_values=fill)

  evidence = evidence.replace(
    joint=jax.tree.map(lambda x: wider(x, length, 0), evidence.joint),
    block_mask=wider(evidence.block_mask, length, 0),
  )
  if evidence.start_positions is None:
    return evidence
  most = max(evidence.start_positions.shape[-1], 1)
  width = 1 << (most - 1).bit_length()
  return evidence.replace(
    start_positions=wider(evidence.start_positions, width, -1),
    end_positions=wider(evidence.end_positions, width, -1),
  )


def _cut(output: RealmForOpenQAOutput, padded: int, length: int, config):
  """The output of sequences of `length`: spans beyond are not counted."""
  output = jax.tree.map(np.asarray, jax.device_get(output))
  _, ends = span_candidates(padded, config.max_span_width)
  kept = np.flatnonzero(ends < length)
  read = output.reader_output
  read = read.replace(candidate=np.searchsorted(kept, read.candidate))
  if read.reader_correct is not None:
    read = read.replace(reader_correct=read.reader_correct[..., kept])
  cut = {
    "hidden_states": lambda x: x[..., :length, :],
    "attentions": lambda x: x[..., :length, :length],
  }
  read = read.replace(
    **{n: jax.tree.map(f, getattr(read, n)) for n, f in cut.items()}
  )
  return output.replace(reader_output=read)
