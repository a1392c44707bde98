from realm_jax import RealmTokenizer

# batch_size = 2, num_candidates = 2
text = [
  ["Hello world!", "Nice to meet you!"],
  ["The cute cat.", "The adorable dog."],
]
tokenizer = RealmTokenizer.from_pretrained(
  "google/realm-cc-news-pretrained-encoder"
)
tokenized_text = tokenizer.batch_encode_candidates(
  text, max_length=10, return_tensors="np"
)
assert tokenized_text.input_ids.shape == (2, 2, 10)
