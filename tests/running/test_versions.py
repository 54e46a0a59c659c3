import pytest

from ctspine1k import __version__
from ctspine1k.errors import WorkerError
from ctspine1k.running.versions import require_version


def test_another_version_does_no_work():
    require_version(__version__)
    with pytest.raises(
        WorkerError, match=f"a worker has ctspine1k {__version__}, the work was begun by 0.0.9"
    ):
        require_version("0.0.9")
