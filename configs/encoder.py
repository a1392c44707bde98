"""Warm start of a knowledge-augmented encoder that starts from nothing.

  python -m experiments.pretrain --config=configs/encoder.py:demo --workdir=DIR

Masked sentences beside the very block they come from teach the encoder that
evidence is worth reading; no retrieval, no pair is given away. demo: about 30 s
on two cores. The paper starts from BERT instead, so `base` has no such run.
"""

from configs import common, pretrain


def get_config(size: str = "demo"):
  """The config for a size of common.SIZES."""
  config = pretrain.get_config(size)
  config.evidence = "own"
  # sentences only
  config.text_weights = common.pick(
    size, smoke=(1.0, 0.0), demo=(1.0, 0.0), base=(1.0,)
  )
  config.fill.query = 1.0
  config.fill.masks = common.pick(size, smoke=0.9, demo=0.65, base=1.0)
  config.train = common.train(
    batch_size=common.pick(size, smoke=8, demo=64, base=512),
    num_steps=common.pick(size, smoke=6, demo=150, base=10_000),
    learning_rate=common.pick(size, smoke=1e-3, demo=1e-3, base=1e-4),
    warmup_steps=common.pick(size, smoke=2, demo=20, base=1_000),
    retriever_lr_scale=0.0,
    checkpoint_every=common.pick(size, smoke=3, demo=150, base=1_000),
    log_every=common.pick(size, smoke=1, demo=1, base=50),
  )
  return config
