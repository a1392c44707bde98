"""The knowledge swap: trained beside a book of about 2015, asked with today's.

  launch/swap_demo.sh [DIR]    or
  python -m experiments.swap_demo --config=configs/swap.py:demo --workdir=DIR

demo: about five minutes on two cores; what it reaches is in docs/swap.md.
smoke: the same on 12 countries with toy sizes; shows that everything runs,
learns nothing.
"""

from ml_collections import ConfigDict

from configs import common, encoder, finetune, ict


def get_config(size: str = "demo"):
  """The config for a size of common.SIZES; base is demo."""
  config = ConfigDict()
  config.seed = 0  # of all phases
  # countries of the two books, by their codes; 0: all
  config.max_countries = common.pick(size, smoke=12, demo=0, base=0)
  config.data = _data(size)  # of all phases but one
  config.cloze = _data(size)  # of ICT: questions beside their facts
  config.cloze.qa = ""
  config.cloze.tokenizer.kind = "vocab"  # that of data
  size = common.pick(size, smoke="smoke", demo="demo", base="demo")
  # the phases, each with the fields of its own config file; data, seed and
  # init are set by the experiment
  config.ict = ict.get_config(size)
  config.encoder = encoder.get_config(size)
  config.finetune = finetune.get_config(size)
  for phase in (config.ict, config.encoder, config.finetune):
    _fit(phase, size)
  _of_ict(config.ict, size)
  _of_encoder(config.encoder, size)
  _of_finetune(config.finetune, size)
  return config


def _data(size: str) -> ConfigDict:
  """Facts and questions, which the experiment writes and names here."""
  config = common.data(size)
  config.corpus = ""  # set by the experiment, as are the other files
  config.text = "sentences"
  config.qa = "files"
  config.block_len = 64  # a fact seldom is longer
  config.max_articles = 0
  # few wordpieces: a name that the old book lacks is spelt with the same
  # pieces as those that the reader has learnt to copy
  config.tokenizer.vocab_size = common.pick(
    size, smoke=1024, demo=4096, base=4096
  )
  return config


def _fit(phase: ConfigDict, size: str) -> None:
  """What all phases need for short facts."""
  for name in phase.fill:
    phase.fill[name] = 1.0
  phase.block_len = common.pick(size, smoke=32, demo=40, base=40)
  phase.query_len = 24
  phase.joint_len = common.pick(size, smoke=40, demo=56, base=56)


def _of_ict(config: ConfigDict, size: str) -> None:
  _last(config.train, common.pick(size, smoke=4, demo=150, base=150))
  config.train.batch_size = common.pick(size, smoke=16, demo=512, base=512)
  config.train.learning_rate = 1e-3
  # the words that question and fact share tell them from most of a batch at the
  # first step; on the plain inner product nothing would be left to learn
  config.score_scale = 0.1
  config.hide_title = 0.0  # the name of a country is what is asked for
  # a question is never in the block of its fact
  config.mask_rate = 1.0
  if size != "smoke":
    config.fill.query, config.fill.block = 0.8, 0.85


def _of_encoder(config: ConfigDict, size: str) -> None:
  _last(config.train, common.pick(size, smoke=4, demo=120, base=120))
  config.text_weights = (1.0,)


def _of_finetune(config: ConfigDict, size: str) -> None:
  _last(config.train, common.pick(size, smoke=4, demo=400, base=400))
  config.reader_beam_size = 3
  if size != "smoke":
    config.fill.query, config.fill.joint = 0.85, 0.85
  config.train.learning_rate = 3e-4
  # a faster one runs away from the index that it searches
  config.train.retriever_lr_scale = 0.3
  config.max_answers = 2  # with the office and without
  config.max_answer_len = 14  # wordpieces; names are spelt
  config.max_span_width = 14


def _last(train: ConfigDict, num_steps: int) -> None:
  """Evaluates and saves at the end alone."""
  train.num_steps = num_steps
  train.eval_every = train.checkpoint_every = num_steps
