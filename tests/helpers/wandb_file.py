"""Reader of .wandb files: protocol buffers of W&B in LevelDB's log format."""

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK = 32 * 1024
FILE_HEADER = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    """Yield every record in order. A record may span several chunks and blocks."""
    data = path.read_bytes()
    position, parts = FILE_HEADER, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # too little left in a block for a chunk header
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        chunk = data[position + 7 : position + 7 + length]
        position += 7 + length
        parts = chunk if kind in (FULL, FIRST) else parts + chunk
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
