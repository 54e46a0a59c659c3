"""What becomes of the errors of the Hub's client: by class, whatever library it speaks HTTP with."""

import errno
import functools

import huggingface_hub
import pytest

from ctspine1k import list_files
from ctspine1k.errors import HubError
from ctspine1k.files import hub as hub_module


@pytest.fixture
def asked(monkeypatch):
    """Ask the Hub for a listing, while its client raises an error."""

    def ask(error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
        return list_files(cases="liver_106", repo_id="tests/any")

    return ask


@pytest.fixture
def transport(request, monkeypatch):
    """The library that the client speaks HTTP with, as the base of its own error says."""
    library = pytest.importorskip(request.param)
    between = type("Own", (library.HTTPError,), {"__module__": "huggingface_hub.errors"})
    http_error = type("HfHubHTTPError", (between,), {})
    monkeypatch.setattr(huggingface_hub.errors, "HfHubHTTPError", http_error)
    # What is found out once a process is found out again.
    monkeypatch.setattr(hub_module, "_client_errors", functools.cache(hub_module._client_errors.__wrapped__))
    return library


def explained(asked, error):
    with pytest.raises(HubError, match="Check repo_id, the revision, your token") as caught:
        asked(error)
    assert caught.value.__cause__ is error
    assert f"{type(error).__name__}: {error}" in str(caught.value)


#: Those that later releases have are tested with these.
_OWN_ERRORS = (
    *("EntryNotFoundError", "LocalEntryNotFoundError", "OfflineModeIsEnabled", "LocalTokenNotFoundError"),
    *("FileMetadataError", "HFValidationError", "XetDownloadError", "RevisionResolutionError"),
)


@pytest.mark.parametrize("name", [name for name in _OWN_ERRORS if hasattr(huggingface_hub.errors, name)])
def test_errors_of_the_client_itself(asked, name):
    kind = getattr(huggingface_hub.errors, name)
    explained(asked, kind.__new__(kind, "no such thing"))


def test_an_http_error_of_the_client_is_one_of_its_library(asked, monkeypatch):
    monkeypatch.setattr(hub_module, "_client_errors", functools.cache(hub_module._client_errors.__wrapped__))
    kind = huggingface_hub.errors.RepositoryNotFoundError
    explained(asked, kind.__new__(kind, "no such repo"))


@pytest.mark.parametrize("transport", ["requests"], indirect=True)
@pytest.mark.parametrize(
    "name", ["RequestException", "ConnectionError", "ReadTimeout", "ChunkedEncodingError", "HTTPError"]
)
def test_errors_of_requests(asked, transport, name):
    explained(asked, getattr(transport.exceptions, name)("no answer"))


@pytest.mark.parametrize("transport", ["requests"], indirect=True)
@pytest.mark.parametrize("name", ["ProtocolError", "IncompleteRead"])
def test_errors_below_requests(asked, transport, name):
    import urllib3.exceptions

    arguments = (5, 7) if name == "IncompleteRead" else ("cut off",)
    explained(asked, getattr(urllib3.exceptions, name)(*arguments))


@pytest.mark.parametrize("transport", ["httpx"], indirect=True)
@pytest.mark.parametrize(
    "name", ["ConnectError", "ReadTimeout", "RemoteProtocolError", "StreamError", "InvalidURL"]
)
def test_errors_of_httpx(asked, transport, name):
    explained(asked, getattr(transport, name)("no answer"))


def test_an_error_of_the_client_that_is_of_no_class(asked):
    """It raises a bare OSError where sizes do not agree."""
    explained(asked, OSError("Consistency check failed"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        ZeroDivisionError("by zero"),
    ],
    ids=repr,
)
def test_errors_of_the_machine_and_ours_are_what_they_are(asked, error):
    with pytest.raises(type(error)) as caught:
        asked(error)
    assert caught.value is error
