from tapetum.labelling.answers import Answers
from tapetum.labelling.predictions import Suggestion
from tapetum.labelling.queue import Queue

NAMES = [f"{i}.png" for i in range(8)]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def queue(tmp_path, clock=None):
    found = Queue(Answers(tmp_path / "labels.csv", NAMES, tmp_path, "ann"), clock or Clock())
    found.suggestions = [Suggestion(5, "typical"), Suggestion(2, "doubt")]
    return found


def test_suggestions_come_first_then_every_other_image_once(tmp_path):
    one = queue(tmp_path)
    order = one.next("tab", 20)
    assert order[:2] == [5, 2]
    assert sorted(order) == list(range(8))
    assert order[2:] != sorted(order[2:])
    assert one.about(2) == {"rank": 2, "reason": "doubt"}
    assert one.about(0) == {}


def test_answered_images_are_left_out_and_skipped_ones_come_last(tmp_path):
    one = queue(tmp_path)
    one.answers.give({5: "cat"}, "key")
    one.answers.give({2: None}, "skip")
    order = one.next("tab", 20)
    assert 5 not in order
    assert order[-1] == 2
    assert one.left() == 1
    one.answers.give({2: "cat"}, "key")
    assert 2 not in one.next("tab", 20)


def test_exceptions_are_asked_before_all_others(tmp_path):
    one = queue(tmp_path)
    one.answers.give({7: None}, "not", about={7: {"group": "cat"}})
    assert one.next("tab", 3) == [7, 5, 2]


def test_two_tabs_do_not_show_the_same_image(tmp_path):
    clock = Clock()
    one = queue(tmp_path, clock)
    mine, yours = one.next("mine", 3), one.next("yours", 3)
    assert not set(mine) & set(yours)
    assert one.next("mine", 3) == mine
    clock.now = 121.0  # a tab that is gone keeps nothing for long
    assert one.next("mine", 3) == mine
    assert one.next("third", 3) == yours
