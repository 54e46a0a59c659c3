import errno
import inspect
import pickle

import pytest

from ctspine1k import errors

EXAMPLES = [
    errors.SplitFileError("split.txt", 3, "a b", "two names on one line", ("trainset", "test_public")),
    errors.UnknownCaseError("liver_1066", ["liver_106"], 1005),
    errors.MissingFilesError({"liver_106": "mask"}, 3, "/data", "Get it."),
    errors.AmbiguousFilesError("liver_106", "image", ["/a", "/b"]),
    errors.ChecksumError("/a", "sha256", "00", "11", "Get it again."),
    errors.NothingLeftError("train", {"liver_106": "no mask file"}),
    errors.NothingLeftError("train", {"liver_106": "no mask file"}, were_warned=True),
    errors.HubError("the Hub is away"),
    errors.NoSpaceError("/cache", "a download", 150_000_000_000, 20_000_000_000, "Select fewer."),
    errors.StoredArrayError("liver_106 image", "this", "that"),
    errors.ScanTableError("cases.parquet", "this", "that"),
    errors.OutputError("out", "an empty folder", "README.md", "Give another."),
    errors.BusyError("cases.parquet"),
    errors.WorkerError("a worker died"),
    errors.MissingPackageError("This", "blosc2", "compact"),
    *(
        kind("/a.nii.gz", "this", "that", "Do so.")
        for kind in (
            errors.CaseError,
            errors.FileFormatError,
            errors.UnreadableFileError,
            errors.TruncatedFileError,
            errors.CorruptFileError,
            errors.VoxelValueError,
            errors.PointsError,
            errors.GeometryError,
            errors.PairMismatchError,
            errors.ImageSizeError,
        )
    ),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_cross_process_borders_whole(error):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_class_is_in_the_family_in_the_docstring_and_in_the_examples():
    classes = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == errors.__name__
    }
    assert set(classes) == {name for name in errors.__all__ if name[0].isupper()}
    raised = {name for name, kind in classes.items() if not issubclass(kind, Warning)} - {"CTSpine1KError"}
    assert all(issubclass(classes[name], errors.CTSpine1KError) for name in raised)
    assert raised == {type(example).__name__ for example in EXAMPLES}
    assert [name for name in raised if f"── {name} " not in errors.__doc__] == []


def test_a_message_says_what_expected_found_and_next_step():
    assert str(EXAMPLES[-1]) == "/a.nii.gz: expected this, found that. Do so."


def test_the_end_of_a_sentence_is_there_once():
    for found in ("not a Parquet file", "not a Parquet file.", "not a Parquet file.\n"):
        error = errors.ScanTableError("cases.parquet", "a table", found, "Scan again.")
        assert str(error) == "cases.parquet: expected a table, found not a Parquet file. Scan again."
    for found in (".", "../..", "an ellipsis..."):
        assert f"found {found}. Do so." in str(errors.CaseError("/a", "this", found, "Do so."))


def test_the_reason_of_the_system_is_told_also_where_it_has_no_number():
    for error, reason in (
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("seek of closed file"), "seek of closed file"),
    ):
        told = errors.UnreadableFileError.of("/a.nii.gz", error)
        assert str(told).startswith(f"/a.nii.gz: expected a file that can be read, found {reason}. ")
    gone = errors.UnreadableFileError.of("/a.nii.gz", FileNotFoundError(errno.ENOENT, "No such file"))
    assert str(gone).startswith(
        "/a.nii.gz: expected the raw file that was there when the work began, found none. "
    )


def test_the_builtin_kin():
    kin = {
        type(e).__name__: next(k.__name__ for k in type(e).__mro__ if k.__module__ == "builtins")
        for e in EXAMPLES
    }
    documented = {
        line.split("── ")[1].split()[0]: line.rstrip(")").rpartition("(")[2]
        for line in errors.__doc__.splitlines()
        if "── " in line and line.endswith(")")
    }
    assert {name: kin[name] for name in documented} == documented
