"""The knowledge swap: one reader, two corpora, no training between them.

  python -m experiments.swap_demo --config=configs/swap.py:demo --workdir=DIR

Trains beside the facts of a World Factbook of about 2015 (ict/, encoder/,
finetune/ under DIR), then puts today's in their place with
train.update_corpus, and asks both who leads a country. A phase that is done
isn't done again. Ends with DIR/summary.json and a table.

Needs: nothing but a network, the first time, and npm for the old book.
"""

import functools

from experiments import command
from experiments.phases import Phase, Phases


def main(config, workdir):
  from experiments import evaluators
  from realm_jax import run_config
  from realm_jax.data import prepare, swap
  from realm_jax.evals import swap_summary
  from realm_jax.train import finetune, ict, pretrain
  from realm_jax.train.build_index import build_index
  from realm_jax.train.update_corpus import update_corpus

  run_config.claim(workdir, config.to_dict())

  def path(name):
    return workdir / name

  facts = path("facts")
  config.data.corpus = str(facts / "old.jsonl")
  config.data.qa_train = str(facts / "train.jsonl")
  config.data.qa_dev = str(facts / "dev.jsonl")

  config.cloze.corpus = str(facts / "cloze.jsonl")
  config.cloze.tokenizer.vocab_file = str(path("data/tokenizer/vocab.txt"))
  cloze = {"ict": (config.cloze, path("ict_data"))}

  def phase(name, train, section, *make_evaluators, **init) -> Phase:
    """Trains one phase in its own workdir."""
    section = section.copy_and_resolve_references()
    section.data, directory = cloze.get(name, (config.data, path("data")))
    section.data.dir, section.seed = str(directory), config.seed
    section.init.update(init)
    return Phase(name, train, (section, path(name), *make_evaluators))

  write = facts, config.max_countries, config.data.source_cache
  warm = {"embedder": str(path("ict")), "encoder": str(path("encoder"))}
  with Phases(workdir) as phases:
    phases.run(
      Phase("facts", swap.write, write),
      Phase("prepare", prepare.prepare, (config.data, path("data"))),
      Phase("prepare_ict", prepare.prepare, cloze["ict"]),
    )
    phases.beside(phase("encoder", pretrain.pretrain, config.encoder))
    phases.run(phase("ict", ict.train_ict, config.ict))
    phases.wait()
    of_finetuning = evaluators.of_finetuning
    phases.run(
      phase(
        "finetune", finetune.finetune, config.finetune, of_finetuning, **warm
      ),
      Phase("index", build_index, (path("finetune"),)),
      Phase(
        "swap",
        functools.partial(update_corpus, replace=str(facts / "new.jsonl")),
        (path("finetune"),),
      ),
      Phase("ask", evaluators.measure_swap, (workdir,)),
    )
    summary = swap_summary.write(workdir, phases.seconds(), phases.total())
    print(swap_summary.table(summary))


if __name__ == "__main__":
  command.run(main)
