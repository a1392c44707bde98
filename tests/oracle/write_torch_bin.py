"""Writes tests/testdata/torch_bin with torch: python THIS_FILE DIR.

Run with torch 2.13, safetensors 0.8 and NumPy 1.26; the tests need no torch.
expected.safetensors and state_dict.safetensors hold what the .bin files must
read as; block_records.npy is written as the reference's RealmRetriever does.
"""

import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file


def tensors() -> dict[str, torch.Tensor]:
  """One of each kind that a checkpoint of REALM can hold."""
  base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
  return {
    "contiguous": base.clone(),
    "transposed": (base + 1).T,
    "shared": base,
    "shared_rows": base[1:3],
    "shared_column": base[:, 4],
    "every_other": (base + 2)[::2, 1::3],
    "bfloat16": base[0].bfloat16(),
    "float16": base[1].half(),
    "float64": base[2].double(),
    "int64": torch.arange(-3, 3),
    "position_ids": torch.arange(5).expand((1, -1)),
    "int32": torch.arange(4, dtype=torch.int32),
    "uint8": torch.arange(3, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(base[3].clone()),
  }


def main(directory: pathlib.Path) -> None:
  """Writes the files."""
  state = tensors()
  torch.save(state, directory / "zip.bin")
  torch.save(
    state, directory / "legacy.bin", _use_new_zipfile_serialization=False
  )
  torch.serialization.set_crc32_options(False)
  torch.save(state, directory / "no_crc.bin")
  torch.serialization.set_crc32_options(True)
  expected = {k: v.detach().clone().contiguous() for k, v in state.items()}
  save_file(expected, directory / "expected.safetensors")
  records = ["Delft is a city.", "", "Größe: 5 µm", "x" * 300]
  np.save(
    directory / "block_records.npy",
    np.array([r.encode() for r in records], object),
  )
  torch.manual_seed(0)
  layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
  torch.save(layer.state_dict(), directory / "state_dict.bin")
  save_file(layer.state_dict(), directory / "state_dict.safetensors")


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
