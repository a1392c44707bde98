from realm_jax import RealmConfig, RealmEmbedder

# The defaults are those of google/realm-cc-news-pretrained-embedder.
configuration = RealmConfig()
model = RealmEmbedder(configuration)  # a Linen module: it holds no parameters
configuration = model.config

small = RealmConfig(hidden_size=192, num_attention_heads=3, hidden_act="relu")
small.save_pretrained("small")  # config.json, as the reference writes it
assert RealmConfig.from_pretrained("small") == small
