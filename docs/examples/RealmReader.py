import jax
import numpy as np

from realm_jax import load_pretrained

model = load_pretrained("google/realm-orqa-nq-reader")
questions = ["Who is the pioneer?"] * 2
blocks = ["Alan Turing was a pioneer.", "The cute cat."]
inputs = model.tokenizer(
  questions, blocks, padding=True, return_special_tokens_mask=True,
  return_tensors="np",
)  # fmt: skip
special = inputs.pop("special_tokens_mask")
start = (
  inputs.input_ids[0]
  .tolist()
  .index(model.tokenizer.convert_tokens_to_ids("alan"))
)


def loss(params, relevance_score):
  output = model.module.apply(
    {"params": params},
    **inputs,
    relevance_score=relevance_score,
    block_mask=(special == 0) & (inputs.token_type_ids == 1),
    start_positions=np.array([[start], [-1]]),
    end_positions=np.array([[start + 1], [-1]]),
    has_answers=np.array([True, False]),
  )
  return output.loss


gradients = jax.grad(loss)(model.params, np.array([0.3, 0.1], np.float32))
assert jax.tree.structure(gradients) == jax.tree.structure(model.params)
