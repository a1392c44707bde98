"""Warm start of the embedder by the inverse cloze task (ORQA, section 4).

  python -m experiments.train_ict --config=configs/ict.py:demo --workdir=DIR

smoke: seconds. demo: two to three minutes on two cores; recall@5 of the leads'
held-out questions about .41 (docs/measurements.md). base: batch 4096, 100k steps, lr 1e-4 as the original;
13.35 M blocks; zero-shot recall@5 on NQ dev 13.9 (paper, table 2).
"""

from configs import common


def get_config(size: str = "demo"):
  """The config for a size of common.SIZES."""
  config = common.get_common(size)
  config.train = common.train(
    batch_size=common.pick(size, smoke=16, demo=256, base=4096),
    num_steps=common.pick(size, smoke=20, demo=270, base=100_000),
    learning_rate=common.pick(size, smoke=1e-3, demo=2.5e-3, base=1e-4),
    warmup_steps=common.pick(size, smoke=5, demo=50, base=10_000),
    checkpoint_every=common.pick(size, smoke=10, demo=135, base=5_000),
    log_every=common.pick(size, smoke=1, demo=1, base=50),
  )
  # [CLS] sentence [SEP], wordpieces; the original's are shorter than REALM's
  config.query_len = common.pick(size, smoke=24, demo=32, base=64)
  # parts that a batch is embedded in, one after the other, each a second time
  # in the backward pass: the memory of one part, the negatives and the gradient
  # of the whole batch; 1: at once
  config.microbatches = common.pick(size, smoke=1, demo=1, base=8)
  config.fill.query = common.pick(size, smoke=0.95, demo=0.87, base=1.0)
  config.mask_rate = 0.9  # share of the sentences removed from their block
  # whether blocks of one sentence take part, with their sentence in them; the
  # original leaves them out
  config.keep_single = common.pick(size, smoke=True, demo=True, base=False)
  config.min_sentence_len = 4  # wordpieces; a shorter sentence is no query
  # share of the queries that have the words of their block's title masked;
  # 0 in the original. Keeps a small retriever from learning names alone.
  config.hide_title = common.pick(size, smoke=0.5, demo=0.5, base=0.0)
  config.score_scale = 1.0  # ICT learns on the plain inner product
  return config
