"""The inverse cloze task, started as a person starts it."""

from realm_jax.retrieval import index
from realm_jax.train import checkpoint, metrics


def test_two_steps_then_an_index(own, start):
  """On a mesh of 2 x 2 x 2, with the data that lies beside the workdir."""
  workdir = own.folder / "ict"
  outcome = start(
    "train_ict",
    "--config=configs/ict.py:smoke",
    f"--workdir={workdir}",
    "--config.mesh.data=-1",
    "--config.mesh.fsdp=2",
    "--config.mesh.tensor=2",
    "--config.train.num_steps=2",
  )
  assert outcome.code == 0, outcome.err
  steps = metrics.read_metrics(workdir)
  assert [line["step"] for line in steps] == [1, 2]
  assert all(line["loss"] > 0 for line in steps)
  assert steps[1]["model_flops_per_second"] > 0
  assert steps[1]["search_flops_share"] == 0  # there is none
  _, meta, step = checkpoint.restore_params(workdir)
  assert step == 2

  assert start("build_index", f"--workdir={workdir}").code == 0
  block_emb, manifest = index.read_version(workdir, 0, {"params_step": 2})
  assert block_emb.shape == (60, 16)
  assert manifest["corpus_hash"] == meta["corpus_hash"]
