"""Everything that runs inside a sandbox session, and the frames through which a trusted process speaks with it.

The folder is copied as the package ``keyong_job`` into the runtime that job code runs in, so it imports nothing of
ours but itself. Trusted processes use what is named here, which needs the standard library and numpy alone; `client`,
`server`, `grid`, `strategies` and `flower` run with user code in one process and are never imported by them.

>>> import numpy as np
>>> header, body = encode(Content(arrays={"arrays": {"w": np.zeros(3, dtype=np.float32)}}))
>>> decode(header, b"".join(body)).arrays["arrays"]["w"].shape
(3,)
"""

from .codec import (
    Content,
    ContentError,
    body_size,
    content_digest,
    decode,
    decode_many,
    describe,
    encode,
    header_bytes,
)
from .frames import (
    HEAD_BYTES,
    MAX_HEADER_BYTES,
    Channel,
    FrameError,
    decode_head,
    encode_frame,
    encode_head,
    parse_header,
    result_path,
)
from .project import Project, ProjectError, fuse, load_project

__all__ = [
    "HEAD_BYTES",
    "MAX_HEADER_BYTES",
    "Channel",
    "Content",
    "ContentError",
    "FrameError",
    "Project",
    "ProjectError",
    "body_size",
    "content_digest",
    "decode",
    "decode_head",
    "decode_many",
    "describe",
    "encode",
    "encode_frame",
    "encode_head",
    "fuse",
    "header_bytes",
    "load_project",
    "parse_header",
    "result_path",
]
