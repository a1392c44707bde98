"""Fine-tuning on open-domain QA (paper, section 3.2; ORQA).

  python -m experiments.finetune_qa --config=configs/finetune.py:demo \\
    --workdir=DIR --config.init.embedder=PRETRAIN_DIR \\
    --config.init.encoder=PRETRAIN_DIR

smoke: seconds. demo: about three minutes on two cores; exact match about .14 on
the leads' held-out questions (docs/measurements.md). base: lr 1e-5, 5000 blocks for the retriever, 5 for
the reader, frozen blocks; NQ 40.4, WQ 40.7, CT 42.9 exact match (X = CC-News).

Any block with a wordpiece sequence of an answer counts as evidence, and every
place of one in the blocks read as a right span (distant supervision). The
paper's questions are prepared with data.qa=files, data.qa_options.hash_dev=True
and

  NQ  data.qa_train=tfds:natural_questions_open:train
      data.qa_test=tfds:natural_questions_open:validation
      data.qa_options.max_answer_words=5
  WQ  data.qa_train=tfds:web_questions:train data.qa_test=tfds:web_questions:test
  CT  data.qa_train=FILE data.qa_test=FILE (DrQA's) data.qa_options.regex=True

What REALM++ changed without changing the model is train.batch_size,
searcher_beam_size and reader_beam_size; experiments.evaluate takes another
reader_beam_size than a run was trained with.
"""

from configs import common


def get_config(size: str = "demo"):
  """The config for a size of common.SIZES."""
  config = common.get_common(size)
  config.train = common.train(
    batch_size=common.pick(size, smoke=4, demo=16, base=16),
    num_steps=common.pick(size, smoke=6, demo=170, base=20_000),
    learning_rate=common.pick(size, smoke=1e-3, demo=3e-4, base=1e-5),
    warmup_steps=common.pick(size, smoke=2, demo=20, base=2_000),
    retriever_lr_scale=common.pick(size, smoke=0.7, demo=0.7, base=1.0),
    checkpoint_every=common.pick(size, smoke=3, demo=85, base=1_000),
    log_every=common.pick(size, smoke=1, demo=1, base=50),
  )
  # parts of a batch that are computed one after the other: a step takes a
  # part's memory, and gives the gradients of the whole
  config.microbatches = 1
  config.fill.query = common.pick(size, smoke=0.95, demo=0.42, base=1.0)
  # blocks the retriever is scored on, and blocks the reader reads
  config.searcher_beam_size = common.pick(size, smoke=8, demo=10, base=5000)
  config.reader_beam_size = common.pick(size, smoke=3, demo=5, base=5)
  config.max_span_width = 10  # wordpieces
  # as the original's reader_seq_len
  config.joint_len = common.pick(size, smoke=40, demo=48, base=320)
  # answers of a question that are looked for, and wordpieces of each
  config.max_answers = common.pick(size, smoke=2, demo=1, base=16)
  config.max_answer_len = 10
  # whether the blocks found are embedded anew, so that they learn as well;
  # False: frozen blocks, as the original
  config.embed_found = common.pick(size, smoke=True, demo=True, base=False)
  config.refresh = common.refresh(
    mode=common.pick(size, smoke="inline", demo="inline", base="never"),
    every_steps=common.pick(size, smoke=3, demo=60, base=500),
    size=size,
  )
  config.eval_questions = common.pick(size, smoke=16, demo=400, base=2048)
  return config
