"""Delivers telemetry: one task for each subscription, HTTP or TCP, to 127.0.0.1. The rules are in batching.py.

Nothing is begun while the environment is frozen, and what is under way then is waited for: its time does not run.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from dataclasses import replace

import h11

from sandbox import events
from sandbox.batching import Batch, Batcher, Dropped
from sandbox.config import Function, Limits
from sandbox.events import Event
from sandbox.journal import Journal
from sandbox.subscription import Subscription

_ADDRESS = "127.0.0.1"


class Subscriber:
    """One extension's subscription, and what is on its way to it."""

    def __init__(self, hub: Hub, name: str, subscription: Subscription, limits: Limits) -> None:
        self.name = name
        self.subscription = subscription
        self._hub = hub
        self._limits = limits
        self._batcher = Batcher(subscription, limits)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tcp: asyncio.StreamWriter | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def take(self, event: Event) -> None:
        if event.category not in self.subscription.types:
            return
        for encoded in event.for_subscriber(self.subscription.schema, json_logs=self._hub.json_logs):
            self._idle.clear()
            self._dropped(self._batcher.add(encoded, time.monotonic()))
            self._wake.set()

    def flush(self) -> None:
        """Send what is there without waiting for timeoutMs."""
        self._dropped(self._batcher.flush())
        self._wake.set()

    async def idle(self) -> None:
        """Until nothing waits to be sent."""
        await self._idle.wait()

    def close(self) -> None:
        self._task.cancel()
        if self._tcp is not None:
            self._tcp.close()

    async def _run(self) -> None:
        while True:
            await self._hub.thawed.wait()
            batch = self._batcher.due(time.monotonic())
            if batch is None:
                await self._sleep()
                continue
            problem = await self._deliver(batch)
            self._hub.journal.add(
                "telemetry", self.name, "batch", records=len(batch.records), size=batch.size, problem=problem
            )
            if problem is None:
                self._batcher.delivered()
            else:
                self._dropped(self._batcher.failed(time.monotonic(), problem))

    async def _sleep(self) -> None:
        self._wake.clear()
        at = self._batcher.next_time()
        if self._batcher.empty:
            self._idle.set()
        try:
            await asyncio.wait_for(self._wake.wait(), None if at is None else max(0.0, at - time.monotonic()))
        except TimeoutError:
            return

    async def _deliver(self, batch: Batch) -> str | None:
        """None, or what was wrong."""
        call = asyncio.ensure_future(self._post(batch) if self.subscription.protocol == "HTTP" else self._write(batch))
        left = self._limits.telemetry_call_s
        while True:
            await self._hub.thawed.wait()
            began = time.monotonic()
            # Asked in short steps, so that time in which the environment is frozen does not count.
            done, _ = await asyncio.wait({call}, timeout=min(left, 0.25))
            if done:
                break
            if self._hub.thawed.is_set():
                left -= time.monotonic() - began
            if left <= 0:
                call.cancel()
                return "no answer in time"
        try:
            return call.result()
        except (OSError, h11.ProtocolError, asyncio.IncompleteReadError) as error:
            return str(error) or type(error).__name__

    async def _post(self, batch: Batch) -> str | None:
        body = batch.body()
        reader, writer = await asyncio.open_connection(_ADDRESS, self.subscription.port)
        try:
            client = h11.Connection(h11.CLIENT)
            request = h11.Request(
                method="POST",
                target=self.subscription.uri_path or "/",
                headers=[
                    ("Host", f"sandbox.localdomain:{self.subscription.port}"),
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(body))),
                    ("Sequence-Id", base64.b64encode(hashlib.sha256(body).digest()).decode()),
                    ("Connection", "close"),
                ],
            )
            writer.write(client.send(request) or b"")
            writer.write(client.send(h11.Data(data=body)) or b"")
            client.send(h11.EndOfMessage())
            await writer.drain()
            while True:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(await reader.read(65_536))
                elif isinstance(event, h11.Response):
                    return None if 200 <= event.status_code < 300 else f"status {event.status_code}"
                elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                    return "the connection ended before an answer came"
        finally:
            writer.close()

    async def _write(self, batch: Batch) -> str | None:
        if self._tcp is None or self._tcp.is_closing():
            _, self._tcp = await asyncio.open_connection(_ADDRESS, self.subscription.port)
        try:
            self._tcp.write(batch.lines())
            await self._tcp.drain()
        except OSError:
            self._tcp.close()
            self._tcp = None
            raise
        return None

    def _dropped(self, dropped: Dropped | None) -> None:
        if dropped is not None:
            self._hub.emit("platform.logsDropped", events.logs_dropped(dropped.reason, dropped.records, dropped.size))


class Hub:
    """All events of a life, and who gets them. A subscriber also gets what happened before it subscribed."""

    def __init__(self, function: Function, limits: Limits, journal: Journal, thawed: asyncio.Event) -> None:
        self.json_logs = function.log_format == "JSON"
        self.journal = journal
        self.thawed = thawed
        self._limits = limits
        self._open = True
        self._early: list[Event] = []
        self._init_events: list[Event] = []
        self.subscribers: dict[str, Subscriber] = {}
        # A dropped batch tells of itself with an event, which must not come in the middle of another's distribution.
        self._pending: list[Event] = []
        self._distributing = False

    @property
    def open(self) -> bool:
        """Whether one may still subscribe: until the first /next of every extension."""
        return self._open

    def close_subscriptions(self) -> None:
        self._open = False
        self._early.clear()

    def subscribe(self, name: str, subscription: Subscription) -> None:
        """Also in place of an earlier one of the same extension."""
        earlier = self.subscribers.pop(name, None)
        if earlier is not None:
            earlier.close()
        subscriber = Subscriber(self, name, subscription, self._limits)
        self.subscribers[name] = subscriber
        for event in self._early:
            subscriber.take(event)
        self.emit("platform.telemetrySubscription", events.telemetry_subscription(name, subscription.types))

    def emit(self, kind: str, record: events.Record, *, at: float | None = None) -> None:
        """Give an event to all who asked for its kind. `at` in seconds since 1970, now if absent."""
        event = Event(time.time() if at is None else at, kind, record)
        if event.category == "platform":
            self.journal.add("telemetry", "platform", kind, record=record)
        if kind.startswith("platform.init") or kind == "platform.extension":
            self._init_events.append(event)
        self._pending.append(event)
        if self._distributing:
            return
        self._distributing = True
        try:
            while self._pending:
                self._give(self._pending.pop(0))
        finally:
            self._distributing = False

    def repeat_init_events(self) -> None:
        """After a snapshot is restored, the events of its initialization are delivered again, as of now."""
        now = time.time()
        for event in list(self._init_events):
            self._give(replace(event, at=now))

    def _give(self, event: Event) -> None:
        if self._open:
            self._early.append(event)
        for subscriber in list(self.subscribers.values()):
            subscriber.take(event)

    async def flush(self, limit_s: float) -> None:
        """Send all that waits, for at most `limit_s`."""
        for subscriber in self.subscribers.values():
            subscriber.flush()
        waiting = [asyncio.ensure_future(one.idle()) for one in self.subscribers.values()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=limit_s)
            for one in late:
                one.cancel()

    def close(self) -> None:
        for subscriber in self.subscribers.values():
            subscriber.close()
