"""What the configs of all runs share: data, model sizes, search, training.

Three sizes: `smoke` (seconds, for tests), `demo` (minutes on two cores, 10,033
Wikipedia leads) and `base` (the paper's numbers: BERT-base, 13.35 M blocks).
"""

from ml_collections import ConfigDict

from realm_jax.config import InputError

SIZES = ("smoke", "demo", "base")


def pick(size: str | None, **choices):
  """The value for a size of SIZES.

  Raises:
    InputError: no such size.
  """
  if size not in SIZES:
    raise InputError(
      f"config argument {size!r}: wanted one of {', '.join(SIZES)}"
      " (configs/FILE.py:ARG)"
    )
  return choices[size]


def get_common(size: str) -> ConfigDict:
  """Fields that every run has."""
  config = ConfigDict()
  config.seed = 0  # of parameters, dropout, shuffling and masking
  config.data = data(size)
  config.mesh = mesh()
  # "bfloat16": of matrix products and what lies between them; params, their
  # gradients and moments, softmax, norms and losses stay float32
  config.compute_dtype = "float32"
  # what the backward pass computes again rather than keeps: "none"; "full": of
  # each layer all but its input; "dots": all but that and products with weights
  config.remat = "none"
  # what attends (realm_jax/models/attention.py): "xla", anywhere; "cudnn", on
  # NVIDIA's GPUs, with bfloat16 and both attention_probs_dropout_prob of 0; a
  # function of yours, "package.module:function"
  config.attention = "xla"
  config.embedder = model(size)
  config.encoder = model(size)
  if size != "base":
    # A small embedder learns far sooner as little more than a bag of words:
    # the mean of its tokens, one thin layer, and no look at [MASK].
    config.embedder.init = "words"
    config.embedder.pooling = "mean"
    config.embedder.intermediate_size = pick(size, smoke=48, demo=128, base=0)
    config.embedder.query_mask_token = False
    config.embedder.num_hidden_layers = 1
    # How a small encoder learns to use evidence at all; with relu it forgets.
    config.encoder.init = "copy"
    config.encoder.hidden_act = "gelu_new"
  # [CLS] query [SEP], wordpieces
  config.query_len = pick(size, smoke=24, demo=32, base=96)
  # [CLS] title [SEP] body [SEP] as the embedder reads it, wordpieces
  config.block_len = pick(size, smoke=32, demo=48, base=288)
  # [CLS] query [SEP] body [SEP] as encoder and reader see it, wordpieces; the
  # body is cut to what the query leaves
  config.joint_len = pick(size, smoke=40, demo=48, base=384)
  # whether the body's positions run on from the query's, as in the paper; if
  # not, it begins at position query_len, which a small model finds far sooner
  config.contiguous = pick(size, smoke=False, demo=False, base=True)
  config.fill = fill()
  # where the blocks' tokens are: "device", with their rows of the index; "host",
  # in the prepared data's files, read in the middle of a step, which takes no
  # memory of a device. The figures are the same
  config.block_tokens = "device"
  # what f(x, z) is multiplied with in p(z|x); 1 in the paper
  config.score_scale = pick(size, smoke=0.3, demo=0.3, base=1.0)
  config.init = ConfigDict()
  config.init.embedder = ""  # workdir of the run whose embedder to start from
  config.init.encoder = ""  # the same for encoder or reader
  return config


def mesh() -> ConfigDict:
  """Devices on each axis; -1, on one of them: all that are left."""
  config = ConfigDict()
  config.data = -1  # splits the batch
  config.fsdp = 1  # splits the batch, and params and moments between uses
  config.tensor = 1  # splits params, moments and the products with params
  return config


def fill() -> ConfigDict:
  """Shares of a training batch's places that are computed; 1: padding as well.

  Of a batch with more wordpieces the longest sequences are cut: metrics.jsonl
  has the share that was lost, `cut_tokens`, and the share of places that held
  nothing, `padding`. A little over the mean is right.
  """
  config = ConfigDict()
  config.query = 1.0  # of batch_size x query_len
  config.block = 1.0  # of the candidates (of ICT: the blocks) x block_len
  config.joint = 1.0  # of the joint sequences x joint_len
  return config


def data(size: str) -> ConfigDict:
  """What prepare_data reads; the runs find its result in `dir`."""
  config = ConfigDict()
  config.dir = ""  # prepared data; "": WORKDIR/data, or data beside WORKDIR
  # blocks come from, several with commas: "leads", "factbook", "old_factbook",
  # "sample_dump" (packages); MediaWiki dumps (.xml, .xml.bz2) or JSONL files, or
  # folders of them; "tfds:NAME"; "wikiextractor:FOLDER"; "orqa:FOLDER"
  # (blocks.tfr and titles.tfr) and "realm:PATTERN" (TFRecords), whose records
  # stay blocks
  config.corpus = "leads"
  # pre-training text: "sentences" (of the corpus; the own block is excluded),
  # "lead_lines" ("title : description" of the leads' training split), JSONL,
  # "tfds:salient_span_wikipedia/sentences", "realm:PATTERN" (the original's
  # annotated TFRecords); several with commas
  config.text = pick(
    size,
    smoke="sentences,lead_lines",
    demo="sentences,lead_lines",
    base="tfds:salient_span_wikipedia/sentences",
  )
  config.qa = "leads"  # questions: "leads", "files" (the next three), "" (none)
  config.qa_train = ""  # JSONL or TSV file, or "tfds:natural_questions_open"
  config.qa_dev = ""
  config.qa_test = ""
  config.qa_options = ConfigDict()  # of data.qa="files"
  # answers are regular expressions (CuratedTREC); a line may say it for itself
  config.qa_options.regex = False
  # dev is the tenth of qa_train that the paper held out, by a hash
  config.qa_options.hash_dev = False
  # longer answers are dropped: words; 0: none are (NQ-Open: 5)
  config.qa_options.max_answer_words = 0
  # of a regular expression: texts that it matches in the blocks, the most
  # frequent, that training looks for
  config.qa_options.regex_spans = 16
  # blocks, evenly spaced, where these are looked for; 0: all. A million
  # characters take some 40 ms a question, so of 13 M blocks take some
  config.qa_options.regex_blocks = 0
  # salient spans: "rules"; "spacy" or "spacy:MODEL" (extra ner); a function of
  # yours, "package.module:function", see salient_spans.make_annotator
  config.annotator = "rules"
  # sentences, by which blocks are packed: "rules" (English), or Wikimedia's
  # "sentencex", "sentencex:de" (extra sentences)
  config.sentence_splitter = "rules"
  config.block_len = 288  # a block: 3 + title + body wordpieces at the most
  # so many pages are read, redirects and the like not counted; 0: all
  config.max_articles = pick(size, smoke=400, demo=0, base=0)
  # who does it: "local", processes of this machine, or "beam" (extra beam); the
  # data is the same
  config.runner = "local"
  config.workers = 0  # processes of "local"; 0: one a CPU
  # options of Beam, such as "--runner=FlinkRunner --parallelism=64"; its
  # machines need sources and data.dir under the same absolute paths
  config.beam_args = ""
  config.source_cache = ""  # fetched packages; "": ~/.cache/realm_jax
  config.tokenizer = ConfigDict()
  # "wordpiece" or "sentencepiece" (trained on the corpus), "vocab" (a file)
  config.tokenizer.kind = pick(
    size, smoke="wordpiece", demo="wordpiece", base="vocab"
  )
  config.tokenizer.vocab_size = pick(size, smoke=1024, demo=8192, base=30522)
  config.tokenizer.vocab_file = ""  # BERT's vocab.txt, for "vocab"
  config.tokenizer.lower_case = True
  return config


def model(size: str) -> ConfigDict:
  """Sizes of one BERT; names as in RealmConfig."""
  config = ConfigDict()
  config.hidden_size = pick(size, smoke=32, demo=128, base=768)
  config.num_hidden_layers = pick(size, smoke=2, demo=2, base=12)
  config.num_attention_heads = pick(size, smoke=2, demo=2, base=12)
  config.intermediate_size = pick(size, smoke=64, demo=512, base=3072)
  config.hidden_act = pick(size, smoke="relu", demo="relu", base="gelu_new")
  # a few hundred steps don't overfit
  dropout = pick(size, smoke=0.0, demo=0.0, base=0.1)
  config.hidden_dropout_prob = dropout
  config.attention_probs_dropout_prob = dropout
  config.max_position_embeddings = pick(size, smoke=96, demo=128, base=512)
  config.retriever_proj_size = pick(size, smoke=16, demo=128, base=128)
  config.span_hidden_size = pick(size, smoke=16, demo=128, base=256)
  config.initializer_range = 0.02  # standard deviation of new weights
  config.pooling = "cls"  # "cls": BERT's pooler, "mean": mean of the tokens
  config.query_mask_token = True  # whether the retriever looks at [MASK]
  config.init = "normal"  # "copy": see RealmConfig
  return config


def train(
  *,
  batch_size: int,
  num_steps: int,
  learning_rate: float,
  warmup_steps: int,
  retriever_lr_scale: float = 1.0,
  eval_every: int = 0,
  checkpoint_every: int = 0,
  log_every: int = 1,
) -> ConfigDict:
  """The loop and its optimizer (BERT's Adam)."""
  config = ConfigDict()
  config.batch_size = batch_size  # queries a step, over all devices
  config.num_steps = num_steps
  config.learning_rate = learning_rate  # peak
  config.warmup_steps = warmup_steps  # linear; then linear decay to 0
  config.retriever_lr_scale = retriever_lr_scale  # of the embedder; 0: frozen
  config.b1 = 0.9  # decay of the first moment
  config.b2 = 0.999  # decay of the second moment
  config.eps = 1e-6  # added to the root of the second moment
  config.weight_decay = 0.01  # off norms and biases
  config.clip_norm = 1.0  # of the global gradient
  config.log_every = log_every  # steps
  config.eval_every = eval_every or num_steps  # steps; also at the end
  config.checkpoint_every = checkpoint_every or num_steps  # steps
  config.keep_checkpoints = 2
  config.max_in_flight = 8  # steps queued on the device at a time
  return config


def refresh(mode: str, every_steps: int, size: str) -> ConfigDict:
  """How the index follows the embedder."""
  config = ConfigDict()
  # "inline": training stops for it; "interleaved": each step embeds a slice
  # into a shadow copy; "worker": experiments.refresh_worker does it, beside the
  # run; "never"
  config.mode = mode
  config.every_steps = every_steps  # a new version so often
  # blocks a device embeds at a time
  config.slice_size = pick(size, smoke=32, demo=128, base=256)
  # of "interleaved": what refresh may take of a step, over all else that the
  # step computes, such as 0.1; every_steps and slice_size are what that comes to
  # (realm_jax/train/share.py). 0: they are as given here
  config.share = 0.0
  config.keep = 2  # versions kept on disk
  # held-out queries on which the overlap of two versions is measured
  config.probe_queries = 64
  # the rest is for "worker", which makes versions of checkpoints: it wants
  # train.checkpoint_every <= every_steps
  # how old the searched index may be, steps; 0: as old as it gets; else at
  # least every_steps + train.checkpoint_every
  config.max_staleness_steps = 0
  # what to do then: "block" (wait for a version), "continue" (and say so),
  # "inline" (embed all here)
  config.at_bound = "block"
  config.block_seconds = 600.0  # after so long a wait: checkpoint and stop
  config.poll_steps = 10  # looks for a new version so often
  config.replay = ""  # another run's index/swaps.jsonl: swap as it did
  config.supervise = 0  # workers that the run starts beside it, on a CPU
  return config
