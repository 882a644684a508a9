#!/usr/bin/env python3
"""A client of WatchCredentialStatus to copy from. It prints one line for each change of what it knows.

Python 3.10 or later; `pip install grpcio googleapis-common-protos`. The stubs are made, into DIR on PYTHONPATH, by
`python -m grpc_tools.protoc -I proto --python_out=DIR --pyi_out=DIR --grpc_python_out=DIR proto/claviger/v1/*.proto`.

`View` is what there is to know, `Watcher` keeps it up to date, and `show` is the place for code of your own: fetching
tokens, writing files, signalling processes. A "rule" is one of docs/watch.md.
"""

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc
from claviger.v1 import connection_pb2, token_broker_pb2_grpc, watch_pb2
from google.protobuf.message import DecodeError, Message
from google.protobuf.proto import serialize_length_prefixed
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 30_000),  # rule 3
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # rule 18: our back-off holds, not the one that channels share
]
FIRST_MESSAGE, SILENT_INTERVALS = 90.0, 3  # rule 14
BACKOFF_FIRST, BACKOFF_MOST, LIVED_LONG = 0.2, 30.0, 60.0  # rule 18
PASSING = "UNAVAILABLE INTERNAL UNKNOWN CANCELLED ABORTED DEADLINE_EXCEEDED RESOURCE_EXHAUSTED".split()  # rule 17
ENDING_KINDS = {  # rule 9
    watch_pb2.CREDENTIAL_EVENT_KIND_REVOKED,
    watch_pb2.CREDENTIAL_EVENT_KIND_ERASED,
    watch_pb2.CREDENTIAL_EVENT_KIND_ACCESS_LOST,
}


class View:
    """What is known, and the token that belongs to it (rules 8 to 12). It lives in memory only."""

    def __init__(self) -> None:
        self.credentials: dict[str, watch_pb2.CredentialStatus] = {}
        self.token = b""
        self._revision = 0  # of the last batch or snapshot that is in it
        self._snapshot: dict[str, watch_pb2.CredentialStatus] | None = None  # unfinished
        self._events: list[watch_pb2.CredentialEvent] = []  # of an unfinished batch

    def begin(self) -> None:
        """What comes next continues from the token or, without one, is a snapshot. Forgets what is unfinished."""
        self._snapshot = None if self.token else {}
        self._events = []

    def apply(self, message: watch_pb2.WatchCredentialStatusResponse) -> set[str]:
        """Takes a message in, and says which credentials it changed."""
        changed: set[str] = set()
        match message.WhichOneof("body"):
            case "resync":
                self.token = b""
                self.begin()
            case "snapshot" if self._snapshot is not None:
                self._snapshot |= {status.credential_id: status for status in message.snapshot.statuses}
            case "snapshot_end" if self._snapshot is not None:
                old, self.credentials = self.credentials, self._snapshot
                self._snapshot, self._revision = None, message.revision
                changed = {key for key in old | self.credentials if old.get(key) != self.credentials.get(key)}
            case "batch":
                self._events += message.batch.events
                if message.batch.more_follows:
                    return changed
                events, self._events = self._events, []
                if message.revision <= self._revision:  # rule 12
                    return changed
                self._revision = message.revision
                for event in events:
                    key = event.status.credential_id
                    changed.add(key)
                    if event.kind in ENDING_KINDS:
                        self.credentials.pop(key, None)
                    else:
                        self.credentials[key] = event.status
        if message.resume_token and self._snapshot is None:
            self.token = message.resume_token
        return changed


@dataclass
class End:
    """How a stream ended."""

    code: StatusCode
    text: str = ""
    token_refused: bool = False  # the resume token, not the platform token
    lived: float | None = None  # since `opened`; none: it has not come
    drained: bool = False
    not_before: float = 0.0  # by time.monotonic(): what the drain or RetryInfo asks for

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> "End":
        end = cls(error.code(), error.details() or "")
        status, bad = status_pb2.Status(), error_details_pb2.BadRequest()
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        trailer = error.trailing_metadata() or grpc.aio.Metadata()
        try:
            status.ParseFromString(trailer.get("grpc-status-details-bin", b""))
            for detail in status.details:
                if detail.Unpack(info) and info.domain == "claviger":
                    end.text = f"{info.reason}: {end.text}"
                elif detail.Unpack(retry):
                    end.not_before = time.monotonic() + retry.retry_delay.ToTimedelta().total_seconds()
                elif detail.Unpack(bad):
                    end.token_refused = any(field.field == "resume_token" for field in bad.field_violations)
        except DecodeError:
            pass  # not the broker's, so the code alone counts
        return end


class Stop(Exception):
    """Nothing that waiting cures."""


class Watcher:
    """Keeps a view up to date, through one stream after the other."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.view = View()
        self.changed: set[str] = set()  # what `show` has not shown yet: bounded, however slow it is (rule 7)
        self.news = asyncio.Event()
        self._args = args
        self._record = args.record.open("ab", buffering=1 << 20) if args.record else None

    async def run(self) -> NoReturn:
        """Rules 15 to 18."""
        failures = 0
        refused: str | None = None  # the last stream's platform token
        while True:
            bearer = await self._bearer(refused)
            resumed = bool(self.view.token)
            end = await self._stream(bearer)
            say(f"the stream ended: {end.code.name} {end.text}")
            if end.lived is not None:
                refused = None
            short = (end.lived or 0.0) < LIVED_LONG
            failures = failures if short else 0
            failed = end.code.name in PASSING or end.code == StatusCode.OK and short
            if end.code == StatusCode.UNAUTHENTICATED and refused is None:
                refused = bearer
            elif resumed and (end.token_refused or end.code == StatusCode.OUT_OF_RANGE):
                self.view.token = b""
            elif not failed and end.code != StatusCode.OK:
                raise Stop(f"{end.code.name} {end.text}")
            delay = end.not_before - time.monotonic()
            if failed and not end.drained:
                delay = max(delay, random.uniform(0.0, min(BACKOFF_MOST, BACKOFF_FIRST * 2**failures)))
                failures = min(failures + 1, 30)
            await asyncio.sleep(max(0.0, delay))

    async def _bearer(self, refused: str | None) -> str:
        """The platform token, read anew (rule 4). Waits for somebody to replace one that was refused."""
        waiting = False
        while (bearer := self._args.token_file.read_text().strip()) in ("", refused):
            if not waiting:
                say(f"waiting for a new token in {self._args.token_file}")
            waiting = True
            await asyncio.sleep(1.0)
        return bearer

    async def _stream(self, bearer: str) -> End:
        """One stream from its opening to its end, without a deadline (rule 2)."""
        request = watch_pb2.WatchCredentialStatusRequest(
            scopes=self._args.scope, on_lost=watch_pb2.ON_LOST_RESYNC, delivery=self._args.delivery
        )
        if self.view.token:  # rule 5
            request.resume_token = self.view.token
        else:
            request.snapshot = True
        self.view.begin()
        self._write(b"O", request)
        opened, drained, silence = None, None, FIRST_MESSAGE
        async with self._channel() as channel:
            stub = token_broker_pb2_grpc.TokenBrokerServiceStub(channel)
            call = stub.WatchCredentialStatus(request, metadata=[("authorization", f"Bearer {bearer}")])
            try:
                while True:
                    message = await asyncio.wait_for(call.read(), silence)
                    if message is grpc.aio.EOF:
                        end = End(StatusCode.OK)
                        break
                    self._write(b"M", message)
                    if message.HasField("opened"):
                        opened = time.monotonic()
                        silence = SILENT_INTERVALS * message.opened.progress_interval.ToTimedelta().total_seconds()
                    if message.HasField("drain"):  # rule 16
                        drained = time.monotonic() + message.drain.reconnect_after.ToTimedelta().total_seconds()
                    self.changed |= self.view.apply(message)
                    self.news.set()
            except grpc.aio.AioRpcError as error:
                end = End.of(error)
            except asyncio.TimeoutError:  # rule 14; a `read` that is left cancels the call
                end = End(StatusCode.CANCELLED, f"silent for {silence:.0f} s")
        if opened is not None:
            end.lived = time.monotonic() - opened
        if drained is not None:
            end.drained, end.not_before = True, drained
        return end

    def _channel(self) -> grpc.aio.Channel:
        scheme, _, target = self._args.endpoint.partition("://")
        if scheme == "http":
            return grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
        roots = self._args.ca.read_bytes() if self._args.ca else None
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots), CHANNEL_OPTIONS)

    def _write(self, mark: bytes, message: Message) -> None:
        """For tests. O: a stream is opened with this request, M: this came; then a varint and so many bytes."""
        if self._record is not None:
            self._record.write(mark)
            serialize_length_prefixed(message, self._record)
            self._record.flush()


async def show(watcher: Watcher) -> NoReturn:
    """The slow work, at its own pace (rule 7). An injector asks GetPluginToken here, for each generation above the one
    that it has installed, and deletes what is gone or waits for the user (rules 9 and 10)."""
    while True:
        await watcher.news.wait()
        watcher.news.clear()
        for key in sorted(watcher.changed):
            watcher.changed.discard(key)
            status = watcher.view.credentials.get(key)
            text = "gone"
            if status is not None:
                state = connection_pb2.CredentialState.DESCRIPTOR.values_by_number.get(status.state)
                text = f"{state.name if state else status.state} generation {status.generation} at {status.provider}"
            await asyncio.to_thread(print, key, text, flush=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def scope(text: str) -> watch_pb2.WatchScope:
    match text.split(":"):
        case ["own"]:
            return watch_pb2.WatchScope(own=True)
        case ["connection", name]:
            return watch_pb2.WatchScope(connection_id=name)
        case ["credential", name]:
            return watch_pb2.WatchScope(credential_id=name)
    raise ValueError(text)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Prints what becomes of your credentials.")
    parser.add_argument("endpoint", help="http://host:port or https://host:port")
    parser.add_argument("token_file", type=Path, help="holds the platform token; replace it to renew the token")
    parser.add_argument("--ca", type=Path, help="PEM file of the CA for https (default: the well-known ones)")
    parser.add_argument("--scope", type=scope, action="append", help="own, connection:ID or credential:ID ")
    parser.add_argument("--delivery", type=watch_pb2.Delivery.Value, default="DELIVERY_EVERY_EVENT", help="rule 6")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append what is received, for tests")
    watcher = Watcher(parser.parse_args())
    await asyncio.gather(watcher.run(), show(watcher))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (Stop, OSError) as why:
        sys.exit(f"gave up: {why}")
    except KeyboardInterrupt:
        sys.exit(130)
