"""Notes: what is intact is read, whatever happened to the rest of the file."""

import json

from ctspine1k.running.notes import append_notes, read_notes


def test_notes_are_read_as_they_were_appended(tmp_path):
    path = tmp_path / "notes"
    assert list(read_notes(path)) == []
    notes = [json.dumps(value) for value in ({"a": 1.5}, ["b\udcff", "c\n", None], [])]
    append_notes(path, notes[:1])
    append_notes(path, notes[1:])
    assert list(read_notes(path)) == notes


def test_a_line_that_was_cut_or_damaged_is_lost_and_no_other(tmp_path):
    path = tmp_path / "notes"
    append_notes(path, ["1", "22", "333"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])  # a stopped run
    append_notes(path, ["4444"])
    assert list(read_notes(path)) == ["1", "22", "4444"]
    ends = [whole.index(b"\n", 1), whole.rindex(b"\n"), len(whole)]
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        of = [place in range(first, end + 1) for first, end in zip([0, *ends], ends, strict=False)]
        kept = [note for note, is_hit in zip(["1", "22", "333"], of, strict=True) if not is_hit]
        assert list(read_notes(path)) == kept  # a line break is of both lines beside it
        path.write_bytes(whole[:place])
        assert list(read_notes(path)) == ["1", "22", "333"][: sum(end <= place for end in ends)]
