"""The model's configuration and the one kind of error a user's mistake raises.

`RealmConfig` has the reference's fields and defaults (transformers 4.34,
configuration_realm.py), so its config.json files load unchanged.
"""

import dataclasses
import json
from typing import Any

ACTIVATIONS = ("gelu", "gelu_new", "relu", "selu")


class InputError(ValueError):
  """A mistake in what the user gave: one line with value, place and mend.

  Every command prints it without a traceback and exits with code 2.
  """


@dataclasses.dataclass(frozen=True)
class RealmConfig:
  """Sizes of one model. Frozen and hashable, so a Linen module can hold it.

  The first group is the reference's; the second is ours, and its defaults
  give the reference's model.

  Attributes:
    pooling: "cls" (pooler over [CLS], as the reference) or "mean" (mean over
      the tokens): what the embedder projects.
    query_mask_token: whether the retriever attends to [MASK] in a query.
    init: "normal" as BERT; "words": the mean of a text begins as its bag of
      words, from which a small embedder soon learns; "copy": an
      initialisation from which a small encoder soon learns to copy from its
      evidence.
    extra: unknown keys of a config.json, kept and written back.
  """

  vocab_size: int = 30522
  hidden_size: int = 768
  retriever_proj_size: int = 128
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  num_candidates: int = 8
  intermediate_size: int = 3072
  hidden_act: str = "gelu_new"
  hidden_dropout_prob: float = 0.1
  attention_probs_dropout_prob: float = 0.1
  max_position_embeddings: int = 512
  type_vocab_size: int = 2
  initializer_range: float = 0.02
  layer_norm_eps: float = 1e-12
  span_hidden_size: int = 256
  max_span_width: int = 10
  reader_layer_norm_eps: float = 1e-3
  reader_beam_size: int = 5
  reader_seq_len: int = 320
  num_block_records: int = 13353718
  searcher_beam_size: int = 5000
  pad_token_id: int = 1
  bos_token_id: int = 0
  eos_token_id: int = 2

  pooling: str = "cls"
  query_mask_token: bool = True
  init: str = "normal"
  extra: tuple[tuple[str, str], ...] = ()

  def __post_init__(self):
    for name in (
      "vocab_size hidden_size retriever_proj_size num_hidden_layers"
      " num_attention_heads num_candidates intermediate_size"
      " max_position_embeddings type_vocab_size span_hidden_size"
      " max_span_width reader_beam_size reader_seq_len searcher_beam_size"
    ).split():
      value = getattr(self, name)
      if not isinstance(value, int) or value < 1:
        raise InputError(f"config {name}={value!r}: wanted a whole number >= 1")
    if self.hidden_size % self.num_attention_heads:
      raise InputError(
        f"config hidden_size={self.hidden_size} is not a multiple of"
        f" num_attention_heads={self.num_attention_heads}: change one of them"
      )
    _one_of("hidden_act", self.hidden_act, ACTIVATIONS)
    _one_of("pooling", self.pooling, ("cls", "mean"))
    _one_of("init", self.init, ("normal", "words", "copy"))
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
      if not 0 <= getattr(self, name) < 1:
        raise InputError(
          f"config {name}={getattr(self, name)}: wanted a share in [0, 1)"
        )

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> "RealmConfig":
    """Makes a config from config.json's keys; unknown keys go to `extra`."""
    known = {f.name for f in dataclasses.fields(cls)} - {"extra"}
    extra = tuple(
      sorted((k, json.dumps(v)) for k, v in values.items() if k not in known)
    )
    return cls(**{k: v for k, v in values.items() if k in known}, extra=extra)

  def to_dict(self) -> dict[str, Any]:
    """The keys of config.json, `extra` among them."""
    values = dataclasses.asdict(self)
    values.update({k: json.loads(v) for k, v in values.pop("extra")})
    return values


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise InputError(
      f"config {name}={value!r}: wanted one of {', '.join(choices)}"
    )
