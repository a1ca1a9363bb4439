"""What a run predicted becomes groups to accept, doubts to settle and labels to look at again."""

import json

from label_page import pool_of

from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.labelling.session import Session


def ids(part):
    return [item["id"] for item in part["items"]]


def test_a_restarted_page_finds_predictions_suggestions_and_accuracy(found):
    state = found.state()
    assert state["predicted"]
    assert not state["calibrated"]
    assert state["suggested"] == 2
    assert state["finished"][0]["top1"] == 75.0
    assert state["finished"][0]["interval"] == [40.9, 92.9]
    assert state["finished"][0]["labels"] == 11
    assert [item["id"] for item in found.next("tab", 2)] == [8, 1]
    assert found.item(8)["reason"] == "typical"


def test_all_of_these_but_that_one(found):
    assert ids(found.group("blue", 60)) == [9, 7, 5, 3, 1]  # 11 is in a group of its own
    found.answer({7: None}, "not", "tab", group="blue")
    found.answer({9: "blue", 5: "blue"}, "grid", "tab")
    assert ids(found.group("blue", 60)) == [3, 1]
    assert found.next("tab", 1)[0]["except"] == "blue"
    assert {group["name"]: group["count"] for group in found.groups()} == {"red": 6, "blue": 2, NONE_OF_THESE: 1}
    found.answers.undo("tab")
    found.answers.undo("tab")
    assert len(ids(found.group("blue", 60))) == 5


def test_none_of_these_is_a_group_until_somebody_says_otherwise(found):
    assert ids(found.group(NONE_OF_THESE, 60)) == [11]
    found.answer({11: None}, "not", "tab", group=NONE_OF_THESE)
    assert ids(found.group(NONE_OF_THESE, 60)) == []
    assert found.next("tab", 1)[0]["id"] == 11


def test_the_most_doubtful_come_first_with_what_they_rest_on(found):
    part = found.review("doubt", 0, 3)
    assert (part["total"], ids(part)) == (12, [0, 1, 2])
    assert part["items"][0]["basis"] == []  # not on itself
    assert [(one["id"], one["label"], one["share"]) for one in part["items"][1]["basis"]] == [(0, "red", 0.6)]
    found.answer({0: "red"}, "review", "tab")
    assert ids(found.review("doubt", 0, 3)) == [1, 2, 3]


def test_labels_that_may_be_wrong_stay_until_they_are_changed_or_kept(found):
    found.answer({2: "blue", 3: "blue", 4: "red"}, "grid", "tab")
    part = found.review("labels", 0, 9)
    told = [(item["id"], item["label"], item["predicted"]) for item in part["items"]]
    assert told == [(2, "blue", "red"), (3, "blue", "red")]
    found.answer({2: "red"}, "review", "tab")
    found.answer({3: "blue"}, "review", "tab")
    assert found.review("labels", 0, 9)["total"] == 0
    found.answers.undo("tab")
    assert ids(found.review("labels", 0, 9)) == [3]


def test_copies_with_different_labels_are_shown_side_by_side(found):
    found.answer({6: "red", 9: "blue"}, "grid", "tab")
    first, second = found.review("labels", 0, 9)["items"]
    assert (first["id"], first["predicted"]) == (6, None)
    assert [(one["id"], one["label"]) for one in first["copies"]] == [(9, "blue")]
    assert [(one["id"], one["label"]) for one in second["copies"]] == [(6, "red")]
    found.answer({9: "red"}, "review", "tab")
    assert ids(found.review("labels", 0, 9)) == [6]
    assert found.review("labels", 0, 9)["items"][0]["copies"][0]["label"] == "red"


def test_the_log_names_suggestion_prediction_and_time(found):
    found.answer({8: "blue"}, "key", "tab", seconds=2.345)
    line = json.loads(found.answers.path.with_name("labels.log.jsonl").read_text())
    told = {"rank": 1, "reason": "typical", "predicted": "red", "confidence": 0.7667, "seconds": 2.35, "new": "blue"}
    assert told.items() <= line.items()


def test_a_faulty_table_is_told_and_the_page_goes_on(found, tmp_path):
    (tmp_path / "labels.runs" / "001.predictions.csv").write_text("nothing\n")
    found.tick()
    assert "001.predictions.csv has no column" in found.state()["notice"]
    assert found.next("tab", 1)


def test_what_runs_write_does_not_join_the_images(open_session, photos, tmp_path):
    inside = Session(pool_of(photos), photos / "labels.csv", "ann")
    assert inside.training.folder == photos / ".labels.runs"
    assert open_session().training.folder == tmp_path / "labels.runs"
