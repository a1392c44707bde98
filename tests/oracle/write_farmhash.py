"""Writes testdata/farmhash: buckets that TensorFlow gives 1,000 texts.

  python tests/oracle/write_farmhash.py

Needs tensorflow alone. The texts differ, have 0
to some 160 bytes, so that every branch of the hash is taken (it has its own for
up to 16, 32 and 64 bytes), and every other one is not ASCII.
"""

import json
import pathlib
import random

import tensorflow as tf

_COUNT = 1000
_ASCII = (
  "who wrote the when did how many is was river capital of first In 1969 won"
  " last season what's u.s."
).split()
_WORDS = _ASCII + "Zürich naïve Đà Nẵng 東京 Москва مدينة 🎈 ﬁ".split()
_OUT = pathlib.Path(__file__).parent.parent / "testdata" / "farmhash"


def _texts():
  rng = random.Random(0)
  for number in range(_COUNT):
    words = rng.choices(_WORDS if number % 2 else _ASCII, k=60)
    length = max(number % 131, len(str(number)))
    yield " ".join([str(number), *words])[:length] if number else ""


def main():
  texts = list(_texts())
  buckets = tf.strings.to_hash_bucket_fast(texts, 100_000).numpy()
  _OUT.mkdir(exist_ok=True)
  with open(_OUT / "buckets.jsonl", "w", encoding="utf-8") as out:
    for text, bucket in zip(texts, buckets.tolist(), strict=True):
      out.write(json.dumps([text, bucket], ensure_ascii=False) + "\n")


if __name__ == "__main__":
  main()
