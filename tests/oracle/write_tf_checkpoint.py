"""Writes tests/testdata/tf_checkpoint with TensorFlow: python THIS_FILE DIR.

Run with tensorflow-cpu 2.21; the tests do without. expected.npz holds what
was written (bfloat16 as float32).
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
_BERT = "module/module/module/bert"


def values() -> dict[str, np.ndarray]:
  """A handful of REALM's variables, tiny, and one of each other dtype."""
  rng = np.random.default_rng(0)
  shapes = {
    f"{_BERT}/embeddings/word_embeddings": (11, 4),
    f"{_BERT}/embeddings/LayerNorm/beta": (4,),
    f"{_BERT}/embeddings/LayerNorm/gamma": (4,),
    f"{_BERT}/encoder/layer_0/attention/self/query/kernel": (4, 4),
    f"{_BERT}/encoder/layer_0/attention/self/query/bias": (4,),
    "module/module/dense/kernel": (4, 3),
    "module/module/dense/bias": (3,),
    "module/module/LayerNorm/gamma": (3,),
    "module/module/LayerNorm/beta": (3,),
    "bert/pooler/dense/kernel": (4, 4),
    "cls/predictions/output_bias": (11,),
    "block_emb": (7, 3),
    "empty": (0, 3),
  }
  made = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
  made["global_step"] = np.int64(300000)
  made["dtypes/half"] = made["block_emb"][0].astype(np.float16)
  made["dtypes/bfloat16"] = np.array([1.5, -2.0], np.float32)
  made["dtypes/double"] = made["block_emb"][1].astype(np.float64)
  made["dtypes/int32"] = np.arange(-2, 2, dtype=np.int32)
  made["dtypes/bool"] = np.array([True, False])
  return made


def write_checkpoint(prefix: pathlib.Path, made: dict[str, np.ndarray]) -> None:
  """An Estimator's checkpoint in two data files, one a device."""
  with tf.Graph().as_default():
    for i, (name, value) in enumerate(sorted(made.items())):
      with tf.device(f"/cpu:{i % 2}"):
        dtype = tf.bfloat16 if name == "dtypes/bfloat16" else value.dtype
        v1.get_variable(
          name, initializer=tf.constant(value, dtype), use_resource=True
        )
    config = v1.ConfigProto(device_count={"CPU": 2})
    with v1.Session(config=config) as session:
      session.run(v1.global_variables_initializer())
      saver = v1.train.Saver(sharded=True)
      saver.save(
        session, str(prefix), write_meta_graph=False, write_state=False
      )


def write_saved_model(directory: pathlib.Path, made: dict) -> None:
  """TF1's SavedModel, which is what a hub module is on disk."""
  with tf.Graph().as_default(), v1.Session() as session:
    for name in ("module/dense/kernel", "module/dense/bias"):
      v1.get_variable(name, initializer=made[f"module/{name}"])
    session.run(v1.global_variables_initializer())
    builder = v1.saved_model.builder.SavedModelBuilder(str(directory))
    builder.add_meta_graph_and_variables(session, [], strip_default_attrs=True)
    builder.save()


def write_object_checkpoint(prefix: pathlib.Path) -> None:
  """TF2's kind: beside the variable there is a string, the object graph."""
  tf.train.Checkpoint(x=tf.Variable([1.0, 2.0])).write(str(prefix))


def write_partitioned(prefix: pathlib.Path) -> None:
  """A variable that is stored in two parts."""
  with tf.Graph().as_default(), v1.Session() as session:
    v1.get_variable(
      "parts",
      initializer=tf.constant([[1.0], [2.0]]),
      partitioner=v1.fixed_size_partitioner(2),
    )
    session.run(v1.global_variables_initializer())
    v1.train.Saver().save(
      session, str(prefix), write_meta_graph=False, write_state=False
    )


def write_records(directory: pathlib.Path) -> None:
  """blocks.tfr as the original's, and examples with each kind of feature."""
  blocks = ["Delft is a city.", "", "Größe: 5 µm"] + [
    f"Block {i}" for i in range(9)
  ]
  with tf.io.TFRecordWriter(str(directory / "blocks.tfr")) as writer:
    for block in blocks:
      writer.write(block.encode())
  (directory / "blocks.txt").write_text("\n".join(blocks), "utf-8")
  options = tf.io.TFRecordOptions(compression_type="GZIP")
  path = str(directory / "examples.tfr.gz")
  with tf.io.TFRecordWriter(path, options) as writer:
    for i in range(3):
      feature = {
        "title": tf.train.Feature(
          bytes_list=tf.train.BytesList(value=[b"Delft", b"\xff\x00"][: i + 1])
        ),
        "token_ids": tf.train.Feature(
          int64_list=tf.train.Int64List(value=[i, 300, 2**62, -1, -(2**63)])
        ),
        "scores": tf.train.Feature(
          float_list=tf.train.FloatList(value=[0.5, i - 1.25])
        ),
        "none": tf.train.Feature(),
        "no_ids": tf.train.Feature(int64_list=tf.train.Int64List()),
      }
      example = tf.train.Example(features=tf.train.Features(feature=feature))
      writer.write(example.SerializeToString(deterministic=True))


def main(directory: pathlib.Path) -> None:
  """Writes all files."""
  made = values()
  write_checkpoint(directory / "model.ckpt-300000", made)
  write_saved_model(directory / "saved_model", made)
  write_object_checkpoint(directory / "object" / "ckpt-1")
  write_partitioned(directory / "partitioned" / "model.ckpt-1")
  write_records(directory)
  np.savez(directory / "expected.npz", **made)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
