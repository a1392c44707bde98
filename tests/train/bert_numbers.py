"""BERT's own numbers for its Adam, where a test does not care for others."""

BERT = {"b1": 0.9, "b2": 0.999, "eps": 1e-6,
        "weight_decay": 0.01, "clip_norm": 1.0}  # fmt: skip
