"""The whole of REALM on real text: data, ICT, pre-training, QA, a table.

  python -m experiments.demo --config=configs/demo.py:demo --workdir=DIR

Each phase is a run of its own under DIR (ict/, encoder/, pretrain/, finetune/),
as the other commands make them; a phase that is done isn't done again. Ends
with DIR/summary.json, DIR/report.html and a table.
"""

import time

from experiments import command


def main(config, workdir):
  from experiments import evaluators
  from realm_jax import files
  from realm_jax.data import prepare
  from realm_jax.evals import demo_summary, report
  from realm_jax.serve.run import open_run
  from realm_jax.train import build_index, checkpoint, finetune, ict, pretrain

  checkpoint.open_run(workdir, config.to_dict())
  done = workdir / "phases.json"
  seconds = files.read_json(done) if done.exists() else {}

  def phase(name, work, *args):
    if name in seconds:
      return
    print(f"== {name}", flush=True)
    began = time.monotonic()
    work(*args)
    seconds[name] = round(time.monotonic() - began, 1)
    files.write_json(done, seconds)

  def run(name, train, section, make=None, **init):
    """Trains one phase in its own workdir, then embeds the corpus with it."""
    section = section.copy_and_resolve_references()
    section.data, section.seed = config.data, config.seed
    section.data.dir = str(workdir / "data")
    section.init.update(init)
    path = workdir / name
    phase(name, train, section, path, *([make] if make else []))
    if name != "encoder":
      phase(f"{name}_index", build_index.build_index, path)

  phase("prepare", prepare.prepare, config.data, workdir / "data")
  run("ict", ict.train_ict, config.ict)
  run("encoder", pretrain.pretrain, config.encoder)
  warm = {
    "embedder": str(workdir / "ict"),
    "encoder": str(workdir / "encoder"),
  }
  of_pretraining = evaluators.of_pretraining
  run("pretrain", pretrain.pretrain, config.pretrain, of_pretraining, **warm)
  if config.frozen_retriever:
    frozen = config.pretrain.copy_and_resolve_references()
    frozen.train.retriever_lr_scale = 0.0
    frozen.refresh.mode = "never"
    run("frozen", pretrain.pretrain, frozen, **warm)
  trained = dict.fromkeys(warm, str(workdir / "pretrain"))
  of_finetuning = evaluators.of_finetuning
  run("finetune", finetune.finetune, config.finetune, of_finetuning, **trained)

  def measure():
    names = [n for n in seconds if (workdir / n / "checkpoints").exists()]
    runs = {name: open_run(workdir / name) for name in names}
    demo_summary.measure(runs, workdir, config.seed)

  phase("evaluate", measure)
  summary = demo_summary.write(workdir, seconds)
  report.write_report(workdir)
  print(demo_summary.table(summary))


if __name__ == "__main__":
  command.run(main)
