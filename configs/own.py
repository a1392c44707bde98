"""Every phase on a corpus of your own, with the demo's models.

  python -m experiments.prepare_data --config=configs/own.py --workdir=DIR \\
    --config.data.corpus=FILE.jsonl
  python -m experiments.pretrain --config=configs/own.py --workdir=DIR

The argument names the phase, "pretrain" where there is none: configs/own.py:ict
for train_ict, :encoder and :pretrain for pretrain, :finetune for finetune_qa.
Cost as the demo's, up to three minutes a phase on two cores; what it reaches depends on
the corpus. The README walks through it.
"""

from configs import encoder, finetune, ict, pretrain
from realm_jax.config import InputError

_PHASES = {
  "ict": ict,
  "encoder": encoder,
  "pretrain": pretrain,
  "finetune": finetune,
}


def get_config(phase: str = "pretrain"):
  """The config of a phase, one of _PHASES."""
  if phase not in _PHASES:
    raise InputError(
      f"config argument {phase!r}: wanted one of {', '.join(_PHASES)}"
      " (configs/own.py:PHASE)"
    )
  config = _PHASES[phase].get_config("demo")
  config.data.corpus = ""  # JSONL file, or folder of them: prepare_data's
  config.data.text = "sentences"  # of the corpus
  # questions: config.data.qa_{train,dev,test}, none where these are empty
  config.data.qa = "files"
  for name in config.fill:  # another corpus has other lengths
    config.fill[name] = 1.0
  if "text_weights" in config:
    config.text_weights = (1.0,)
  return config
