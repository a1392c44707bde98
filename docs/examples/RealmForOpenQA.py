from realm_jax import load_pretrained, open_qa

model = load_pretrained("google/realm-orqa-nq-openqa")
tokenizer = model.tokenizer

question = "Who is the pioneer in modern computer science?"
question_ids = tokenizer([question], return_tensors="np")
answer_ids = tokenizer(
  ["alan mathison turing"],
  add_special_tokens=False,
  return_token_type_ids=False,
  return_attention_mask=False,
).input_ids

output = open_qa(model, question_ids, answer_ids=answer_ids)
predicted_answer = tokenizer.decode(output.predicted_answer_ids)
loss = output.reader_output.loss

# More than the reference: a batch of questions at once.
questions = tokenizer(
  [question, "Who is cute?"], padding=True, return_tensors="np"
)
ids = open_qa(model, questions).predicted_answer_ids  # padded with -1
answers = [tokenizer.decode(row[row >= 0]) for row in ids]
assert len(answers) == 2
