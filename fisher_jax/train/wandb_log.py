"""What W&B's offline files of a run hold: the only ones who know after a kill.

W&B writes with a delay, so a killed session has lost what it logged last, and offline
there is no server to ask. Its files are in LevelDB's log format (blocks of 32 KiB,
records split over them) after a header of 7 bytes, a protobuf message a record.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

_BLOCK, _FILE_HEADER, _HEADER = 32768, 7, struct.Struct("<IHB")
_FULL, _LAST = 1, 4  # kinds of parts that end a record


def messages(path: Path) -> Iterator[bytes]:
    """Yields the records of a file; one that is cut off at the end is left out."""
    data, position, parts = path.read_bytes(), _FILE_HEADER, b""
    while position + _HEADER.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER.size:
            position += left
            continue
        _, length, kind = _HEADER.unpack_from(data, position)
        start = position + _HEADER.size
        if start + length > len(data):
            return
        parts += data[start : start + length]
        position = start + length
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""


def last_step(folder: Path, identifier: str) -> int:
    """Returns the last step in the offline files of a run; -1 for none.

    Args:
        folder: in which W&B keeps its sessions, ``wandb/``.
        identifier: the run's id.

    Raises:
        ValueError: a file is not in the known format.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    last = -1
    for path in folder.glob(f"offline-run-*-{identifier}/*.wandb"):
        try:
            for message in messages(path):
                record = Record.FromString(message)
                if record.HasField("history"):
                    last = max(last, record.history.step.num)
        except DecodeError as error:
            raise ValueError(f"{path} is not in W&B's known format") from error
    return last
