"""The command line, run in this process."""

import pytest

from ctspine1k.cli.main import main


@pytest.fixture
def run(capsys):
    """Run a command, and give its exit status and what it wrote to stdout and stderr."""

    def command(*arguments, **_):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return status, told.out, told.err

    return command
