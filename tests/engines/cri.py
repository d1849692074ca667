# SPDX-License-Identifier: Apache-2.0
"""A client of the container runtime interface, as kubelet is one: kubernetes/cri-api, runtime/v1, by gRPC.

Messages are written by the numbers of their fields: a dict of number and value, where a value is an int, text, another
message, or a list of values for a repeated field. So no code is generated, and only what is used is named.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT = 60
NONE: Mapping[str, str] = MappingProxyType({})
NODE = 2  # NamespaceMode: the node's network, which needs no CNI


def encoded(message: Mapping[int, Any]) -> bytes:
    """A message in protobuf's wire format."""
    out = b""
    for number, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, int):
                out += varint(number << 3) + varint(each)
            else:
                data = each.encode() if isinstance(each, str) else encoded(each)
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def decoded(data: bytes) -> dict[int, list[Any]]:
    """The fields of a message: numbers, and bytes for all that has a length."""
    found: dict[int, list[Any]] = {}
    left = iter(data)

    def number() -> int:
        value = shift = 0
        for byte in left:
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        return value

    for first in left:
        key = first & 0x7F
        if first & 0x80:
            key |= number() << 7
        value: Any = number()
        if key & 7 == 2:
            value = bytes(byte for _, byte in zip(range(value), left, strict=False))
        found.setdefault(key >> 3, []).append(value)
    return found


def strings(table: Mapping[str, str]) -> list[Mapping[int, str]]:
    """A map of text, as a repeated field."""
    return [{1: key, 2: value} for key, value in table.items()]


class Runtime:
    """The services of a CRI runtime at a unix socket."""

    def __init__(self, socket: str) -> None:
        self.channel = grpc.insecure_channel(f"unix://{socket}")

    def call(self, method: str, message: Mapping[int, Any], service: str = "RuntimeService") -> dict[int, list[Any]]:
        """Calls a method, and returns the fields of its answer. grpc.RpcError, whose details kubelet shows."""
        ask = self.channel.unary_unary(
            f"/runtime.v1.{service}/{method}", request_serializer=encoded, response_deserializer=decoded
        )
        answer: dict[int, list[Any]] = ask(message, timeout=TIMEOUT, wait_for_ready=True)
        return answer

    def has_image(self, name: str) -> bool:
        return bool(self.call("ImageStatus", {1: {1: name}}, "ImageService").get(1))


class Pod:
    """A pod in the node's network; a context manager that takes it and its containers away."""

    def __init__(self, runtime: Runtime, name: str, handler: str = "", annotations: Mapping[str, str] = NONE) -> None:
        self.runtime = runtime
        network = {1: {1: NODE}}
        self.config = {1: {1: name, 2: name, 3: "default", 4: 0}, 7: strings(annotations), 8: {2: network}}
        self.id = runtime.call("RunPodSandbox", {1: self.config, 2: handler})[1][0].decode()
        self.containers: list[str] = []

    def __enter__(self) -> Pod:
        return self

    def __exit__(self, *_: object) -> None:
        for container in self.containers:
            self.runtime.call("StopContainer", {1: container, 2: 0})
            self.runtime.call("RemoveContainer", {1: container})
        self.runtime.call("StopPodSandbox", {1: self.id})
        self.runtime.call("RemovePodSandbox", {1: self.id})

    def start(
        self, name: str, image: str, *command: str, annotations: Mapping[str, str] = NONE, devices: Sequence[str] = ()
    ) -> str:
        """Starts a container, and returns its id; ``devices`` are those of CDI. RpcError."""
        config = {1: {1: name}, 2: {1: image}, 3: list(command), 10: strings(annotations), 15: {2: {3: {1: NODE}}}}
        config[17] = [{1: device} for device in devices]
        asked = {1: self.id, 2: config, 3: self.config}
        container = self.runtime.call("CreateContainer", asked)[1][0].decode()
        self.containers.append(container)
        self.runtime.call("StartContainer", {1: container})
        return str(container)

    def execute(self, container: str, *command: str) -> tuple[str, str]:
        """What a command in a container says, on stdout and stderr."""
        answer = self.runtime.call("ExecSync", {1: container, 2: list(command), 3: TIMEOUT})
        return b"".join(answer.get(1, [])).decode(), b"".join(answer.get(2, [])).decode()
