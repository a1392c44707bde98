"""The whole of REALM on 10,033 Wikipedia leads, one run after the other.

  launch/demo.sh [DIR]    or
  python -m experiments.demo --config=configs/demo.py:demo --workdir=DIR

demo: under ten minutes on two cores; what it reaches is in docs/measurements.md.
smoke: the same on 400 leads with toy sizes, about a minute; shows that
everything runs, learns nothing.
"""

from ml_collections import ConfigDict

from configs import common, encoder, finetune, ict, pretrain


def get_config(size: str = "demo"):
  """The config for a size of common.SIZES."""
  config = ConfigDict()
  config.data = common.data(size)  # of all phases
  config.seed = 0  # of all phases
  # the phases, each with the fields of its own config file; data, seed and
  # init are set by the demo
  config.ict = ict.get_config(size)
  config.encoder = encoder.get_config(size)
  config.pretrain = pretrain.get_config(size)
  config.finetune = finetune.get_config(size)
  # what is asked at the end, as experiments.ask does
  config.example = "Dutch painter of the 17th century"
  # pre-train a second time with a frozen retriever, so that the retriever's
  # share of the utility is told from the encoder's
  config.frozen_retriever = common.pick(size, smoke=False, demo=True, base=True)
  return config
