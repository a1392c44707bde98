"""A small corpus with a tokenizer, a block store and questions."""

import pytest

from realm_jax.data import blocks, tokenizer
from realm_jax.data.articles import Article

ARTICLES = [
  Article(
    "a1",
    "Marie Curie",
    "Marie Curie was a physicist. She was born in Warsaw in 1867. In 1903 she"
    " shared the Nobel Prize with Pierre Curie. It was cold.",
  ),
  Article("a2", "Zürich", "Zürich is a city in Switzerland."),
  Article("a3", "Empty", "  \n "),
  Article(
    "a4",
    "Moon",
    "The Moon orbits Earth at 384,400 km. Neil Armstrong walked on the Moon on"
    " 20 July 1969! Who was the second man there? Buzz Aldrin followed him."
    " Soviet probes of the Luna programme had landed there before them.",
  ),
]


@pytest.fixture(scope="session")
def articles():
  return ARTICLES


@pytest.fixture(scope="session")
def tok():
  texts = [text for a in ARTICLES for text in (a.title, a.text)]
  return tokenizer.train_wordpiece(texts * 3, 400)


@pytest.fixture(scope="session")
def store(tok, tmp_path_factory):
  path = tmp_path_factory.mktemp("store") / "blocks"
  blocks.write_block_store(path, ARTICLES, tok, 40)
  return blocks.BlockStore(path)
