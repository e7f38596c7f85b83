"""Reads the file that an offline W&B run leaves; wandb itself has no reader for it."""

import json
import struct
import time

BLOCK = 32768
RECORD_HEADER = 7  # checksum, length, type
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(path):
    """The protocol-buffer records of a .wandb file: a LevelDB log behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    records, parts, position = [], [], 7
    while position + RECORD_HEADER <= len(content):
        if BLOCK - position % BLOCK < RECORD_HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if kind not in (FULL, FIRST, MIDDLE, LAST):
            break
        position += RECORD_HEADER
        parts.append(content[position : position + length])
        position += length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            records.append(record)
            parts = []
    return records


def read_finished(path, timeout_seconds=20):
    """The records of a run that was ended: the last of them is written a moment after `finish`."""
    deadline = time.monotonic() + timeout_seconds
    while exit_code(records := read_records(path)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return records


def run_record(records):
    """What the run was started with: group, name, id, job type."""
    return next(r.run for r in records if r.WhichOneof("record_type") == "run")


def history(records):
    """One dict per logged row; `step` is W&B's own."""
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = {"step": record.history.step.num}
            for item in record.history.item:
                *outer, name = item.nested_key or [item.key]
                target = row
                for key in outer:
                    target = target.setdefault(key, {})
                target[name] = json.loads(item.value_json)
            rows.append(row)
    return rows


def exit_code(records):
    """What `finish` said; None for a run that was never ended."""
    codes = [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"]
    return codes[-1] if codes else None


def staged_tables(records):
    """For each logged table the files it is made of: path in the table -> where it waits for upload."""
    return [
        {entry.path: entry.local_path for entry in record.artifact.manifest.contents}
        for record in records
        if record.WhichOneof("record_type") == "artifact" and record.artifact.type == "run_table"
    ]
