"""What is read of a pyinfra run, and of two looks at a host."""

from __future__ import annotations

from tests.lab.deploying import differences, parse_run

SAID = """--> Starting operation: Services | API key in place
    [h1] {0}
    [h2] No changes

--> Starting operation: Services | API key in place
    [h1] {1}

--> Starting operation: Services | Service serving its plan
    [h1] No changes
"""


def test_of_operations_with_one_name_none_hides_what_another_changed_or_could_not() -> None:
    for first, second in (("Success", "No changes"), ("No changes", "Success")):
        run = parse_run(0, SAID.format(first, second))
        assert run.changed("h1") == ["Services | API key in place"]
        assert run.changed("h2") == []
        assert len(run.outcomes) == 2
    for first, second in (("Error", "Success"), ("Success", "Error")):
        assert parse_run(1, SAID.format(first, second)).failed("h1") == ["Services | API key in place"]


def test_differences_are_told_by_kind_and_direction() -> None:
    before = {"files": ["/a", "/b"], "packages": ["curl"]}
    assert differences(before, before) == {}
    assert differences(before, {"files": ["/b", "/c"], "packages": ["curl"]}) == {"files": ["-/a", "+/c"]}
