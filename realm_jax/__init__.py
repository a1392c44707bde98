"""REALM in JAX: a retriever and a reader, pre-trained together.

The public names; each is imported when it is first used, so that a config or a
command starts without JAX.
"""

import importlib

_HOMES = {
  "RealmConfig": "config",
  "InputError": "config",
  "RealmTokenizer": "data.realm_tokenizer",
  "RealmTokenizerFast": "data.realm_tokenizer_fast",
  "RealmEmbedder": "models.embedder",
  "RealmScorer": "models.embedder",
  "RealmKnowledgeAugEncoder": "models.encoder",
  "RealmReader": "models.reader",
  "RealmForOpenQA": "models.open_qa",
  "RealmRetriever": "retrieval.retriever",
  "Pretrained": "pretrained",
  "load_pretrained": "pretrained",
  "save_pretrained": "pretrained",
  "to_torch_state": "models.convert",
  "open_qa": "pretrained",
  "explain": "serve.explain",
  "Explainer": "serve.explain",
  "Explanation": "serve.explanation",
}

__all__ = list(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str):
  if name not in _HOMES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
