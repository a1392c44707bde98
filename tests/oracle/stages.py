"""What the reference computes of each model, as the arrays of an io.npz.

A stage takes a reference model and the inputs of its io.npz, and returns the
outputs under their names there: write_checkpoints.py stores them, read_back.py
compares them. What every io.npz has comes first; the rest is computed where the
inputs that it needs (position_ids among them) are stored.
"""

import numpy as np
import torch
import transformers
from transformers import (
  RealmEmbedder,
  RealmForOpenQA,
  RealmKnowledgeAugEncoder,
  RealmReader,
  RealmRetriever,
  RealmScorer,
)
from transformers.activations import ACT2FN

# Documented, and missing in 4.34.0.
ACT2FN.setdefault("selu", torch.nn.SELU)

SEQUENCES = ("input_ids", "attention_mask", "token_type_ids")


def embedder(model, io):
  """RealmEmbedder."""
  given = _tensors(io, *SEQUENCES)

  def score(**more):
    return model(**{**given, **more}).projected_score

  out = model(**given, output_hidden_states=True, output_attentions=True)
  arrays = {
    **_layers(out),
    "projected_score": out.projected_score,
    "projected_score_head_mask": score(**_tensors(io, "head_mask")),
  }
  if "position_ids" in io:
    embeds = _tensors(io, "inputs_embeds")
    arrays |= {
      "projected_score_position_ids": score(**_tensors(io, "position_ids")),
      "projected_score_one_head_mask": score(
        head_mask=torch.tensor(io["head_mask"][0])
      ),
      "projected_score_ids_only": model(given["input_ids"]).projected_score,
      "projected_score_nothing_attended": score(
        attention_mask=0 * given["attention_mask"]
      ),
      "projected_score_inputs_embeds": score(input_ids=None, **embeds),
      "attentions_head_mask": torch.stack(
        model(
          **given, **_tensors(io, "head_mask"), output_attentions=True
        ).attentions
      ),
      "tuple_order": _tuple_order(
        model, **given, output_hidden_states=True, output_attentions=True
      ),
    }
  return arrays


def scorer(model, io):
  """RealmScorer, with or without an embedder of its own for the queries."""
  query = _tensors(io, *SEQUENCES)
  blocks = {f"candidate_{k}": io[f"candidate_{k}"] for k in SEQUENCES}
  given = query | _tensors(blocks, *blocks)
  out = model(**given)
  arrays = dict(out.items())
  if "position_ids" in io:
    length = io["position_ids"].shape[1]
    cut = torch.tensor(io["candidate_input_ids"][..., :length])
    embeds = _tensors(io, "candidate_inputs_embeds")
    loss = (out.relevance_score * torch.tensor(io["relevance_weight"])).sum()
    arrays |= {
      # The reference hands one row of positions to both embedders.
      "relevance_score_position_ids": model(
        query["input_ids"][:, :length],
        candidate_input_ids=cut,
        **_tensors(io, "position_ids"),
      ).relevance_score,
      "relevance_score_head_mask": model(
        **given, **_tensors(io, "head_mask")
      ).relevance_score,
      "relevance_score_candidate_embeds": model(
        **query, **embeds
      ).relevance_score,
      "loss": loss,
      **_gradients(model, loss),
      "tuple_order": _tuple_order(model, **given),
    }
  return arrays


def encoder(model, io):
  """RealmKnowledgeAugEncoder."""
  given = _tensors(io, *SEQUENCES)
  score = torch.tensor(io["relevance_score"], requires_grad=True)
  labels, mask = torch.tensor(io["labels"]), torch.tensor(io["mlm_mask"])

  def loss(labels=labels, **more):
    given_too = {"relevance_score": score, "labels": labels, **more}
    return model(**{**given, **given_too}).loss

  out = model(**given, relevance_score=score, labels=labels, mlm_mask=mask)
  ignored = torch.where(mask == 0, -100, labels)
  arrays = {
    "loss": out.loss,
    "logits": out.logits,
    "loss_labels_ignored": loss(labels=ignored),
    **_gradients(model, out.loss, relevance_score=score),
  }
  if "position_ids" in io:
    share = torch.tensor(io["mlm_share"])
    half = torch.where(torch.arange(labels.shape[1]) % 2 == 0, -100, labels)
    embeds = _tensors(io, "inputs_embeds")
    everywhere = loss()
    arrays |= {
      "loss_position_ids": loss(**_tensors(io, "position_ids")),
      "loss_head_mask": loss(**_tensors(io, "head_mask")),
      "loss_inputs_embeds": loss(input_ids=None, **embeds),
      "loss_no_mlm_mask": everywhere,
      "grad_no_mlm_mask/relevance_score": _gradients(
        model, everywhere, relevance_score=score
      )["grad/relevance_score"],
      "loss_mlm_share": loss(mlm_mask=share),
      "loss_half_ignored": loss(labels=half, mlm_mask=mask),
      "tuple_order": _tuple_order(
        model,
        **given,
        relevance_score=score,
        labels=labels,
        output_hidden_states=True,
        output_attentions=True,
      ),
    }
  return arrays


def reader(model, io):
  """RealmReader."""
  labels = ("start_positions", "end_positions", "has_answers")
  given = _tensors(io, *SEQUENCES, "block_mask")
  score = torch.tensor(io["relevance_score"], requires_grad=True)
  gold = _tensors(io, *labels)

  def read(**more):
    return model(**{**given, "relevance_score": score, **more})

  none = {k: torch.full_like(gold[k], -1) for k in labels[:2]}
  none["has_answers"] = torch.zeros_like(gold["has_answers"])
  out = read(**gold)
  arrays = {
    **dict(out.items()),
    "loss_no_answer": read(**none).loss,
    **_gradients(model, out.loss, relevance_score=score),
  }
  if "position_ids" in io:
    moved = read(**gold, **_tensors(io, "position_ids"))
    masked = read(**gold, **_tensors(io, "head_mask"))
    embeds = _tensors(io, "inputs_embeds")
    every = {"output_hidden_states": True, "output_attentions": True}
    arrays |= {
      "loss_position_ids": moved.loss,
      "loss_head_mask": masked.loss,
      "loss_inputs_embeds": read(**gold, input_ids=None, **embeds).loss,
      "loss_no_label_columns": read(
        start_positions=gold["start_positions"][:, :0],
        end_positions=gold["end_positions"][:, :0],
        has_answers=gold["has_answers"],
      ).loss,
      **{f"unlabelled_{k}": v for k, v in read().items()},
      "tuple_order": _tuple_order(
        model, **given, relevance_score=score, **gold, **every
      ),
    }
  return arrays


class Retriever(RealmRetriever):
  """The reference's, which keeps what it was asked for.

  A beam of one block reaches it as a number, on which the reference fails;
  here it is a vector again.
  """

  def __call__(self, retrieved_block_ids, *args, **kwargs):
    self.found = np.reshape(np.asarray(retrieved_block_ids), -1)
    return super().__call__(self.found, *args, **kwargs)


def openqa(model, io):
  """RealmForOpenQA with its retriever: the first question and the others."""
  arrays = _ask(model, str(io["question"]), [str(a) for a in io["answers"]])
  arrays |= _gradients(model, arrays["loss"])
  for i in range(sum(k.startswith("more/question/") for k in io)):
    question = str(io[f"more/question/{i}"])
    answers = [str(a) for a in io[f"more/answers/{i}"]]
    more = _ask(model, question, answers)
    arrays |= {f"more/{k}/{i}": v for k, v in more.items()}
  return arrays


def _ask(model, question, answers):
  """One question: its tokens, all blocks joined with it, training, answer."""
  tokenizer, retriever = model.retriever.tokenizer, model.retriever
  tokens = tokenizer([question], return_tensors="pt")
  ids = [tokenizer(a, add_special_tokens=False)["input_ids"] for a in answers]
  every = np.arange(len(retriever.block_records))
  has, starts, ends, joint = retriever(
    every, tokens.input_ids, ids, max_length=model.config.reader_seq_len
  )
  shape = (len(every), -1) if starts[0] else (len(every), 0)
  model.train()
  trained = model(**tokens, answer_ids=ids)
  found = retriever.found
  model.eval()
  labelled = model(**tokens, answer_ids=ids)
  asked = model(**tokens)
  losses = ("loss", "retriever_loss", "reader_loss")
  return {
    **dict(tokens.items()),
    **{k: trained.reader_output[k] for k in losses},
    **{f"eval_{k}": labelled.reader_output[k] for k in losses},
    "train_predicted_answer_ids": trained.predicted_answer_ids,
    "eval_predicted_answer_ids": asked.predicted_answer_ids,
    "train_found": found,
    "eval_found": retriever.found,
    **{
      k: asked.reader_output[k] for k in ("block_idx", "start_pos", "end_pos")
    },
    "all_has_answers": np.array(has),
    "all_start_pos": np.array(starts, np.int64).reshape(shape),
    "all_end_pos": np.array(ends, np.int64).reshape(shape),
    **{f"all_{k}": v for k, v in joint.items()},
  }


STAGES = {
  "embedder": (RealmEmbedder, embedder),
  "scorer": (RealmScorer, scorer),
  "scorer_own_query": (RealmScorer, scorer),
  "encoder": (RealmKnowledgeAugEncoder, encoder),
  "reader": (RealmReader, reader),
  "openqa": (RealmForOpenQA, openqa),
}


def compute(name, model, io):
  """The outputs of stage `name` as NumPy arrays."""
  transformers.logging.set_verbosity_error()
  torch.set_num_threads(1)
  arrays = STAGES[name][1](model.eval(), io)
  return {k: _numpy(v) for k, v in arrays.items()}


def _numpy(value):
  return value.detach().numpy() if torch.is_tensor(value) else np.asarray(value)


def _tensors(io, *names):
  return {k: torch.tensor(io[k]) for k in names}


def _layers(out):
  return {
    "hidden_states": torch.stack(out.hidden_states),
    "attentions": torch.stack(out.attentions),
  }


def _gradients(model, loss, **inputs):
  """grad/NAME of every parameter that the loss depends on, and of inputs."""
  named = dict(model.named_parameters()) | inputs
  found = torch.autograd.grad(
    loss, list(named.values()), retain_graph=True, allow_unused=True
  )
  return {
    f"grad/{k}": g for k, g in zip(named, found, strict=True) if g is not None
  }


def _tuple_order(model, **given):
  """The fields of return_dict=False, in order; each is the field's value."""
  fields = model(**given)
  plain = model(**given, return_dict=False)
  for field, value in zip(fields.values(), plain, strict=True):
    pairs = zip(field, value, strict=True) if isinstance(field, tuple) else None
    for a, b in pairs or [(field, value)]:
      torch.testing.assert_close(a, b)
  return np.array(list(fields))
