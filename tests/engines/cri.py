# SPDX-License-Identifier: Apache-2.0
"""A client of the container runtime interface: kubernetes/cri-api, pkg/apis/runtime/v1/api.proto.

Messages are written by the numbers of their fields, so that nothing needs to be generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from engines.base import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    Value: TypeAlias = "str | int | Message | list[Value]"
    Message: TypeAlias = Mapping[int, Value]

VARINT, BYTES = 0, 2  # wire types
EXITED = 2  # ContainerState
NODE = 2  # NamespaceMode


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def encode(message: Message) -> bytes:
    return b"".join(_field(number, value) for number, value in message.items())


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, list):
        return b"".join(_field(number, each) for each in value)
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    data = value.encode() if isinstance(value, str) else encode(value)
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def decode(data: bytes) -> dict[int, int | bytes]:
    """The fields of a message by number, of one that is there twice the last."""
    return dict(_fields(data))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte = data[at]
            at += 1
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return found

    while at < len(data):
        key = number()
        value = number()
        if key & 7 == VARINT:
            yield key >> 3, value
        else:
            assert key & 7 == BYTES, f"no such field in the messages that are used: {key}"
            yield key >> 3, data[at : at + value]
            at += value


class Client:
    """Calls of RuntimeService on a unix socket. An error is a grpc.RpcError."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(f"unix://{address}")

    def close(self) -> None:
        self._channel.close()

    def call(self, method: str, message: Message) -> dict[int, int | bytes]:
        path = f"/runtime.v1.RuntimeService/{method}"
        asked = self._channel.unary_unary(path, request_serializer=encode, response_deserializer=decode)
        return dict(asked(message, timeout=SECONDS, wait_for_ready=True))

    def text(self, method: str, message: Message, number: int) -> str:
        """A field of the answer that is text."""
        value = self.call(method, message).get(number, b"")
        assert isinstance(value, bytes)
        return value.decode()
