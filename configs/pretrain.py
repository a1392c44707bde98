"""REALM pre-training: retriever and encoder learn together (paper, section 3).

  python -m experiments.pretrain --config=configs/pretrain.py:demo \\
    --workdir=DIR --config.init.embedder=ICT_DIR --config.init.encoder=ENC_DIR

smoke: seconds. demo: about three minutes on two cores; retrieval utility from about
1.5 to 2.5 nats (docs/measurements.md). base: batch 512, 200k steps, lr 3e-5, K = 8 with the null block,
refresh every 500 steps; 80 TPUs in the paper; zero-shot recall@5 on NQ dev 38.5.
"""

from configs import common


def get_config(size: str = "demo"):
  """The config for a size of common.SIZES."""
  config = common.get_common(size)
  config.train = common.train(
    batch_size=common.pick(size, smoke=4, demo=16, base=512),
    num_steps=common.pick(size, smoke=6, demo=300, base=200_000),
    learning_rate=common.pick(size, smoke=1e-3, demo=4e-4, base=3e-5),
    warmup_steps=common.pick(size, smoke=2, demo=100, base=10_000),
    # a retriever as fast as the encoder collapses before the encoder can read
    retriever_lr_scale=common.pick(size, smoke=0.25, demo=0.12, base=1.0),
    eval_every=common.pick(size, smoke=6, demo=300, base=5_000),
    checkpoint_every=common.pick(size, smoke=3, demo=150, base=1_000),
    log_every=common.pick(size, smoke=1, demo=1, base=50),
  )
  # parts of a batch that are computed one after the other: a step takes a
  # part's memory, and gives the gradients of the whole
  config.microbatches = 1
  # "retrieved": REALM. "own": warm start of the encoder, which reads the
  # block that its text comes from (configs/encoder.py)
  config.evidence = "retrieved"
  config.null_share = 0.15  # of "own": queries that see the null block
  # sampling weights of the texts in data.text
  config.text_weights = common.pick(
    size, smoke=(0.1, 0.9), demo=(0.1, 0.9), base=(1.0,)
  )
  # K, the null block among them
  config.num_candidates = common.pick(size, smoke=4, demo=8, base=8)
  # what is masked: "salient" (one salient span), or for comparison "span" (as
  # many wordpieces in a row, anywhere) or "uniform" (mask_share of them here and
  # there, as BERT's but all [MASK]); held-out queries always have salient masks
  config.masking = "salient"
  config.mask_share = 0.15  # of a query's wordpieces, max_masks at the most
  # masked wordpieces a query; a longer span is masked whole and scored so far
  config.max_masks = common.pick(size, smoke=5, demo=5, base=10)
  config.fill.query = common.pick(size, smoke=0.95, demo=0.5, base=1.0)
  # of batch_size x max_masks
  config.fill.masks = common.pick(size, smoke=0.9, demo=0.78, base=1.0)
  # sum the candidates out per masked "token" (the code) or "span" (the paper)
  config.marginalise = "token"
  # whose params embed a query for the search: "current", or those of the "index"
  # that is searched (the original; not with refresh.mode=worker, whose versions
  # come without). p(z|x) is of the current ones in either case.
  config.query_params = "current"
  config.refresh = common.refresh(
    mode=common.pick(
      size, smoke="interleaved", demo="interleaved", base="interleaved"
    ),
    every_steps=common.pick(size, smoke=2, demo=80, base=500),
    size=size,
  )
  config.eval_batch_size = 16  # held-out queries scored at a time
  config.eval_queries = common.pick(size, smoke=16, demo=400, base=2048)
  # how `ask` puts a question to a run that has no reader yet
  config.mask_template = "[MASK] : {question}"
  return config
