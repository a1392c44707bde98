from realm_jax import load_pretrained

model = load_pretrained(
  "google/realm-cc-news-pretrained-encoder", num_candidates=2
)
# batch_size = 2, num_candidates = 2
text = [
  ["Hello world!", "Nice to meet you!"],
  ["The cute cat.", "The adorable dog."],
]
inputs = model.tokenizer.batch_encode_candidates(
  text, max_length=10, return_tensors="np"
)
outputs = model.module.apply({"params": model.params}, **inputs)
logits = outputs.logits
assert logits.shape == (4, 10, model.config.vocab_size)
