from realm_jax import load_pretrained

model = load_pretrained("google/realm-cc-news-pretrained-embedder")
inputs = model.tokenizer(["Hello, my dog is cute"], return_tensors="np")
outputs = model.module.apply({"params": model.params}, **inputs)

projected_score = outputs.projected_score
assert projected_score.shape == (1, model.config.retriever_proj_size)
