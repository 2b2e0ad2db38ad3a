"""What a shard may ask of a worker; beyond it, a record or the rest of the shard is rejected."""

from transforms.decode_limits import MAX_IMAGE_BYTES as MAX_IMAGE_BYTES  # noqa: PLC0414 - theirs too

MAX_LABEL_BYTES = 64
"""Bytes of a label's text; a longer one is no class index."""

MAX_NAME_BYTES = 4096
"""Bytes of a name or key (a path's limit on Linux); a record with a longer one is rejected."""

MAX_HEADER_BYTES = 256 << 10
"""Bytes that a tar may spend on the headers of one member (long names, PAX fields, sparse maps)."""

MAX_GLOBAL_FIELDS = 1000
"""Fields in the global PAX headers of a tar."""

MAX_RECORDS = 1_000_000
"""Members of a tar, rows of a Parquet file, records of a TFRecord file."""

MAX_INFLATION = 100
"""Bytes that a byte of a gzip file may become; images hardly shrink, bombs reach 1,000."""

FREE_INFLATION_BYTES = 16 << 20
"""Inflated bytes allowed beyond that, as headers and padding of small files shrink well."""

MAX_BATCH_BYTES = 256 << 20
"""Bytes of Parquet rows that are decoded at once, where rows are not larger by themselves."""

MAX_THRIFT_BYTES = 64 << 20
"""Bytes of a text in a Parquet footer."""

MAX_THRIFT_ITEMS = 1_000_000
"""Items of a list in a Parquet footer."""

MAX_LIST_BYTES = 256 << 20
"""Bytes of a list of shards (.txt) or of a shard manifest."""

FILES_PER_SHARD = 1000
"""Plain image files of one folder that make one shard."""
