"""A BERT of plain torch with SDPA: a step, embedding and search, in bfloat16.

Started by benchmarks/peer.py as `PYTHON torch_bert.py FOLDER`; FOLDER has
sizes.json (benchmarks/gpu.py). Wordpieces, rows and weights are random: only its
speed is compared. It masks no padding, which leaves SDPA its fastest kernel.
"""

import functools
import json
import pathlib
import sys

import torch
import torch.nn.functional as F
import worker
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PART = 1_000_000  # rows searched at a time


class Layer(nn.Module):
  """A layer of BERT, normalised after each sum."""

  def __init__(self, hidden, heads):
    super().__init__()
    self.heads = heads
    self.qkv = nn.Linear(hidden, 3 * hidden)
    self.out = nn.Linear(hidden, hidden)
    self.wide = nn.Linear(hidden, 4 * hidden)
    self.narrow = nn.Linear(4 * hidden, hidden)
    self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2))

  def forward(self, x):
    qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [R, T, 3, H, D/H]
    mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
    x = self.norms[0](x + self.out(mixed.transpose(1, 2).flatten(2)))
    wide = F.gelu(self.wide(x), approximate="tanh")
    return self.norms[1](x + self.narrow(wide))


class Bert(nn.Module):
  """Embeddings and layers."""

  def __init__(self, sizes):
    super().__init__()
    hidden = sizes["hidden"]
    self.words = nn.Embedding(sizes["V"], hidden)
    self.places = nn.Embedding(512, hidden)
    self.norm = nn.LayerNorm(hidden)
    self.layers = nn.Sequential(
      *(Layer(hidden, sizes["heads"]) for _ in range(sizes["layers"]))
    )

  def forward(self, ids):
    places = self.places(torch.arange(ids.shape[1], device=ids.device))
    return self.layers(self.norm(self.words(ids) + places))


class Realm(nn.Module):
  """Embedder and encoder; the loss of a step whose candidates are given."""

  def __init__(self, sizes):
    super().__init__()
    self.sizes, hidden = sizes, sizes["hidden"]
    self.embedder, self.encoder = Bert(sizes), Bert(sizes)
    self.project = nn.Linear(hidden, 128)
    self.head = nn.Linear(hidden, hidden)

  def embed(self, ids):
    return self.project(self.embedder(ids)[:, 0])  # [R, 128]

  def forward(self, query, block, joint, places, targets):
    s = self.sizes
    query_emb, block_emb = self.embed(query), self.embed(block)
    block_emb = block_emb.view(s["B"], s["K"], -1)
    score = (query_emb[:, None] * block_emb).sum(-1).float()
    rows = torch.arange(len(joint), device=joint.device)[:, None]
    states = self.head(self.encoder(joint)[rows, places])
    logits = F.gelu(states) @ self.encoder.words.weight.T
    log_probs = logits.float().log_softmax(-1)
    gold = log_probs.gather(-1, targets[..., None]).view(s["B"], s["K"], -1)
    return -(score.log_softmax(-1)[..., None] + gold).logsumexp(1).mean()


def autocast():
  return torch.autocast(DEVICE, torch.bfloat16)


def wait():
  if DEVICE == "cuda":
    torch.cuda.synchronize()
  return dict


def stepper(sizes):
  """Loss, all gradients, update; a few steps."""
  s, model = sizes, Realm(sizes).to(DEVICE)
  optimizer = torch.optim.AdamW(model.parameters(), fused=DEVICE == "cuda")
  rows = s["B"] * s["K"]
  ids = functools.partial(_ids, s["V"])
  given = ids(s["B"], s["Q"]), ids(rows, s["C"]), ids(rows, s["L"])
  places, targets = _ids(s["L"], rows, s["M"]), ids(rows, s["M"])

  def step(_):
    for _ in range(s["times"]):
      with autocast():
        loss = model(*given, places, targets)
      loss.backward()
      optimizer.step()
      optimizer.zero_grad(set_to_none=True)
    return wait()

  return step


def embedder(sizes):
  """So many blocks, a batch at a time."""
  model = Realm(sizes).to(DEVICE, torch.bfloat16).eval()
  batch = _ids(sizes["V"], sizes["batch"], sizes["C"])

  @torch.no_grad()
  def embed(_):
    for _ in range(sizes["blocks"] // sizes["batch"]):
      model.embed(batch)
    return wait()

  return embed


def searcher(sizes):
  """The k best of all rows, part by part."""
  shape = (sizes["rows"], sizes["dim"])
  rows = torch.randn(shape, dtype=torch.bfloat16, device=DEVICE)
  queries = torch.randn(
    sizes["queries"], sizes["dim"], device=DEVICE
  ).bfloat16()
  k = sizes["k"]

  @torch.no_grad()
  def search(_):
    found = [torch.topk(queries @ part.T, k) for part in rows.split(PART)]
    ids = [f.indices + i * PART for i, f in enumerate(found)]
    best = torch.topk(torch.cat([f.values for f in found], 1), k).indices
    torch.cat(ids, 1).gather(1, best)
    return wait()

  return search


def _ids(most, *shape):
  return torch.randint(most, shape, device=DEVICE)


def main(folder):
  sizes = json.loads((folder / "sizes.json").read_text())
  makers = {"step": stepper, "embed": embedder, "search": searcher}
  made = makers[sizes["measure"]](sizes)
  worker.serve(f"torch {torch.__version__} on {DEVICE}", {"run": made})


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
