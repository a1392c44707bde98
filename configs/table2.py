"""The ablations of the paper's Table 2, each arm with several seeds.

  python -m experiments.reproduce --suite=table2 --size=demo --workdir=DIR

smoke: a few minutes, toy sizes; shows that everything runs. demo: the demo's
leads and models with fewer steps, planned for 90 minutes on two cores. base:
the numbers of the paper's runs; what each of them costs and reached there is in
docs/reproduction.md.

Arms share the prepared data and, of one seed, the warm starts. All pre-training
starts from ICT and the warm encoder, all fine-tuning from what `sources` says.
"""

from ml_collections import ConfigDict

from configs import common, encoder, finetune, ict, pretrain


def get_config(size: str = "demo"):
  """The config for a size of common.SIZES."""
  config = ConfigDict()
  config.data = common.data(size)  # of all runs
  config.seeds = (0, 1, 2)  # each arm is trained once with each
  # some of `sources`, in the table's order
  config.arms = (
    "realm,realm_retriever,realm_encoder,baseline,span,uniform,stale,no_ict"
  )
  config.ict = ict.get_config(size)
  config.encoder = encoder.get_config(size)
  config.pretrain = pretrain.get_config(size)
  config.finetune = finetune.get_config(size)
  if size == "demo":
    # 15 pre-trainings and 24 fine-tunings in 90 minutes: the demo's
    # pre-training, and 100 steps of its 170 of fine-tuning
    config.finetune.train.num_steps = 100

  # pre-training -> what it has otherwise than `pretrain`
  changes = config.pretrainings = ConfigDict()
  changes.realm = ConfigDict()
  changes.span = ConfigDict({"masking": "span"})
  changes.uniform = ConfigDict({"masking": "uniform"})
  if size == "demo":  # fewer masks, so that the retriever sees more wordpieces
    changes.uniform.fill = ConfigDict({"query": 0.55})
  # 30 times as stale; at demo and smoke size the run is over before a refresh
  every = 30 * config.pretrain.refresh.every_steps
  changes.stale = ConfigDict({"refresh": {"every_steps": every}})
  changes.no_ict = ConfigDict({"init": {"embedder": ""}})

  # arm -> the pre-trainings that its retriever and its reader are from; "": the
  # warm starts
  config.sources = ConfigDict()
  config.sources.realm = ("realm", "realm")
  config.sources.realm_retriever = ("realm", "")
  config.sources.realm_encoder = ("", "realm")
  config.sources.baseline = ("", "")
  config.sources.span = ("span", "span")
  config.sources.uniform = ("uniform", "uniform")
  config.sources.stale = ("stale", "stale")
  config.sources.no_ict = ("no_ict", "no_ict")

  # arm -> exact match and zero-shot recall@5 on NQ dev in the paper, percent
  config.paper = ConfigDict()
  config.paper.realm = (38.2, 38.5)
  config.paper.realm_retriever = (37.4, 38.5)
  config.paper.realm_encoder = (35.3, 13.9)
  config.paper.baseline = (31.3, 13.9)
  config.paper.span = (35.3, 26.1)
  config.paper.uniform = (32.3, 24.2)
  config.paper.stale = (28.7, 15.1)
  return config
