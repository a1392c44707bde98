from realm_jax import RealmRetriever, RealmTokenizerFast

tokenizer = RealmTokenizerFast.from_pretrained("google/realm-orqa-nq-openqa")
records = [b"alan turing was a pioneer.", b"the cute cat."]
retriever = RealmRetriever(records, tokenizer)

question_ids = tokenizer(["who is the pioneer"], return_tensors="np").input_ids
answer_ids = tokenizer(["alan turing"], add_special_tokens=False).input_ids
has_answers, start_pos, end_pos, inputs = retriever(
  [0, 1], question_ids, answer_ids, max_length=24
)
assert has_answers == [True, False]
found = inputs.input_ids[0, start_pos[0][0] : end_pos[0][0] + 1]
assert tokenizer.decode(found) == "alan turing"
