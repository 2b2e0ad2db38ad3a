"""The slow, obvious way from images to tables: a dict for each row. The columns must agree with it.

What label_table, extract_table and rows.account do to whole columns is done here row by row.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from policy.answers import Answers
from policy.rows import MOST_ERRORS, NONFINITE, OK
from transforms.careful import Failure, Part
from transforms.prepare import Prepared
from transforms.routed import Compared, Routed

Row = dict[str, Any]
REPEATING = ("status", "error", "name", "answer", "trail.list.element")
Parts = Sequence[Part[tuple[Answers, dict[str, NDArray[np.float16]]]]]


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema)


def file_of(rows: Sequence[Row], schema: pa.Schema, about: Row) -> bytes:
    """The file as it was written before numbers were split by byte; for benchmarks/tables.py."""
    buffer = io.BytesIO()
    pq.write_table(
        table(rows, schema).replace_schema_metadata({"adalabel": json.dumps(about)}),
        buffer,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=[name for name in REPEATING if name.partition(".")[0] in schema.names],
    )
    return buffer.getvalue()


def account(rows: Sequence[Row]) -> Row:
    errors = Counter(re.sub(r"\d+", "#", str(row["error"])) for row in rows if row.get("error"))
    named = dict(errors.most_common(MOST_ERRORS))
    other = errors.total() - sum(named.values())
    return {
        "records": len(rows),
        "statuses": dict(Counter(str(row["status"]) for row in rows)),
        "errors": named | ({"other": other} if other else {}),
    }


def labelled(group: Routed, names: Sequence[str]) -> Iterator[tuple[Prepared, Row]]:
    for number, item in enumerate(group.items):
        row = {"key": item.key, "trail": list(group.trail), "cost": group.cost}
        row |= {"status": group.status, "error": group.error}
        if group.answers is not None and group.status == OK:
            best = int(group.answers.classes[number, 0])
            row |= {
                "label": best,
                "name": names[best],
                "classes": group.answers.classes[number],
                "probabilities": group.answers.probabilities[number],
                "answer": group.trail[-1],
            }
        if number in group.audits:
            row |= _audited(group.audits[number])
        yield item, row


def _audited(found: Compared) -> Row:
    wrong = None if found.full is None else found.disagrees
    return {"audit": found.full, "disagrees": wrong, "audit_cost": found.cost}


def unlabelled(item: Prepared) -> Row:
    return {"key": item.key, "status": item.status, "error": item.error}


def statistics_of(shard: str, rows: Sequence[Row]) -> Row:
    audits = [row["audit"] for row in rows if "audit" in row]
    return {
        "shard": shard,
        **account(rows),
        "exits": dict(Counter(row["answer"] for row in rows if row["status"] == OK)),
        "got": dict(Counter(answer for row in rows for answer in row.get("trail", ()))),
        "cost": sum(row.get("cost", 0.0) for row in rows),
        "predicted": dict(Counter(str(row["label"]) for row in rows if row["status"] == OK)),
        "audited": sum(full is not None for full in audits),
        "disagreed": sum(bool(row.get("disagrees")) for row in rows),
        "audit_failed": audits.count(None),
        "audit_cost": sum(row.get("audit_cost", 0.0) for row in rows),
    }


def extracted(
    items: Sequence[Prepared], network: str, parts: Parts, failures: Sequence[Failure]
) -> tuple[list[Row], list[Row]]:
    """The rows of a network's answers, and those of its one trunk's features."""
    base = [{"key": i.key, "label": i.label, "status": OK, "error": None} for i in items]
    answers, features = [dict(row) for row in base], [dict(row) for row in base]
    for part in parts:
        said, ((trunk, pooled),) = part.value[0], part.value[1].items()
        for number in range(part.stop - part.start):
            row, bad = part.start + number, f"{trunk} (as float16) gave NaN or infinity"
            finite = np.isfinite(pooled[number]).all()
            features[row] |= (
                {"features": pooled[number]} if finite else {"status": NONFINITE, "error": bad}
            )
            if not said.finite[number]:
                reason = f"{network} gave NaN or infinity"
                answers[row] |= {"status": NONFINITE, "error": reason}
            elif not finite:
                answers[row] |= {"status": NONFINITE, "error": bad}
            else:
                answers[row] |= {
                    "classes": said.classes[number],
                    "probabilities": said.probabilities[number],
                    "entropy": said.entropy[number],
                }
    for failure in failures:
        reason = {"status": failure.status, "error": failure.error}
        answers[failure.row] |= reason
        features[failure.row] |= reason
    return answers, features
