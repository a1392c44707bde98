"""Writes reference checkpoints of a named case with the PyTorch reference.

usage: python tests/oracle/write_checkpoints.py OUT --config=NAME --seed=N
Runs in the oracle's environment (README.md). OUT gets one directory a model,
each with config.json, model.safetensors and io.npz.
"""

import argparse
import pathlib
import re

import numpy as np
import torch
import transformers
from cases import CASES, SPECIALS
from stages import SEQUENCES, STAGES, Retriever, compute
from transformers import (
  RealmConfig,
  RealmEmbedder,
  RealmTokenizer,
  RealmTokenizerFast,
)
from transformers.models.bert.tokenization_bert import BasicTokenizer

MARGIN = 2e-4  # between the best and the second: no choice hangs on rounding


def main():
  """Writes the directories and says how large they are."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("out", type=pathlib.Path)
  parser.add_argument("--config", required=True, choices=CASES)
  parser.add_argument("--seed", type=int, required=True)
  args = parser.parse_args()
  transformers.logging.set_verbosity_error()
  case = CASES[args.config]
  vocab = make_vocab(case)
  config = make_config(case, len(vocab))
  for i, name in enumerate(STAGES):
    rng = np.random.default_rng([args.seed, i])
    path = args.out / name
    path.mkdir(parents=True, exist_ok=True)
    size = write_stage(name, path, case, config, vocab, rng)
    print(f"{path}: {size} bytes")


def make_config(case, vocab_len):
  """The case's RealmConfig; three ids of the table are no wordpiece."""
  sizes = {
    "vocab_size": vocab_len + 3,
    "num_block_records": case.blocks + len(case.extra_blocks),
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }
  return RealmConfig(**(sizes | case.config))


def write_stage(name, path, case, config, vocab, rng):
  """Writes one model with its inputs and outputs; returns the bytes."""
  make_model, _ = STAGES[name]
  own = {"query_embedder": RealmEmbedder(config)} if "own" in name else {}
  model = make_model(config, **own)
  set_weights(model, case.spread, rng)
  if name == "openqa":
    write_texts(path, case, vocab, rng)
    model.retriever = Retriever.from_pretrained(path)
    model.block_emb = torch.tensor(
      rng.standard_normal(model.block_emb.shape, np.float32)
    )
  model.save_pretrained(path, safe_serialization=True)
  inputs = INPUTS[name](case, config, rng)
  seen = watch(model)
  outputs = compute(name, model, inputs)
  check_margins(seen, config.searcher_beam_size)
  np.savez_compressed(path / "io.npz", **inputs, **outputs)
  return sum(f.stat().st_size for f in path.iterdir())


def set_weights(model, spread, rng):
  """Every tensor random, biases and norms too; norms are scaled about 1."""
  with torch.no_grad():
    for name, p in model.named_parameters():
      values = spread * rng.standard_normal(p.shape, np.float32)
      is_scale = re.search(r"(LayerNorm|layer_normalization)\.weight", name)
      p.copy_(torch.tensor(values + bool(is_scale)))


def watch(model):
  """Collects, as the model runs, what searches and spans are chosen from."""
  seen = {"span logits": [], "search scores": []}
  head = getattr(getattr(model, "reader", model), "qa_outputs", None)
  if head is not None:  # the relevance scores are added to its output in place
    head.register_forward_hook(
      lambda *args: seen["span logits"].append(args[2][0])
    )
  if hasattr(model, "block_emb"):
    model.embedder.register_forward_hook(
      lambda *args: seen["search scores"].append(
        args[2].projected_score @ model.block_emb.T
      )
    )
  return seen


def check_margins(seen, beam):
  """Refuses numbers of which rounding could change a choice."""
  for logits in seen["span logits"]:
    _check_gaps("block", logits.max(1).values, 1)
    _check_gaps("span", logits.max(0).values, 1)
  for scores in seen["search scores"]:
    _check_gaps("search", scores[0], beam)


def _check_gaps(what, values, ranks):
  """The `ranks` best of values [n] stand clear of the next."""
  best = np.sort(values.detach().numpy())[::-1][: ranks + 1]
  gap = -np.diff(best).max(initial=-1e9)
  if gap < MARGIN:
    raise SystemExit(f"{what}: {gap:.1e} apart, take another seed")


def make_vocab(case):
  """The lines of vocab.txt: all words of the texts, long ones in two pieces."""
  basic = BasicTokenizer(do_lower_case=not case.cased, never_split=SPECIALS)
  asked = [(case.question, case.answers), *case.more]
  texts = [*case.sentences, *case.extra_blocks, *(q for q, _ in asked)]
  words = {w for t in texts for w in basic.tokenize(t)}
  words -= {*SPECIALS, *case.unknown}
  whole = {w if len(w) < 7 else w[:4] for w in words}
  rest = {f"##{w[4:]}" for w in words if len(w) >= 7}
  unused = [f"[unused{i}]" for i in range(case.pad_at)]
  return [*unused, *SPECIALS, *sorted(whole), *sorted(rest)]


def write_texts(path, case, vocab, rng):
  """The tokenizer's files and block_records.npy."""
  (path / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
  make = RealmTokenizerFast if case.tokenizer_json else RealmTokenizer
  tokenizer = make(str(path / "vocab.txt"), do_lower_case=not case.cased)
  blocks = [
    " ".join(rng.choice(case.sentences, rng.integers(1, 4)))
    for _ in range(case.blocks)
  ]
  blocks += case.extra_blocks
  records = np.array([b.encode() for b in blocks], object)
  Retriever(records, tokenizer).save_pretrained(path)


def embedder_inputs(case, config, rng):
  """Sequences with holes in their masks, positions that jump."""
  length = case.lengths[0]
  io = _sequences((case.batch, length), config, rng)
  return io | _further(io, config, rng)


def scorer_inputs(case, config, rng):
  """Queries and candidates; positions for the shorter of the two."""
  query, block, _ = case.lengths
  shape = (case.batch, config.num_candidates, block)
  candidates = _sequences(shape, config, rng)
  io = _sequences((case.batch, query), config, rng)
  io |= {f"candidate_{k}": v for k, v in candidates.items()}
  further = _further({"input_ids": io["input_ids"][:1, :block]}, config, rng)
  rows = (shape[0] * shape[1], block, config.hidden_size)
  return {
    **io,
    "position_ids": further["position_ids"],
    "head_mask": further["head_mask"],
    "candidate_inputs_embeds": _normal(rng, rows),
    "relevance_weight": _normal(rng, shape[:2]),
  }


def encoder_inputs(case, config, rng):
  """Joint sequences; labels, masks of 0 and 1, a mask that sums to under 1."""
  k, length = config.num_candidates, case.lengths[2]
  io = _sequences((case.batch, k, length), config, rng)
  flat = {"input_ids": io["input_ids"].reshape(-1, length)}
  mask = rng.random((case.batch, length)) < 0.4
  mask[0, 1] = True
  share = np.zeros(mask.shape, np.float32)
  share[0, 1], share[-1, 0] = 0.25, 0.5
  return {
    **io,
    "relevance_score": _normal(rng, (case.batch, k)),
    "labels": rng.integers(0, config.vocab_size, mask.shape),
    "mlm_mask": mask.astype(np.int64),
    "mlm_share": share,
    **_further(flat, config, rng),
  }


def reader_inputs(case, config, rng):
  """Blocks of one question.

  Answers of one wordpiece and of the widest span, too wide, past the end, in
  the question, in blocks that are not read; the first block read has one.
  """
  read, found = config.reader_beam_size, config.searcher_beam_size
  length, width = config.reader_seq_len, config.max_span_width
  io = _sequences((read, length), config, rng)
  begin = rng.integers(2, length // 3, found)
  end = rng.integers(2 * length // 3, length - 1, found)
  at = np.arange(length)
  start = np.full((found, 4), -1)
  start[0] = begin[0] + np.array([2, 0, 1, -2])
  stop = np.where(start < 0, -1, start)
  stop[0] += np.array([0, width - 1, width, 0])
  start[-1, :2], stop[-1, :2] = (
    (begin[-1], length + 40),
    (begin[-1], length + 41),
  )
  del case
  return {
    **io,
    "relevance_score": _normal(rng, found),
    "block_mask": (at >= begin[:, None]) & (at < end[:, None]),
    "start_positions": start,
    "end_positions": stop,
    "has_answers": start[:, 0] >= 0,
    **_further(io, config, rng),
  }


def openqa_inputs(case, config, rng):
  """Questions and answers as texts."""
  del config, rng
  io = {"question": np.array(case.question), "answers": np.array(case.answers)}
  for i, (question, answers) in enumerate(case.more):
    io[f"more/question/{i}"] = np.array(question)
    io[f"more/answers/{i}"] = np.array(answers, str)
  return io


INPUTS = {
  "embedder": embedder_inputs,
  "scorer": scorer_inputs,
  "scorer_own_query": scorer_inputs,
  "encoder": encoder_inputs,
  "reader": reader_inputs,
  "openqa": openqa_inputs,
}


def _sequences(shape, config, rng):
  highs = (config.vocab_size, 2, config.type_vocab_size)
  io = {
    k: rng.integers(0, h, shape) for k, h in zip(SEQUENCES, highs, strict=True)
  }
  io["attention_mask"] = (rng.random(shape) < 0.85).astype(np.int64)
  io["attention_mask"][..., 1] = 1  # something to attend to
  return io


def _further(io, config, rng):
  """Positions in any order, a head mask, embeddings for [R, T]."""
  shape = io["input_ids"].shape
  positions = np.arange(config.max_position_embeddings)
  heads = (config.num_hidden_layers, config.num_attention_heads)
  mask = rng.integers(0, 2, heads)
  mask[:, -1] = 1
  return {
    "position_ids": np.stack(
      [rng.permutation(positions)[: shape[1]] for _ in range(shape[0])]
    ),
    "head_mask": mask.astype(np.float32),
    "inputs_embeds": _normal(rng, (*shape, config.hidden_size)),
  }


def _normal(rng, shape):
  return rng.standard_normal(shape, np.float32)


if __name__ == "__main__":
  main()
