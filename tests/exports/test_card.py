import datasets
import pytest
import yaml
from huggingface_hub import DatasetCard
from support.tiny import TINY

from ctspine1k.catalog.ctspine1k import CTSPINE1K
from ctspine1k.catalog.msr import MSR
from ctspine1k.catalog.verse import VERSE
from ctspine1k.exports.card import SplitSize, make_card, split_sizes
from ctspine1k.exports.ledger import ShardRecord
from ctspine1k.rows.features import features_of
from ctspine1k.rows.options import RowOptions

SIZES = [
    SplitSize("3d", "train", 153, 610, 70_000_000_000, 640_000_000_000),
    SplitSize("2d", "train", 153, 300_000, 71_000_000_000, 640_000_000_000),
    SplitSize("3d", "test", 50, 198, 20_000_000_000, 200_000_000_000),
    SplitSize("2d", "test", 50, 100_000, 21_000_000_000, 200_000_000_000),
]
OPTIONS = [RowOptions(config, geometry=True).of(CTSPINE1K) for config in ("3d", "2d")]
FACTS = ("split", "source", "special_case", "issues")


def card(options=OPTIONS, sizes=SIZES, skipped=None, origin=None, is_scanned=False, data_set=CTSPINE1K):
    origin = origin or {"folder": "tree"}
    text = make_card(data_set, options, sizes, skipped or {}, origin, facts=FACTS, is_scanned=is_scanned)
    return DatasetCard(text)


def test_the_head_is_what_the_hub_and_datasets_read():
    head = card().data.to_dict()
    assert head["configs"] == [
        {
            "config_name": "3d",
            "data_files": [
                {"split": "train", "path": "3d/train/*.parquet"},
                {"split": "test", "path": "3d/test/*.parquet"},
            ],
        },
        {
            "config_name": "2d",
            "data_files": [
                {"split": "train", "path": "2d/train/*.parquet"},
                {"split": "test", "path": "2d/test/*.parquet"},
            ],
            "default": True,  # the Hub's viewer shows slices, but not row groups as large as volumes are
        },
        {"config_name": "cases", "data_files": [{"split": "cases", "path": "cases.parquet"}]},
    ]
    assert (head["license"], head["license_name"]) == ("other", "cc-by-nc-sa")
    assert head["task_categories"] == ["image-segmentation"]
    assert head["size_categories"] == ["100K<n<1M", "n<1K"]
    assert "spine" in head["tags"]


def test_features_and_sizes_are_those_of_the_rows():
    infos = {info["config_name"]: info for info in card().data.to_dict()["dataset_info"]}
    for options in OPTIONS:
        info = datasets.DatasetInfo._from_yaml_dict(infos[options.config])
        assert info.features == features_of(options)
        assert {split.name: split.num_examples for split in info.splits.values()} == {
            size.split: size.rows for size in SIZES if size.config == options.config
        }
        assert info.download_size == sum(size.bytes for size in SIZES if size.config == options.config)
    assert "\n    list:" not in str(card())  # datasets 3 would read another type


def test_slices_of_any_size_are_nested_lists():
    options = [RowOptions(config).of(VERSE, any_size=True) for config in ("3d", "2d")]
    made = card(options, data_set=VERSE)
    for info, one in zip(made.data.to_dict()["dataset_info"], reversed(options), strict=True):
        assert datasets.DatasetInfo._from_yaml_dict(info).features == features_of(one)
    assert " list:" not in str(made)
    assert "float32, (slices, first axis, second axis): Hounsfield units" in made.text
    assert "The size of slices differs between cases, so arrays are nested lists." in made.text
    assert "nested lists" not in card().text


def test_one_config_alone():
    head = card(OPTIONS[1:], SIZES[1::2]).data.to_dict()
    assert head["dataset_info"]["config_name"] == "2d"
    assert [config["config_name"] for config in head["configs"]] == ["2d", "cases"]


def test_people_are_told_what_is_in_it():
    text = card(origin={"repo_id": "a/b", "commit": "0123"}, is_scanned=True).text
    for told in (
        "808 volumes (`3d`) and 400,000 slices (`2d`)",
        'load_dataset("PATH-OR-REPO", name="3d", split="train", streaming=True)',
        "| 2d | test | 100,000 | 50 | 21,000,000,000 |",
        "float32, (slices, 512, 512): Hounsfield units",
        "0 background, 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6",
        "1,680.0 GB",
        "as stored",
        "# CTSpine1K\n",
        "one row per case: `split`, `source`, `special_case`, `issues`, and what a scan has measured",
        "CC BY-NC-SA: attribution, no commercial use, share alike",
        "Credit the data set and its four sources",
        "@misc{deng2021ctspine1k",
        "Source MSD-T10 of CTSpine1K",
        "repo_id `a/b`, commit `0123`",
        "Nothing.",
    ):
        assert told in text
    assert "{" not in text.partition("```bibtex")[0]


@pytest.mark.parametrize(
    ("scheme", "told"), [("binary", "1 vertebra"), ("region", "3 lumbar"), ("verse", "as VerSe counts")]
)
def test_labels_are_told_as_they_are(scheme, told):
    options = [RowOptions("3d", label_scheme=scheme, orientation="RAS", image_size=(6, 5))]
    text = card(options, SIZES[::2]).text
    assert f"int32, (slices, 6, 5): 0 background, {'1-7' if scheme == 'verse' else '1'}" in text
    assert told in text
    assert "turned to RAS" in text


def test_without_masks_there_is_nothing_to_segment():
    made = card(
        [RowOptions("3d", image_size=(6, 5)).of(MSR)], [SplitSize("3d", "train", 1, 2, 3, 4)], data_set=MSR
    )
    assert made.data.to_dict()["task_categories"] == ["keypoint-detection"]


def test_what_is_particular_to_a_data_set_comes_from_it():
    options = [RowOptions("3d").of(TINY)]
    made = card(options, [SplitSize("3d", "learn", 1, 2, 3, 4)], data_set=TINY)
    head = made.data.to_dict()
    assert (head["pretty_name"], head["license"], head["license_name"]) == ("Tiny Spines", "other", "cc0-1.0")
    for told in (
        "# Tiny Spines\n",
        "0 background, 18-19 T11-T12, 28 T13",
        "CC0: nothing.",
        "Credit nobody:",
        "@misc{tiny,",
    ):
        assert told in made.text
    assert "CTSpine1K" not in made.text.replace("Made by ctspine1k", "")


def test_what_is_left_out_is_told_and_cannot_break_the_table():
    text = card(skipped={"liver_106": "a|b\nc <b>"}).text
    assert "| `liver_106` | a/b c &lt;b> |" in text
    yaml.safe_load(str(card(skipped={"liver_106": "---\n- x: ["})).split("---")[1])


def record(path, rows):
    return ShardRecord(path, "", rows, 10, 100, "", [], {}, [], "", {}, {})


def test_sizes_are_added_up_and_a_split_without_rows_is_left_out():
    records = [
        record("3d/test/00000-of-00002.parquet", 0),
        record("3d/test/00001-of-00002.parquet", 2),
        record("3d/train/00000-of-00001.parquet", 3),
        record("3d/validation/00000-of-00001.parquet", 0),
    ]
    assert split_sizes(records, CTSPINE1K.splits) == [
        SplitSize("3d", "train", 1, 3, 10, 100),
        SplitSize("3d", "test", 2, 2, 20, 200),
    ]
