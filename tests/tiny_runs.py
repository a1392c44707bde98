"""A demo's folder of runs that nobody trained: data, params, index versions.

Everything is as the commands leave it, only the params are fresh, so tests of
what comes after training need no training.
"""

import json

import jax
import numpy as np

from configs import finetune, ict, pretrain
from realm_jax import files, run_config
from realm_jax.config import RealmConfig
from realm_jax.data import blocks, tokenizer
from realm_jax.data.articles import Article
from realm_jax.models import bert
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader
from realm_jax.retrieval import index
from realm_jax.train import checkpoint

_FACTS = (
  ("Curie", "Marie Curie was a physicist born in Warsaw. She won two prizes."),
  ("Zürich", "Zürich is a city in Switzerland. Its river is the Limmat."),
  ("Moon", "The Moon orbits Earth. Neil Armstrong walked on it in 1969."),
  ("Vermeer", "Vermeer was a Dutch painter. He lived in Delft all his life."),
  ("Danube", "The Danube is a river of Europe. It ends in the Black Sea."),
  ("Oslo", "Oslo is the capital of Norway. It lies at the end of a fjord."),
  ("Copper", "Copper is a metal. It conducts heat and electricity well."),
  ("Chess", "Chess is a game for two. Each player begins with 16 pieces."),
  ("Ada", "Ada Lovelace wrote about the engine of Babbage in 1843."),
  ("Nile", "The Nile is a river of Africa. Cairo lies on its banks."),
  ("Oak", "An oak is a tree. Its fruit is the acorn."),
)
QUESTIONS = (
  {"id": "q0", "question": "which Dutch painter lived in Delft",
   "answer": ["Vermeer", "Johannes Vermeer"], "article_id": "3"},
  {"id": "q1", "question": "what is the fruit of a tree",
   "answer": ["the acorn"], "article_id": "10"},
  {"id": "q2", "question": "river of Africa", "answer": ["Nile"],
   "article_id": "9"},
  {"id": "q3", "question": "who wrote about an engine",
   "answer": ["Ada Lovelace"]},
  {"id": "q4", "question": "zzz", "answer": ["Cairo"], "article_id": "99"},
)  # fmt: skip


def make_demo(folder):
  """Fills `folder` with data/, ict/, pretrain/, finetune/, questions.jsonl."""
  articles = [
    Article(str(i), title, text) for i, (title, text) in enumerate(_FACTS)
  ]
  words = [t for a in articles for t in (a.title, a.text)]
  tok = tokenizer.train_wordpiece(words * 2, 300)
  data = folder / "data"
  tok.save(data / "tokenizer")
  blocks.write_block_store(data / "blocks", articles, tok, 32)
  files.write_json(data / "manifest.json", {})
  lines = [json.dumps(q, ensure_ascii=False) + "\n" for q in QUESTIONS]
  (folder / "questions.jsonl").write_text("".join(lines))
  store = blocks.BlockStore(data / "blocks")
  for name, module in (
    ("ict", ict), ("pretrain", pretrain), ("finetune", finetune)
  ):  # fmt: skip
    config = module.get_config("smoke")
    config.data.dir = str(data)
    if name == "finetune":
      config.init.embedder = config.init.encoder = str(folder / "pretrain")
    make_run(folder / name, config, tok, store)
  return folder


def make_run(workdir, config, tok, store):
  """Fills a run's directory, as if it had been trained for three steps."""
  params = _params(config, tok)
  meta = {
    "tokenizer_hash": tok.hash,
    "corpus_hash": store.meta["corpus_hash"],
  }
  run_config.claim(workdir, config.to_dict())
  checkpoints = checkpoint.Checkpoints(workdir)
  checkpoints.save(3, {"state": {"params": params}}, meta=meta)
  checkpoints.close()
  if "refresh" not in config:
    return  # the inverse cloze task has no index
  rng = np.random.default_rng(0)
  size = config.embedder.retriever_proj_size
  block_emb = rng.standard_normal((len(store), size)).astype(np.float32)
  manifest = {**meta, "params_step": 2, "params_hash": "", "template": "",
              "seconds": 0.5}  # fmt: skip
  index.publish_version(workdir, 4, block_emb, manifest)


def _params(config, tok):
  query = np.zeros((1, config.query_len), np.int32)
  joint = bert.make_inputs(np.zeros((1, config.joint_len), np.int32))
  embedder = RealmEmbedder(_sizes(config.embedder, tok))
  params = {"embedder": _init(embedder, query)}
  sizes = _sizes(config.encoder, tok)
  if "num_candidates" in config:
    encoder, masks = RealmKnowledgeAugEncoder(sizes), np.zeros((1, 2), np.int32)
    params["encoder"] = _init(encoder, joint, masks, method=encoder.mlm_logits)
  if "reader_beam_size" in config:
    reader, ones = RealmReader(sizes), np.ones_like(joint.input_ids)
    params["reader"] = _init(
      reader, joint, ones, ones, method=reader.span_logits
    )
  return params


def _init(module, *args, method=None):
  init = jax.jit(lambda rng: module.init(rng, *args, method=method))
  return init(jax.random.key(0))["params"]


def _sizes(section, tok):
  sizes = {**section.to_dict(), "vocab_size": tok.vocab_size}
  return RealmConfig.from_dict({**sizes, "initializer_range": 0.5})
