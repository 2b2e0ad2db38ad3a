"""Shards of images: which match, how many records they hold, and the records themselves.

A format is a module with `EXTENSIONS`, `count` and `read`; adding one means adding it to those of
`match`. Plain image files (`image_files`) are grouped into shards. Paths go through
`transforms.files`, so gs:// and what else `patterns.SCHEMES` names work alike. Limits: `limits`.
"""

from transforms.shards.match import match_shards
from transforms.shards.read import count_records, read_records
from transforms.shards.record import Record
from transforms.shards.shard import ImageFile, Promise, Shard
from transforms.shards.source import ReadFailed

__all__ = [
    "ImageFile",
    "Promise",
    "ReadFailed",
    "Record",
    "Shard",
    "count_records",
    "match_shards",
    "read_records",
]
