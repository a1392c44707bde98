"""Open-domain QA as the reference does it: search, fetch the texts, read.

Search and reading are one jitted program each, for all questions of a batch;
the texts are joined on the host in between. Lengths are padded to few sizes,
so that few programs are compiled, and the outputs are cut back to what the
reference gives.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import bert
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import span_candidates
from realm_jax.pretrained.load import Pretrained
from realm_jax.retrieval import mips
from realm_jax.types import Array, Evidence, Inputs, RealmForOpenQAOutput

_STEP = 32  # lengths of questions are multiples of it


def open_qa(
  pretrained: Pretrained,
  question_batch: Mapping[str, Any],
  answer_ids: Any = None,
  train: bool = False,
  *,
  rng: Array | None = None,
  mesh: Mesh | None = None,
) -> RealmForOpenQAOutput:
  """Answers questions: embed, search the index, read the best blocks.

  Args:
    pretrained: a RealmForOpenQA with retriever and block_emb.
    question_batch: what the tokenizer returned: input_ids [B, T], and
      attention_mask, token_type_ids.
    answer_ids: wordpieces of each answer of the one question; for B questions
      a list of such lists. With them there are losses.
    train: finds searcher_beam_size blocks, not reader_beam_size.
    rng: key of dropout; None for no dropout.
    mesh: over which the rows of block_emb lie, if they do.

  Returns:
    For one question fields as in the reference, without an axis B. Losses are
    (). NumPy arrays: for gradients, differentiate `module.apply` with the
    `evidence` of find_evidence.

  Raises:
    InputError: no RealmForOpenQA, without retriever or index, or arguments
      that don't fit them.
  """
  evidence = find_evidence(
    pretrained, question_batch, answer_ids, train, mesh=mesh
  )
  module = pretrained.module
  config = module.reader_config or module.config
  length = evidence.joint.input_ids.shape[-1]
  if length < config.max_span_width:
    raise InputError(
      f"joint sequences of {length} wordpieces are shorter than config"
      f" max_span_width={config.max_span_width}"
    )
  most = min(config.reader_seq_len, config.max_position_embeddings)
  output = _read(
    module,
    pretrained.params,
    _padded(_questions(question_batch), module.config),
    _padded_evidence(evidence, max(length, most)),
    rng,
  )
  output = jax.tree.map(np.asarray, jax.device_get(output))
  output = _cut(output, max(length, most), length, config)
  ids = output.predicted_answer_ids
  if ids.ndim == 1:
    output = output.replace(predicted_answer_ids=ids[ids >= 0])
  return output


def find_evidence(
  pretrained: Pretrained,
  question_batch: Mapping[str, Any],
  answer_ids: Any = None,
  train: bool = False,
  *,
  mesh: Mesh | None = None,
) -> Evidence:
  """The search of `open_qa`: what RealmForOpenQA's forward takes beside the
  questions. Arguments and errors as there."""
  p = pretrained
  if not isinstance(p.module, RealmForOpenQA):
    raise InputError(f"{type(p.module).__name__}: wanted a RealmForOpenQA")
  if p.retriever is None or p.block_emb is None:
    raise InputError(
      "open_qa needs a retriever and block_emb, which this model lacks: load a"
      " directory with block records and an index"
    )
  config = p.module.reader_config or p.module.config
  beam = config.searcher_beam_size if train else config.reader_beam_size
  if beam > len(p.block_emb):
    raise InputError(
      f"config {'searcher' if train else 'reader'}_beam_size={beam}, but the"
      f" index has {len(p.block_emb)} blocks: give as many or fewer"
    )
  question = _questions(question_batch)
  found = _search(
    p.module, p.params, _padded(question, p.module.config), p.block_emb, beam,
    mesh,
  )  # fmt: skip
  block_ids, block_emb = (np.asarray(x) for x in found)  # [B, N], [B, N, P]
  if len(block_ids) == 1:
    block_ids, block_emb = block_ids[0], block_emb[0]
    answer_ids = _of_one(answer_ids)
  *labels, joint = p.retriever(
    block_ids, question.input_ids, answer_ids, max_length=config.reader_seq_len
  )
  k = config.reader_beam_size  # those beyond are not read
  names = ("input_ids", "attention_mask", "token_type_ids")
  read = Inputs(*(joint[name][..., :k, :] for name in names))
  special = joint["special_tokens_mask"][..., :k, :]
  return Evidence(
    block_ids,
    block_emb,
    read,
    (special == 0) & (read.token_type_ids != 0),
    *(None if x is None else np.array(x) for x in labels),
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


def _questions(question_batch: Mapping[str, Any]) -> Inputs:
  """What a tokenizer returned for questions, as Inputs [B, T]."""
  names = ("input_ids", "attention_mask", "token_type_ids")
  if "input_ids" not in question_batch:
    raise InputError(f"question_batch has {[*question_batch]}: no input_ids")
  given = [question_batch.get(name) for name in names]
  try:
    shapes = {np.shape(x) for x in given if x is not None}
  except ValueError as e:
    raise InputError(
      "question_batch: rows of different lengths: tokenize with padding=True"
    ) from e
  if [len(shape) for shape in shapes] != [2]:
    raise InputError(f"question_batch of shapes {shapes}: wanted one, [B, T]")
  return bert.make_inputs(*given)


def _of_one(answer_ids):
  """The answers of one question, given as such or as a list of one."""
  if answer_ids is None or not len(answer_ids) or not len(answer_ids[0]):
    return answer_ids
  return answer_ids[0] if np.ndim(answer_ids[0][0]) else answer_ids


def _padded(question: Inputs, config: RealmConfig) -> Inputs:
  """[B, T] with T up to the next step; what is added is not attended to."""
  t = question.input_ids.shape[1]
  more = max(0, min(-t % _STEP, config.max_position_embeddings - t))
  return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, more))), question)


def _padded_evidence(evidence: Evidence, length: int) -> Evidence:
  """Joint sequences of `length`, and answers up to the next power of two."""

  def wider(x, width, fill=0):
    pad = [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])]
    return np.pad(x, pad, constant_values=fill)

  evidence = evidence.replace(
    joint=jax.tree.map(lambda x: wider(x, length), evidence.joint),
    block_mask=wider(evidence.block_mask, length),
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
  """The output as of sequences of `length`: no spans beyond."""
  _, ends = span_candidates(padded, config.max_span_width)
  kept = np.flatnonzero(ends < length)
  read = output.reader_output
  read = read.replace(candidate=np.searchsorted(kept, read.candidate))
  if read.reader_correct is not None:
    read = read.replace(reader_correct=read.reader_correct[..., kept])
  states, attentions = (
    jax.tree.map(lambda x, cut=cut: x[..., :length, cut], layers)
    for layers, cut in (
      (read.hidden_states, slice(None)),
      (read.attentions, slice(length)),
    )
  )
  return output.replace(
    reader_output=read.replace(hidden_states=states, attentions=attentions)
  )
