"""The tables of states, call by call: what is listed is allowed, everything else is refused."""

from __future__ import annotations

import itertools

import pytest

from sandbox.states import (
    EXTENSION,
    EXTENSION_TARGET,
    PHASES,
    RUNTIME,
    RUNTIME_TARGET,
    ExtensionCall,
    ExtensionState,
    NotAllowed,
    Phase,
    RuntimeCall,
    RuntimeState,
    check_phase,
    extension_after,
    runtime_after,
)

R, C, E, X = RuntimeState, RuntimeCall, ExtensionState, ExtensionCall

RUNTIME_LIVES = {
    "success": ([C.NEXT, C.DELIVER, C.RESPONSE, C.SENT, C.NEXT], R.READY),
    "handled error": ([C.NEXT, C.DELIVER, C.ERROR, C.SENT, C.NEXT], R.READY),
    "several connections": ([C.NEXT, C.NEXT, C.DELIVER, C.NEXT, C.RESPONSE, C.SENT], R.RESPONSE_SENT),
    "failed init": ([C.INIT_ERROR], R.INIT_ERROR),
    "restored": ([C.RESTORE_NEXT, C.RESTORE, C.NEXT, C.DELIVER], R.RUNNING),
    "failed restore": ([C.RESTORE_NEXT, C.RESTORE, C.RESTORE_ERROR], R.RESTORE_ERROR),
    "failed restore, told as init/error": ([C.RESTORE_NEXT, C.RESTORE, C.INIT_ERROR], R.RESTORE_ERROR),
}

EXTENSION_LIVES = {
    "invocations": ([X.REGISTER, X.NEXT, X.DELIVER, X.NEXT, X.DELIVER, X.EXITED], E.EXITED),
    "killed at shutdown": ([X.REGISTER, X.NEXT, X.DELIVER, X.KILLED], E.SHUTDOWN_FAILED),
    "init error, twice": ([X.REGISTER, X.INIT_ERROR, X.INIT_ERROR], E.INIT_ERROR),
    "exit error while waiting": ([X.REGISTER, X.NEXT, X.EXIT_ERROR, X.EXIT_ERROR], E.EXIT_ERROR),
    "cannot be started": ([X.LAUNCH_FAILED], E.LAUNCH_ERROR),
}


@pytest.mark.parametrize("life", RUNTIME_LIVES)
def test_lives_of_a_runtime(life: str) -> None:
    calls, last = RUNTIME_LIVES[life]
    state = R.STARTED
    for call in calls:
        state = runtime_after(state, call)
    assert state is last


@pytest.mark.parametrize("life", EXTENSION_LIVES)
def test_lives_of_an_extension(life: str) -> None:
    calls, last = EXTENSION_LIVES[life]
    state = E.STARTED
    for call in calls:
        state = extension_after(state, call)
    assert state is last


def test_whatever_the_tables_do_not_list_is_refused() -> None:
    for runtime in itertools.product(R, C):
        if runtime not in RUNTIME:
            with pytest.raises(NotAllowed):
                runtime_after(*runtime)
    for extension in itertools.product(E, X):
        if extension not in EXTENSION:
            with pytest.raises(NotAllowed):
                extension_after(*extension)


def test_nothing_leaves_a_last_state() -> None:
    for state in (R.INIT_ERROR, R.RESTORE_ERROR):
        assert not [key for key in RUNTIME if key[0] is state]
    for extension in (E.EXITED, E.SHUTDOWN_FAILED, E.LAUNCH_ERROR):
        assert not [key for key in EXTENSION if key[0] is extension]


def test_every_call_that_comes_from_outside_has_words_for_its_refusal() -> None:
    assert set(RUNTIME_TARGET) == set(C) - {C.SENT, C.DELIVER, C.RESTORE}
    assert set(EXTENSION_TARGET) == {X.REGISTER, X.NEXT, X.INIT_ERROR, X.EXIT_ERROR}


def test_phases() -> None:
    for life in (
        "new init invoke ready invoke ready shutdown ended",
        "new init ready invoke failed shutdown new init invoke ready",
        "new init failed shutdown new init invoke",
        "new init snapshot restore ready invoke",
        "new init snapshot restore failed shutdown new",
    ):
        for before, after in itertools.pairwise(life.split()):
            assert check_phase(Phase(before), Phase(after)) is Phase(after)
    with pytest.raises(NotAllowed):
        check_phase(Phase.READY, Phase.RESTORE)
    assert PHASES[Phase.ENDED] == frozenset()
