"""Who takes part in this life: the runtime and the extensions, and the rules for what each may ask. No I/O, no time.

The order of the checks and the words of the refusals are those of AWS's own source (its emulator's `rapi/handler` package).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sandbox import answers
from sandbox.answers import Answer
from sandbox.config import Function, Limits
from sandbox.states import (
    EXTENSION_TARGET,
    ExtensionCall,
    ExtensionState,
    NotAllowed,
    extension_after,
)

INVOKE, SHUTDOWN = "INVOKE", "SHUTDOWN"
IDENTIFIER = "Lambda-Extension-Identifier"
NAME = "Lambda-Extension-Name"
ERROR_TYPE = "Lambda-Extension-Function-Error-Type"
FEATURES = "Lambda-Extension-Accept-Feature"


@dataclass(slots=True, eq=False)
class Extension:
    """One extension. External ones are files in /opt/extensions; internal ones live in the runtime's process."""

    name: str
    external: bool
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: ExtensionState = ExtensionState.STARTED
    events: tuple[str, ...] = ()
    error_type: str | None = None

    def change(self, call: ExtensionCall) -> None:
        """Raises NotAllowed and changes nothing where the table has no such step."""
        self.state = extension_after(self.state, call)


class Refused(Exception):
    """A call is refused with `answer`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.decode())
        self.answer = answer


class Registry:
    """The extensions of one life. `external` are the file names in /opt/extensions, in the order in which they are started."""

    def __init__(self, function: Function, limits: Limits, external: Iterable[str]) -> None:
        self._function = function
        self._limits = limits
        self._open = True
        self.extensions: dict[str, Extension] = {name: Extension(name, external=True) for name in external}

    # -- what the environment asks ---------------------------------------------------------------------------------

    def close(self) -> None:
        """The runtime is ready: nobody may register from now on."""
        self._open = False

    @property
    def external(self) -> list[Extension]:
        return [one for one in self.extensions.values() if one.external]

    @property
    def internal(self) -> list[Extension]:
        return [one for one in self.extensions.values() if not one.external]

    @property
    def all_registered(self) -> bool:
        """Whether every external extension has registered: only then the runtime is started."""
        return all(one.state is not ExtensionState.STARTED for one in self.external)

    @property
    def all_ready(self) -> bool:
        """Whether every extension waits in /next."""
        return all(one.state is ExtensionState.READY for one in self.extensions.values())

    def subscribed(self, event: str) -> list[Extension]:
        return [one for one in self.extensions.values() if event in one.events]

    def by_identifier(self, identifier: str) -> Extension | None:
        return next((one for one in self.extensions.values() if one.identifier == identifier), None)

    # -- what extensions ask ---------------------------------------------------------------------------------------

    def identify(self, headers: Mapping[str, str]) -> Extension:
        """The extension that calls. `headers` have lower-case names. Raises Refused."""
        identifier = headers.get(IDENTIFIER.lower(), "")
        if not identifier:
            raise Refused(answers.forbidden("Extension.MissingExtensionIdentifier", f"Missing {IDENTIFIER} header"))
        try:
            identifier = str(uuid.UUID(identifier))
        except ValueError:
            raise Refused(answers.forbidden("Extension.InvalidExtensionIdentifier", f"Invalid {IDENTIFIER}")) from None
        found = self.by_identifier(identifier)
        if found is None:
            raise Refused(answers.forbidden("Extension.UnknownExtensionIdentifier", f"Unknown extension {identifier}"))
        return found

    def register(self, headers: Mapping[str, str], body: bytes) -> tuple[Extension, Answer]:
        """POST /extension/register. Raises Refused."""
        name = headers.get(NAME.lower(), "")
        if not name:
            raise Refused(answers.forbidden("Extension.InvalidExtensionName", "Empty extension name"))
        events = _events(body)
        extension = self.extensions.get(name)
        if extension is None or not extension.external:
            extension = self._internal(name, events)
        else:
            self._check_events(name, events, external=True)
        self._change(extension, ExtensionCall.REGISTER, name)
        extension.events = events
        described: dict[str, str] = {
            "functionName": self._function.name,
            "functionVersion": self._function.version,
            "handler": self._function.handler,
        }
        features = {word.strip() for word in headers.get(FEATURES.lower(), "").split(",")}
        if "accountId" in features:
            described["accountId"] = self._function.account_id
        return extension, answers.json_answer(200, described, {IDENTIFIER: extension.identifier})

    def next(self, extension: Extension) -> None:
        """GET /extension/event/next: the extension is ready. Raises Refused."""
        self._change(extension, ExtensionCall.NEXT, extension.identifier)

    def report_error(self, extension: Extension, call: ExtensionCall, headers: Mapping[str, str]) -> Answer:
        """POST /extension/init/error and /extension/exit/error. Raises Refused."""
        error_type = headers.get(ERROR_TYPE.lower(), "")
        if not error_type:
            raise Refused(answers.forbidden("Extension.MissingHeader", f"{ERROR_TYPE} not found"))
        self._change(extension, call, extension.identifier)
        extension.error_type = extension.error_type or error_type
        return answers.accepted()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _internal(self, name: str, events: tuple[str, ...]) -> Extension:
        self._check_events(name, events, external=False)
        if not self._open:
            raise Refused(answers.forbidden("Extension.RegistrationClosed", "Extension registration closed already"))
        if name in self.extensions:
            raise Refused(
                answers.forbidden("Extension.InvalidExtensionState", "Extension with this name already registered")
            )
        if len(self.extensions) >= self._limits.max_extensions:
            raise Refused(
                answers.forbidden(
                    "Extension.TooManyExtensions", f"Extension limit ({self._limits.max_extensions}) reached"
                )
            )
        extension = Extension(name, external=False)
        self.extensions[name] = extension
        return extension

    def _check_events(self, name: str, events: tuple[str, ...], *, external: bool) -> None:
        allowed = {INVOKE, SHUTDOWN} if external else {INVOKE}
        if self._function.managed:
            allowed.discard(INVOKE)
        for event in events:
            if event not in allowed:
                internal_shutdown = not external and event == SHUTDOWN
                why = "ShutdownEventNotSupportedForInternalExtension" if internal_shutdown else "ErrorInvalidEventType"
                raise Refused(answers.forbidden("Extension.InvalidEventType", f"{event}: {why}"))

    def _change(self, extension: Extension, call: ExtensionCall, who: str) -> None:
        try:
            extension.change(call)
        except NotAllowed as error:
            raise Refused(answers.bad_extension_state(error.state, EXTENSION_TARGET[call], who)) from None


def _events(body: bytes) -> tuple[str, ...]:
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise Refused(answers.forbidden("InvalidRequestFormat", str(error))) from None
    if not isinstance(parsed, dict):
        raise Refused(answers.forbidden("InvalidRequestFormat", "the body is not an object"))
    if parsed.get("configurationKeys"):
        raise Refused(
            answers.forbidden(
                "InvalidRequestFormat", "configurationKeys are deprecated; use environment variables instead"
            )
        )
    events = parsed.get("events")
    if events is None:
        return ()
    if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
        raise Refused(answers.forbidden("InvalidRequestFormat", "events is not a list of strings"))
    return tuple(dict.fromkeys(events))
