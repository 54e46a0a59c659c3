import pytest
from support.volumes import place

import ctspine1k
from ctspine1k import load_catalog
from ctspine1k.catalog.patients import parts_by_patient


def test_a_patient_is_never_in_two_parts():
    cases = load_catalog("verse").where(split="train")
    parts = cases.split_by_patient([0.7, 0.2, 0.1], seed=3)
    assert sorted(case.case_id for part in parts for case in part) == sorted(case.case_id for case in cases)
    patients = [{case.patient for case in part} for part in parts]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]
    assert sum(map(len, patients)) == len({case.patient for case in cases}) < len(cases)
    for part, fraction in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert len(part) == pytest.approx(fraction * len(cases), abs=1.5)
        indices = [case.index for case in part]
        assert indices == sorted(indices)


def test_the_seed_decides_and_nothing_else():
    cases = load_catalog("verse")
    one, again, other = (cases.split_by_patient([0.5, 0.5], seed=seed)[0].cases for seed in (1, 1, 2))
    assert one == again != other
    assert cases.split_by_patient([0.5, 0.5])[0].cases == cases.split_by_patient([0.5, 0.5], seed=0)[0].cases
    # Of three, the one in the middle lies as much in either half, and goes to the first.
    assert [
        len(part) for part in parts_by_patient({"a": "x", "b": "y", "c": "z"}, [0.5, 0.5], 0, "raise")
    ] == [2, 1]
    # By another path, so that no later version gives another split.
    assert parts_by_patient({"a": "x", "b": "y", "c": "x", "d": "z"}, [0.5, 0.5], 0, "raise") == [
        ["a", "c"],
        ["b", "d"],
    ]


def test_unknown_patients_are_refused_unless_each_is_one():
    cases = load_catalog()
    with pytest.raises(
        ValueError, match=r'the patient of 190 of 1,005 cases is not known: .*on_unknown="separate"'
    ):
        cases.split_by_patient([0.8, 0.2])
    parts = cases.split_by_patient([0.8, 0.2], on_unknown="separate")
    assert sum(map(len, parts)) == 1005
    known = [{case.patient for case in part} - {None} for part in parts]
    assert not known[0] & known[1]
    # A case's id is no patient's name.
    assert len(parts_by_patient({"a": None, "b": "a"}, [0.5, 0.5], 0, "separate")[0]) == 1


@pytest.mark.parametrize("fractions", [[0.5, 0.6], [1.5, -0.5], [0.5], [], [1.0, 0.0], 0.8, ["a"], None])
def test_fractions_add_up_to_1(fractions):
    with pytest.raises(ValueError, match=r"fractions=.*: expected positive numbers that add up to 1"):
        load_catalog("verse").split_by_patient(fractions)


def test_folders_of_ctspine1k_say_nothing_of_patients(tmp_path):
    place(tmp_path, "patient0001/liver_106.nii.gz")
    liver = ctspine1k.open_collection(data_dir=tmp_path).select("liver_106")
    with pytest.raises(ValueError, match="the patient of 1 of 1 cases is not known"):
        liver.split_by_patient([1.0])


def test_fractions_may_be_rounded():
    assert len(load_catalog("verse").split_by_patient([0.3333334] * 3)) == 3


def test_there_are_too_few_patients():
    with pytest.raises(ValueError, match="expected a patient in each part, found only 1 of 3 cases"):
        load_catalog("verse").where(patient="verse405").split_by_patient([0.5, 0.5])
    with pytest.raises(ValueError, match="on_unknown='skip': expected one of 'raise', 'separate'"):
        load_catalog("verse").split_by_patient([1], on_unknown="skip")


@pytest.fixture
def folder(tmp_path):
    """Four scans of two patients, as their folders say."""
    scans = [case.case_id for case in load_catalog("msr").where(fold=1)][:4]
    for scan, patient in zip(
        scans, ("patient0001", "patient0002", "patient0001", "patient0002"), strict=True
    ):
        for ending in (".mhd", ".lml"):
            path = tmp_path / patient / scan / f"{scan}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
    return tmp_path, scans


def test_folders_say_whose_scans_they_are(folder):
    root, scans = folder
    opened = ctspine1k.open_collection("msr", data_dir=root).select(scans)
    parts = opened.split_by_patient([0.5, 0.5])
    assert sorted([case.case_id for case in part] for part in parts) == sorted([scans[::2], scans[1::2]])
    assert parts[0].place == opened.place
    with pytest.raises(ValueError, match="the patient of 302 of 302 cases is not known"):
        load_catalog("msr").split_by_patient([0.5, 0.5])
    with pytest.raises(ValueError, match=r"expected data_dir, a folder: .* Keep the folders of patients"):
        ctspine1k.open_collection("msr").split_by_patient([0.5, 0.5])
    place(root / "patient0001" / "other", f"{scans[0]}.nii.gz")  # a second one says the same
    assert len(opened.split_by_patient([0.5, 0.5])) == 2
    (root / "patient0001" / scans[0] / f"{scans[0]}.lml").rename(root / "patient0002" / f"{scans[0]}.lml")
    with pytest.raises(ValueError, match=f"expected a file of patient000., as others of {scans[0]} are"):
        opened.split_by_patient([0.5, 0.5])
