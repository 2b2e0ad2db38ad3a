"""TFRecord files for tests, framed by Beam's own writer."""

import io
from collections.abc import Iterable

from apache_beam.io.tfrecordio import _TFRecordUtil

from transforms.shards.example import Features, serialized_example


def tfrecord_bytes(rows: Iterable[Features]) -> bytes:
    """A file of these examples."""
    buffer = io.BytesIO()
    for row in rows:
        _TFRecordUtil.write_record(buffer, serialized_example(row))
    return buffer.getvalue()
