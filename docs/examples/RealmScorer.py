from realm_jax import load_pretrained

model = load_pretrained(
  "google/realm-cc-news-pretrained-scorer", num_candidates=2
)
# batch_size = 2, num_candidates = 2
input_texts = ["How are you?", "What is the item in the picture?"]
candidates_texts = [
  ["Hello world!", "Nice to meet you!"],
  ["A cute cat.", "An adorable dog."],
]
inputs = model.tokenizer(input_texts, padding=True, return_tensors="np")
candidates_inputs = model.tokenizer.batch_encode_candidates(
  candidates_texts, max_length=10, return_tensors="np"
)
outputs = model.module.apply(
  {"params": model.params},
  **inputs,
  candidate_input_ids=candidates_inputs.input_ids,
  candidate_attention_mask=candidates_inputs.attention_mask,
  candidate_token_type_ids=candidates_inputs.token_type_ids,
)
relevance_score = outputs.relevance_score
assert relevance_score.shape == (2, 2)
