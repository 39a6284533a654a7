"""Tables in Markdown."""

from hemaml.core.markdown import SPACE, markdown_table


def test_a_table_keeps_its_columns_whatever_a_cell_holds():
    lines = markdown_table(["name", "found"], [("a|b", "two\nlines"), ("", 3)])
    assert [line.replace(SPACE, "") for line in lines] == [
        "| name | found |", "| --- | --- |", "| a\\|b | two lines |", "|  | 3 |"
    ]  # fmt: skip
    assert lines[0] == f"| name{SPACE} | found |"
