"""Files that others wrote, read as data: nothing in them is ever run.

One module a format, down to the bytes: tensors (safetensors, torch's .bin,
TensorFlow's checkpoints), block records and TFRecords. What a file claims is
checked against the bytes that are there before anything is allocated, and
whatever is wrong ends in one InputError with the file, the place and the mend.
"""
