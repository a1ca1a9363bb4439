import pytest

from tapetum.data.labels.labels import NONE_OF_THESE
from tapetum.labelling.predictions import Suggestion, Suspect, read_predictions, read_suggestions, read_suspects
from tapetum.reporting.predictions_table import Columns, Neighbour, Row, csv_header, csv_lines
from tapetum.system.checksums import note_checksum

INDEX = {name: i for i, name in enumerate(["a.png", "b.png", "=c.png", "d.png", "e.png"])}


def table(tmp_path, rows, neighbours=1):
    columns = Columns(neighbours, True)
    path = tmp_path / "predictions.csv"
    path.write_bytes(csv_header(columns) + csv_lines(rows, columns))
    return read_predictions(path, INDEX)


@pytest.fixture
def found(tmp_path):
    return table(
        tmp_path,
        [
            Row("a.png", "cat", 0.9, [Neighbour("=c.png", "-dog", 0.7)], in_domain=0.5),
            Row("b.png", "cat", 0.4, [Neighbour("gone.png", "cat", 0.2)], in_domain=0.6),
            Row("=c.png", "-dog", 0.6, [], in_domain=0.9),
            Row("d.png", None, None, (), "cannot be read"),
            Row("e.png", "cat", 0.95, [], in_domain=0.01),
            Row("other.png", "emu", 0.2, []),
        ],
    )


def test_rows_find_their_images_and_classes_whatever_a_spreadsheet_would_do(found):
    assert found.of(0) == {"predicted": "cat", "confidence": 0.9}
    assert found.of(2) == {"predicted": "-dog", "confidence": 0.6}
    assert found.of(3) == {}
    assert found.basis(0) == [(2, "-dog", 0.7)]
    assert found.basis(1) == []
    assert found.is_calibrated
    assert "emu" not in found.classes


def test_a_table_that_has_changed_is_refused(tmp_path, found):
    path = tmp_path / "predictions.csv"
    note_checksum(path, "0" * 64)
    with pytest.raises(ValueError, match=r"predictions.csv has changed since it was written"):
        read_predictions(path, INDEX)


def test_the_least_certain_come_first_in_a_review_and_last_in_a_group(found):
    assert found.doubtful() == [1, 2, 0, 4]
    assert found.group("cat") == [0, 1]
    assert found.group("nothing") == []


def test_images_unlike_all_labelled_ones_are_a_group_of_their_own(found):
    assert found.group(NONE_OF_THESE) == [4]


def test_an_empty_table_predicts_nothing(tmp_path):
    assert table(tmp_path, []).doubtful() == []


def test_other_tables(tmp_path):
    (tmp_path / "s.csv").write_text("path,reason\nb.png,typical\nz.png,gone\n./=c.png,\n")
    assert read_suggestions(tmp_path / "s.csv", INDEX) == [Suggestion(1, "typical"), Suggestion(2, "")]
    (tmp_path / "label_errors.csv").write_text("path,label,suggested,doubt\na.png,cat,'-dog,0.91\n")
    (tmp_path / "conflicts.csv").write_text("group,path,label\n1,b.png,cat\n1,d.png,'-dog\n")
    first, second, third = read_suspects(tmp_path, INDEX)
    assert first == Suspect(0, "cat", "-dog", "doubt 0.91")
    assert (second.image, second.suggested, third.label) == (1, None, "-dog")
    assert (second.copies, third.copies) == ((third.image,), (second.image,))


def test_another_table_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("path,reason\na.png,typical\n")
    with pytest.raises(ValueError, match=r"x.csv has no column confidence"):
        read_predictions(tmp_path / "x.csv", INDEX)
