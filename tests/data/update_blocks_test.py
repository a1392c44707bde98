"""A changed store is the store of the changed articles, its old rows in place."""

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import blocks, update_blocks
from realm_jax.data.articles import Article

NEW = Article("b1", "Mars", "Mars has two moons. Phobos is one of them.")
MOON = Article("a4", "Moon", "The Moon is a rock. It has no air at all.")


@pytest.fixture
def update(store, tok, tmp_path):
  """update(add, delete, replace) -> the new store, and what changed."""

  def call(add=(), delete=(), replace=False):
    path = tmp_path / "new"
    change = update_blocks.update_block_store(
      path, store, tok, add, delete, replace
    )
    return blocks.BlockStore(path), change

  return call


@pytest.mark.parametrize(
  ("add", "delete", "replace", "left", "counts"),
  [
    ([NEW], [], False, "1234b", (1, 0, 0, 0, 4)),
    ([NEW, MOON], [], False, "123bm", (1, 1, 0, 0, 3)),
    ([], ["a1", "a3"], False, "24", (0, 0, 2, 0, 2)),
    ([MOON], ["a2"], False, "13m", (0, 1, 1, 0, 2)),
    ([NEW, "a2", "a4"], [], False, "1234b", (1, 0, 0, 2, 2)),
    ([NEW, "a2", MOON], [], True, "2bm", (1, 1, 2, 1, 0)),
    ([NEW], [], True, "b", (1, 0, 4, 0, 0)),
  ],
)
def test_it_is_the_store_of_the_changed_articles(
  update, store, tok, articles, tmp_path, add, delete, replace, left, counts
):
  by_id = {a.id: a for a in articles}
  by_letter = {a.id[-1]: a for a in articles} | {"b": NEW, "m": MOON}
  add = [by_id.get(a, a) for a in add]
  new, change = update(add, delete, replace)
  names = ("added", "updated", "deleted", "unchanged", "kept")
  assert change.counts == dict(zip(names, counts, strict=True))
  assert new.meta["changed"] == change.counts
  corpus = [by_letter[letter] for letter in left]
  blocks.write_block_store(tmp_path / "want", corpus, tok, 40)
  want = {**blocks.BlockStore(tmp_path / "want").meta}
  assert new.meta == want | {"changed": change.counts}
  for file in (tmp_path / "want").glob("*.npy"):
    assert (tmp_path / "new" / file.name).read_bytes() == file.read_bytes()
  for row, old_id in enumerate(change.kept):
    assert new.text(row) == store.text(old_id)
    assert new.article_id(row) == store.article_id(old_id)
  assert np.all(np.diff(change.kept) > 0)


@pytest.mark.parametrize(
  ("add", "delete", "message"),
  [
    ([], ["a1", "zz"], 'delete: the corpus has no article "zz"'),
    ([MOON], ["a4"], 'the article "a4" is to be added and deleted'),
    ([], ["a1", "a2", "a4"], "empty corpus: none of the 1 articles has"),
    ([], [], "nothing to change"),
  ],
)
def test_what_cannot_be_is_named(update, tmp_path, add, delete, message):
  with pytest.raises(InputError, match=message):
    update(add, delete)
  assert not list(tmp_path.iterdir())


def test_the_same_again_changes_nothing(update, articles):
  with pytest.raises(InputError, match="nothing to change"):
    update(articles)
