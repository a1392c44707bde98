import numpy as np

from realm_jax import load_pretrained, save_pretrained, to_torch_state

model = load_pretrained("google/realm-cc-news-pretrained-embedder")
save_pretrained("copy", model)  # a directory that the reference reads
state = to_torch_state(model.module, model.params)
again = load_pretrained("copy")
np.testing.assert_array_equal(
  to_torch_state(again.module, again.params)["cls.dense.weight"],
  state["cls.dense.weight"],
)
