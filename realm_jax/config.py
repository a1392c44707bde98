"""The model's configuration and the one kind of error a user's mistake raises.

`RealmConfig` has the reference's fields and defaults (transformers 4.34,
configuration_realm.py), so its config.json files load unchanged.
"""

import dataclasses
import importlib
import json
import numbers
import os
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar

ACTIVATIONS = ("gelu", "gelu_new", "relu", "selu")
FILE = "config.json"

_WHOLE = {  # field -> its smallest value
  **dict.fromkeys(
    (
      "vocab_size hidden_size retriever_proj_size num_hidden_layers"
      " num_attention_heads num_candidates intermediate_size"
      " max_position_embeddings type_vocab_size span_hidden_size"
      " max_span_width reader_beam_size reader_seq_len searcher_beam_size"
    ).split(),
    1,
  ),
  "num_block_records": 0,
}
# What every configuration of the reference answers to, given or not
# (transformers 4.34, configuration_utils.py), as far as a model reads it.
_DEFAULTS = {
  "architectures": None,
  "output_attentions": False,
  "output_hidden_states": False,
  "return_dict": True,
  "torchscript": False,
}
# Variants of the reference's BERT that this one does not have.
_ONLY = {
  "position_embedding_type": "absolute",
  "is_decoder": False,
  "add_cross_attention": False,
  "pruned_heads": {},
}
_CHOICES = {
  "pooling": ("cls", "mean"),
  "init": ("normal", "words", "copy"),
  "compute_dtype": ("float32", "bfloat16"),
  "remat": ("none", "full", "dots"),
}
_ATTENTION = ("xla", "cudnn")  # or a function's name
_OURS = (
  "pooling",
  "query_mask_token",
  "init",
  "compute_dtype",
  "remat",
  "attention",
)


class InputError(ValueError):
  """A mistake in what the user gave: one line with value, place and mend.

  Every command prints it without a traceback and exits with code 2.
  """


def imported(name: str, field: str) -> Any:
  """The function "package.module:function" that a config's field names.

  Raises:
    InputError: it can't be imported.
  """
  module, _, function = name.partition(":")
  try:
    return getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError, ValueError) as e:
    raise InputError(
      f"config {field}={name}: cannot import it ({e}): wanted"
      ' "package.module:function" of an installed package'
    ) from e


@dataclasses.dataclass(frozen=True, init=False)
class RealmConfig:
  """Sizes of one model. Frozen and hashable, so a Linen module can hold it.

  The first group is the reference's; the second is ours, and its defaults
  give the reference's model. Other keyword arguments are kept in `extra` and
  read as attributes, among them `output_attentions`, `output_hidden_states`
  and `return_dict`, the defaults of the modules' arguments.

  Attributes:
    hidden_act: one of ACTIVATIONS, or a function of an array.
    pooling: "cls" (pooler over [CLS], as the reference) or "mean" (mean over
      the tokens): what the embedder projects.
    query_mask_token: whether the retriever attends to [MASK] in a query.
    init: "normal" as BERT; "words": the mean of a text begins as its bag of
      words, from which a small embedder soon learns; "copy": an
      initialisation from which a small encoder soon learns to copy from its
      evidence.
    compute_dtype: "float32", or "bfloat16": of matrix products and of what
      lies between them (models/precision.py).
    remat: what a training step computes again in its backward pass rather
      than keep: "none", "full" (all but the layers' inputs) or "dots" (all
      but these and the products with weights).
    attention: what attends, "xla", "cudnn" or a function of yours,
      "module:function" (models/attention.py).
    extra: unknown keys with their values as JSON, kept and written back.

  Raises:
    InputError: a value that no model can have; names field, value and mend.
  """

  model_type: ClassVar[str] = "realm"

  vocab_size: int = 30522
  hidden_size: int = 768
  retriever_proj_size: int = 128
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  num_candidates: int = 8
  intermediate_size: int = 3072
  hidden_act: str | Callable = "gelu_new"
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
  pad_token_id: int | None = 1
  bos_token_id: int | None = 0
  eos_token_id: int | None = 2

  pooling: str = "cls"
  query_mask_token: bool = True
  init: str = "normal"
  compute_dtype: str = "float32"
  remat: str = "none"
  attention: str = "xla"
  extra: tuple[tuple[str, str], ...] = ()

  def __init__(self, *, extra: tuple[tuple[str, str], ...] = (), **values: Any):
    values.pop("model_type", None)
    for field in dataclasses.fields(self)[:-1]:
      value = values.pop(field.name, field.default)
      object.__setattr__(self, field.name, _checked(field.name, value))
    kept = dict(extra) | {k: _json(k, v) for k, v in values.items()}
    for name, only in _ONLY.items():
      if name in kept and json.loads(kept[name]) != only:
        raise InputError(
          f"config {name}={json.loads(kept[name])!r}: there is only {only!r}"
        )
    object.__setattr__(self, "extra", tuple(sorted(kept.items())))
    if self.hidden_size % self.num_attention_heads:
      raise InputError(
        f"config hidden_size={self.hidden_size} is not a multiple of"
        f" num_attention_heads={self.num_attention_heads}: change one of them"
      )
    if self.attention == "cudnn":
      self._check_cudnn()

  def _check_cudnn(self) -> None:
    """What jax.nn.dot_product_attention takes on every GPU."""
    if self.compute_dtype != "bfloat16":
      raise InputError(
        f"config attention=cudnn: it takes no compute_dtype="
        f"{self.compute_dtype}: give compute_dtype=bfloat16 or attention=xla"
      )
    size = self.hidden_size // self.num_attention_heads
    if size % 8 or size > 128:
      raise InputError(
        f"config attention=cudnn: wanted hidden_size / num_attention_heads of"
        f" 8, 16, ... or 128, not {size}: change them or give attention=xla"
      )

  def __getattr__(self, name: str) -> Any:
    """What no field is called: a key of `extra`, or the reference's default."""
    kept = dict(self.__dict__.get("extra", ()))
    if name in kept:
      return json.loads(kept[name])
    if name in _DEFAULTS:
      return _DEFAULTS[name]
    raise AttributeError(f"RealmConfig has no attribute {name!r}")

  @property
  def use_return_dict(self) -> bool:
    """Whether modules return structs rather than tuples, if not told."""
    return self.return_dict and not self.torchscript

  @classmethod
  def from_dict(cls, values: dict[str, Any], **overrides: Any) -> "RealmConfig":
    """Makes a config from config.json's keys; unknown keys go to `extra`."""
    return cls(**{**values, **overrides})

  @classmethod
  def from_pretrained(
    cls, path: str | os.PathLike, **overrides: Any
  ) -> "RealmConfig":
    """Reads the config.json of a directory, or the file named.

    Args:
      path: directory or file.
      **overrides: values that replace those of the file.

    Raises:
      InputError: no such file, no JSON, or a value that can't be.
    """
    file = pathlib.Path(path)
    if file.is_dir():
      file = file / FILE
    try:
      values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as e:
      raise InputError(f"{file}: no such file: wanted a model's {FILE}") from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
      raise InputError(f"{file}: not JSON ({e})") from e
    if not isinstance(values, dict):
      raise InputError(f"{file}: wanted an object of names and values")
    try:
      return cls.from_dict(values, **overrides)
    except InputError as e:
      raise InputError(f"{file}: {e}") from e

  def save_pretrained(self, directory: str | os.PathLike) -> None:
    """Writes config.json into a directory, which is made if need be."""
    text = self.to_json_string()
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tmp = directory / f".{FILE}.{os.getpid()}"
    tmp.write_text(text, encoding="utf-8")
    tmp.replace(directory / FILE)

  def to_dict(self) -> dict[str, Any]:
    """All fields and the keys of `extra`."""
    fields = dataclasses.fields(self)[:-1]  # the last is extra
    values = {f.name: getattr(self, f.name) for f in fields}
    values |= {k: json.loads(v) for k, v in self.extra}
    return {**values, "model_type": self.model_type}

  def to_json_string(self) -> str:
    """What config.json holds: our own fields only where they are set.

    Raises:
      InputError: hidden_act is a function, which JSON can't hold.
    """
    values = self.to_dict()
    if callable(self.hidden_act):
      raise InputError(
        f"config hidden_act={self.hidden_act!r}: a function can't be written"
        f" to JSON: use one of {', '.join(ACTIVATIONS)} to save"
      )
    for name in _OURS:
      if values[name] == getattr(type(self), name):
        del values[name]
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _checked(name: str, value: Any) -> Any:
  """The value of a field, if a model can have it."""
  if name in _WHOLE:
    if not _is_whole(value) or value < _WHOLE[name]:
      raise InputError(
        f"config {name}={value!r}: wanted a whole number >= {_WHOLE[name]}"
      )
    return int(value)
  if name.endswith("_token_id"):
    if value is not None and not _is_whole(value):
      raise InputError(f"config {name}={value!r}: wanted a whole number")
    return value if value is None else int(value)
  if name.endswith("_prob"):
    _check_number(name, value, most=1, wanted="a share in [0, 1]")
  if name.endswith("_eps") or name == "initializer_range":
    _check_number(name, value, most=float("inf"), wanted="a number >= 0")
  if name == "hidden_act" and not callable(value):
    _one_of(name, value, ACTIVATIONS)
  if name in _CHOICES:
    _one_of(name, value, _CHOICES[name])
  if name == "attention" and ":" not in str(value):
    _one_of(name, value, (*_ATTENTION, "module:function"))
  return value


def _is_whole(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check_number(name: str, value: Any, most: float, wanted: str) -> None:
  is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if not is_number or not 0 <= value <= most:
    raise InputError(f"config {name}={value!r}: wanted {wanted}")


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise InputError(
      f"config {name}={value!r}: wanted one of {', '.join(choices)}"
    )


def _json(name: str, value: Any) -> str:
  try:
    return json.dumps(value)
  except (TypeError, ValueError) as e:
    raise InputError(f"config {name}={value!r}: {e}") from e
