import pytest

from ctspine1k.running.retries import retry

TWO = (0.01, 0.01)


@pytest.fixture
def call():
    """Fails as often as it is told to."""

    def run():
        run.calls += 1
        if run.failures:
            raise run.failures.pop()
        return "done"

    run.calls, run.failures = 0, []
    return run


def test_a_call_that_fails_is_tried_again(call):
    call.failures = [ConnectionError("first"), ConnectionResetError("second")]
    assert retry(call, ConnectionError, pauses=TWO) == "done"
    assert call.calls == 3


def test_the_last_failure_is_told(call):
    call.failures = [ConnectionError(number) for number in (3, 2, 1)]
    with pytest.raises(ConnectionError, match="3"):
        retry(call, ConnectionError, pauses=TWO)
    assert call.calls == 3


def test_another_error_is_told_at_once(call):
    call.failures = [ValueError("another")]
    with pytest.raises(ValueError, match="another"):
        retry(call, ConnectionError, pauses=TWO)
    assert call.calls == 1


def test_a_failure_that_will_not_pass_is_told_at_once(call):
    call.failures = [ConnectionRefusedError("for good")]
    with pytest.raises(ConnectionRefusedError, match="for good"):
        retry(call, ConnectionError, (ConnectionRefusedError,), TWO)
    assert call.calls == 1


def test_without_pauses_it_is_tried_once(call):
    call.failures = [ConnectionError("first")]
    with pytest.raises(ConnectionError, match="first"):
        retry(call, ConnectionError, pauses=())
    assert call.calls == 1
