from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_trtgray.logs.diagnosis import OK, UNDIAGNOSED, diagnose, findings_of
from pytest_trtgray.logs.records import Record
from pytest_trtgray.logs.ruleset import RuleError, builtin_rules, load_rules, needles_of
from tests.recordings import DATA

ROOT = Path(__file__).parents[3]
OWN = """
[[rule]]
code = "BOARD_VARIANT"
severity = "error"
cause = "the board's plugins are older than the model"
remedy = "Install board-support 4.2."
sources = ["board-support#7"]
match = [{ text = 'BoardPlugin: unknown variant (?P<where>\\w+)' }]
"""


def rules_in(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text, "utf-8")
    return path


def error(message: str) -> Record:
    return Record("error", "tensorrt", message)


class TestOwnRules:
    def test_they_are_asked_before_the_built_in_ones(self, tmp_path: Path) -> None:
        own = OWN.replace("BoardPlugin: unknown variant (?P<where>\\w+)", "no optimization profile has been defined")
        records = [error("Network has dynamic or shape inputs, but no optimization profile has been defined.")]

        assert diagnose(records).code == "BUILD_NO_PROFILE"
        assert diagnose(records, rules=load_rules([rules_in(tmp_path, own)])).code == "BOARD_VARIANT"

    def test_a_diagnosis_has_all_that_the_rule_says(self, tmp_path: Path) -> None:
        rules = load_rules([rules_in(tmp_path, OWN)])
        diagnosis = diagnose([error("BoardPlugin: unknown variant mk3, giving up")], rules=rules)

        assert (diagnosis.code, diagnosis.where) == ("BOARD_VARIANT", "mk3")
        assert diagnosis.remedy == "Install board-support 4.2."
        assert diagnosis.sources == ("board-support#7",)

    def test_own_noise_is_not_looked_at(self, tmp_path: Path) -> None:
        rules = load_rules([rules_in(tmp_path, "[[noise]]\ntext = 'telemetry .* not reachable'\nreason = 'ours'\n")])
        records = [error("telemetry endpoint not reachable")]

        assert diagnose(records).code == UNDIAGNOSED
        assert diagnose(records, rules=rules).code == OK
        assert findings_of(records, rules=rules) == ()

    def test_an_optimisation_of_ones_own_needs_no_code(self, tmp_path: Path) -> None:
        own = OWN.replace('code = "BOARD_VARIANT"', 'optimisation = "BOARD-1"').replace('"error"', '"advice"')
        rules = load_rules([rules_in(tmp_path, own)])
        records = [error("BoardPlugin: unknown variant mk3")]

        assert [finding.rule for finding in findings_of(records, rules=rules)] == ["log.BOARD-1"]
        assert diagnose(records, rules=rules).code == OK

    def test_none_are_the_built_in_ones(self) -> None:
        assert load_rules([]) == builtin_rules()


class TestMistakes:
    """Each names the file, the rule, the key and the reason."""

    @pytest.mark.parametrize(
        ("old", "new", "named"),
        [
            ('"error"', '"fatal"', ("rule BOARD_VARIANT: severity", "'fatal' is not one of error, warning, advice")),
            ("cause =", "because =", ("rule BOARD_VARIANT: because", "is not known", "cause")),
            ('cause = "the', 'cause = 3 # "the', ("cause", "is 3, not text")),
            ("remedy = ", "# ", ("remedy", "is missing")),
            ("(?P<where>", "(?P<where", ("match[0].text", "is no regular expression")),
            ("text = ", "texts = ", ("match[0].texts", "is not known")),
            ("{ text", "{ above = { seconds = 'x' }, text", ("match[0].above.seconds", "'x' is no number")),
            ("{ text", "{ severity = 'loud', text", ("match[0].severity", "'loud' is not one of")),
            ("{ text", "{ standard_operator = 1, text", ("match[0].standard_operator", "is 1, not true or false")),
            ("{ text", "{ error_code = 'x', text", ("match[0].error_code", "is 'x', not a whole number")),
            ("[{ text = 'BoardPlugin: unknown variant (?P<where>\\w+)' }]", "[{}]", ("match[0]", "is no condition")),
            ("[{ text = 'BoardPlugin: unknown variant (?P<where>\\w+)' }]", "3", ("match", "is no list of conditions")),
            ('code = "BOARD_VARIANT"', 'code = "board variant"', ("code", "is no name")),
            ('code = "BOARD_VARIANT"', "", ("rule 1", "neither 'code' nor 'optimisation'")),
            ("sources", 'effect = "much faster"\nsources', ("effect", "without a number or without a source")),
            ("sources", 'rank = "first"\nsources', ("rank", "'first' is not one of capture, cause, consequence")),
            ("sources", 'priority = "high"\nsources', ("priority", "is 'high', not a whole number")),
            ("[[rule]]", "[rule]", ("own.toml", "'rule' is no list of tables", "[[rule]]")),
            ("[[rule]]", "[[rules]]", ("own.toml", "unknown table 'rules'", "rule, noise, follow_up")),
            ("[[rule]]", "[[rule", ("own.toml", "is not TOML")),
        ],
    )
    def test_a_mistake_is_named(self, tmp_path: Path, old: str, new: str, named: tuple[str, ...]) -> None:
        assert old in OWN
        path = rules_in(tmp_path, OWN.replace(old, new, 1))
        with pytest.raises(RuleError) as caught:
            load_rules([path])

        for part in (str(path), *named):
            assert part in caught.value.message

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(RuleError, match=r"missing\.toml: cannot be read.*\n.*trt_rules"):
            load_rules([tmp_path / "missing.toml"])

    def test_a_mistake_in_noise_names_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(RuleError, match="noise 2: texts"):
            load_rules([rules_in(tmp_path, "[[noise]]\ntext = 'a'\n[[noise]]\ntexts = 'b'\n")])


class TestBuiltInRules:
    def test_no_rule_depends_on_a_line_of_the_source(self) -> None:
        patterns = [
            condition.text.pattern
            for rule in builtin_rules().rules
            for condition in (*rule.match, *rule.requires, *rule.unless)
            if condition.text
        ]
        assert len(patterns) > 100
        assert [pattern for pattern in patterns if re.search(r"(?:cpp|hpp|\\?\.h|cc)\\?:+\\?d?\d", pattern)] == []

    def test_an_effect_has_a_number_of_a_source(self) -> None:
        promising = [rule for rule in builtin_rules().rules if rule.effect]
        assert [rule.optimisation for rule in promising] == ["OPT-14"]

    def test_every_code_that_follows_from_another_exists(self) -> None:
        rules = builtin_rules().rules
        assert frozenset().union(*(rule.explains for rule in rules)) <= {rule.code for rule in rules}

    def test_the_manual_has_every_code_and_every_optimisation_rule(self) -> None:
        manual = (ROOT / "docs" / "log-rules.md").read_text("utf-8")
        codes = set(re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", manual, re.MULTILINE))
        numbers = re.findall(r"^\| (OPT-\d\d) \|", manual, re.MULTILINE)

        assert codes == {rule.code for rule in builtin_rules().rules if rule.code} | {OK, UNDIAGNOSED}
        assert numbers == [f"OPT-{number:02}" for number in range(1, 35)]

    def test_a_number_of_the_manual_that_a_log_shows_has_a_rule(self) -> None:
        manual = (ROOT / "docs" / "log-rules.md").read_text("utf-8")
        from_log = set(re.findall(r"^\| (OPT-\d\d) \|[^|]*\| log\b", manual, re.MULTILINE))

        assert from_log == {rule.optimisation for rule in builtin_rules().rules if rule.optimisation}


class TestNeedles:
    """Plain text that is looked for before a search."""

    @pytest.mark.parametrize(
        ("pattern", "needles"),
        [
            ("out of memory", ("out of memory",)),
            ("Could not open|No such file", ("could not open", "no such file")),
            (r"tensor (?P<where>\S+) is missing", (" is missing",)),
            (r"(?:left out )?stays here", ("stays here",)),
            (r"colou?rs of [Ii]ndices", ("rs of ",)),
            (r"size\[\d+\]\.data", ("].data",)),
            (r"abcdef{2,10}ghi", ("abcde",)),
            (r"stage+long", ("stage",)),
            ("a|long enough", ()),
            (r"\d+ \w+", ()),
        ],
    )
    def test_the_longest_plain_part_of_each_alternative(self, pattern: str, needles: tuple[str, ...]) -> None:
        assert needles_of(pattern) == needles

    def test_no_search_that_would_find_something_is_left_out(self) -> None:
        conditions = [
            c for rule in builtin_rules().rules for c in (*rule.match, *rule.requires, *rule.unless) if c.text
        ]
        found = 0
        for line in (DATA / "log_wordings.tsv").read_text("utf-8").splitlines():
            for condition in conditions:
                if condition.text and condition.text.search(line):
                    found += 1
                    assert not condition.needles or any(needle in line.lower() for needle in condition.needles)
        assert found > 90
