"""Hugging Face's REALM on a CPU: a pre-training step, and embedding.

Started by benchmarks/peer.py as `PYTHON hf_realm.py FOLDER THREADS`. FOLDER has
models as save_pretrained writes them, and batches as .npz.
"""

import functools
import pathlib
import sys

import numpy as np
import torch
import transformers
import worker


def main(folder: pathlib.Path, threads: int) -> None:
  torch.set_num_threads(threads)
  transformers.logging.set_verbosity_error()

  @functools.cache
  def model(kind):
    return getattr(transformers, kind).from_pretrained(folder / kind)

  def load(path):
    with np.load(path) as arrays:
      return {k: torch.from_numpy(v).long() for k, v in arrays.items()}

  # all of them now: a round that reads a file would be the slower for it
  batches = {path.stem: load(path) for path in folder.glob("*.npz")}

  def step(i):
    """Loss and all gradients."""
    scorer, encoder = model("RealmScorer"), model("RealmKnowledgeAugEncoder")
    given = batches[f"step_{i}"]
    query, block, joint = (
      {k.split("/")[1]: v for k, v in given.items() if k.startswith(part)}
      for part in ("query/", "block/", "joint/")
    )
    scorer.zero_grad(set_to_none=True)
    encoder.zero_grad(set_to_none=True)
    score = scorer(
      **query, **{f"candidate_{k}": v for k, v in block.items()}
    ).relevance_score
    loss = encoder(**joint, relevance_score=score).loss
    loss.backward()

    def arrays():
      named = [*scorer.named_parameters(), *encoder.named_parameters()]
      grads = {k: p.grad.numpy() for k, p in named if p.grad is not None}
      return {"loss": loss.detach().numpy(), **grads}

    return arrays

  @torch.no_grad()
  def embed(name, i):
    """All blocks of a batch's parts, one after the other."""
    embedder, given = model("RealmEmbedder").eval(), batches[f"{name}_{i}"]
    parts = [
      embedder(
        **{k: given[f"{part}/{k}"] for k in ("input_ids", "attention_mask", "token_type_ids")}
      ).projected_score
      for part in sorted({k.split("/")[0] for k in given})
    ]  # fmt: skip
    return lambda: {"emb": torch.cat(parts).numpy()}

  worker.serve(
    f"transformers {transformers.__version__}, torch {torch.__version__}",
    {
      "step": step,
      "as they come": functools.partial(embed, "come"),
      "by length": functools.partial(embed, "sorted"),
    },
  )


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
