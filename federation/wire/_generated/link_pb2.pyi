from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("exchange", "open", "reply", "chunk", "fault", "cancel", "proceed")
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PROCEED_FIELD_NUMBER: _ClassVar[int]
    exchange: int
    open: Head
    reply: Head
    chunk: bytes
    fault: Fault
    cancel: Cancel
    proceed: Proceed
    def __init__(self, exchange: _Optional[int] = ..., open: _Optional[_Union[Head, _Mapping]] = ..., reply: _Optional[_Union[Head, _Mapping]] = ..., chunk: _Optional[bytes] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., proceed: _Optional[_Union[Proceed, _Mapping]] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("method", "header", "body_bytes", "request", "await_proceed")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AWAIT_PROCEED_FIELD_NUMBER: _ClassVar[int]
    method: str
    header: bytes
    body_bytes: int
    request: str
    await_proceed: bool
    def __init__(self, method: _Optional[str] = ..., header: _Optional[bytes] = ..., body_bytes: _Optional[int] = ..., request: _Optional[str] = ..., await_proceed: _Optional[bool] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("code", "message", "hint", "params")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    hint: str
    params: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., params: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Proceed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
