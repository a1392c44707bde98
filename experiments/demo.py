"""The whole of REALM on real text: data, ICT, pre-training, QA, a table.

  python -m experiments.demo --config=configs/demo.py:demo --workdir=DIR

Each phase is a run of its own under DIR (ict/, encoder/, pretrain/, finetune/),
as the other commands make them; a phase that is done isn't done again. Ends
with DIR/summary.json, DIR/report.html and a table.

Needs: nothing but a network, the first time.
"""

from experiments import command
from experiments.phases import Phase, Phases


def main(config, workdir):
  from experiments import ask, evaluators
  from realm_jax import run_config
  from realm_jax.data import prepare
  from realm_jax.evals import demo_summary, report
  from realm_jax.train import finetune, ict, pretrain
  from realm_jax.train.build_index import build_index

  run_config.claim(workdir, config.to_dict())

  def path(name):
    return workdir / name

  def phase(name, train, section, *make_evaluators, **init) -> Phase:
    """Trains one phase in its own workdir."""
    section = section.copy_and_resolve_references()
    section.data, section.seed = config.data, config.seed
    section.data.dir = str(path("data"))
    section.init.update(init)
    return Phase(name, train, (section, path(name), *make_evaluators))

  def index(name) -> Phase:
    """Embeds the corpus with what a phase has trained."""
    return Phase(f"{name}_index", build_index, (path(name),))

  warm = {"embedder": str(path("ict")), "encoder": str(path("encoder"))}
  frozen = config.pretrain.copy_and_resolve_references()
  frozen.train.retriever_lr_scale = 0.0
  frozen.refresh.mode = "never"
  trained = dict.fromkeys(warm, str(path("pretrain")))
  of_pretraining = evaluators.of_pretraining
  of_finetuning = evaluators.of_finetuning

  with Phases(workdir) as phases:
    phases.run(Phase("prepare", prepare.prepare, (config.data, path("data"))))
    phases.beside(phase("encoder", pretrain.pretrain, config.encoder))
    phases.run(phase("ict", ict.train_ict, config.ict), index("ict"))
    phases.wait()
    if config.frozen_retriever:
      phases.beside(phase("frozen", pretrain.pretrain, frozen, **warm))
    phases.run(
      phase(
        "pretrain", pretrain.pretrain, config.pretrain, of_pretraining, **warm
      ),
      index("pretrain"),
    )
    phases.wait()
    before = evaluators.measure_pretraining, (workdir, config.seed)
    phases.beside(Phase("evaluate_pretraining", *before))
    phases.run(
      phase(
        "finetune", finetune.finetune, config.finetune, of_finetuning, **trained
      ),
      index("finetune"),
      Phase("evaluate", evaluators.measure_finetuning, (workdir,)),
      Phase("example", ask.show, (workdir, config.example, ask.options())),
    )
    phases.wait()
    summary = demo_summary.write(workdir, phases.seconds(), phases.total())
    report.write_report(workdir)
    print(demo_summary.table(summary))


if __name__ == "__main__":
  command.run(main)
