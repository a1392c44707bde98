from realm_jax.data import answer_patterns


def test_patterns_are_read_as_their_scorers_do():
  assert answer_patterns.compiled("é|x").search("ÉTÉ")
  assert answer_patterns.compiled("^b").search("a\nb")
  for broken in ("(", "a{99999999999}", "*"):
    assert answer_patterns.compiled(broken) is None


def test_spans_are_what_the_patterns_match_most_frequent_first():
  texts = [
    "New York, new york or NEW YORK? In 1969.",
    "New York 1969",
    "york\nNew",
    "1970 then 1969",
  ]
  found = answer_patterns.find_spans(
    [[r"new\s+york"], [r"19\d\d", "(", "x*"], [], [r"\d+", "then"]], texts, 3
  )
  assert found == [
    ("New York", "NEW YORK", "new york"),
    ("1969", "1970"),
    (),
    ("1969", "1970", "then"),
  ]


def test_no_match_is_of_two_blocks():
  assert answer_patterns.find_spans([[r"a\s+b"]], ["x a", "b y"], 5) == [()]


def test_chunks_change_nothing(monkeypatch):
  texts = [f"year {1900 + i % 7}" for i in range(23)]
  whole = answer_patterns.find_spans([[r"19\d\d"]], texts, 4)
  monkeypatch.setattr(answer_patterns, "_CHUNK", 3)
  assert answer_patterns.find_spans([[r"19\d\d"]], texts, 4) == whole
  assert whole == [("1900", "1901", "1902", "1903")]
