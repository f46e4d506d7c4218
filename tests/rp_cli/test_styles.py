"""From unittest's assertions to pytest's: nothing is lost, and nothing unknown is left behind."""

from __future__ import annotations

import pytest

from rp_cli.codegen.styles import to_pytest


def in_a_test(statement: str, base: str = "") -> str:
    return f"class Test{base}:\n    def test(self, a, b):\n        {statement}\n"


@pytest.mark.parametrize(
    ("unittests", "pytests"),
    [
        ("self.assertEqual(a, b)", "assert a == b"),
        ("self.assertEqual(a, b, 'why')", "assert a == b, 'why'"),
        ("self.assertEqual(a, b, msg=f'{a}')", "assert a == b, f'{a}'"),
        ("self.assertTrue(a, msg='why')", "assert a, 'why'"),
        ("self.assertFalse(a or b)", "assert not (a or b)"),
        ("self.assertIsNotNone(a)", "assert a is not None"),
        ("self.assertIsNone(a, 'why')", "assert a is None, 'why'"),
        ("self.assertNotEqual(a, b)", "assert a != b"),
        ("self.skipTest('why')", "pytest.skip('why')"),
        ("self.skipTest(reason='why')", "pytest.skip(reason='why')"),
        ("if a > b: self.skipTest('why')", "if a > b: pytest.skip('why')"),
        ("a = 'é'; self.assertTrue(a); b = 1  # kept", "a = 'é'; assert a; b = 1  # kept"),
        ("self.assertTrue(a); self.assertTrue(b)", "assert a; assert b"),
        ("self.assertEqual(\n    a,\n    b,\n)", "assert a == b"),
    ],
)
def test_an_assertion_keeps_its_message_and_its_neighbours(unittests, pytests):
    assert to_pytest(in_a_test(unittests)) == in_a_test(pytests)


@pytest.mark.parametrize(
    "statement",
    [
        "self.assertAlmostEqual(a, b)",
        "with self.assertRaises(ValueError): pass",
        "with self.subTest(n=1): pass",
        "self.fail('why')",
        "self.assertEqual(first=a, second=b)",
        "self.assertEqual(*a)",
        "self.assertEqual(a)",
        "return self.assertTrue(a)",
        "check = self.assertTrue",
        "self.addCleanup(print)",
    ],
)
def test_what_has_no_form_in_pytest_is_refused_with_its_line(statement):
    with pytest.raises(ValueError, match="--style pytest has no self") as refused:
        to_pytest(in_a_test(statement))
    assert statement in str(refused.value)


def test_a_test_case_of_unittest_may_stay_one():
    source = in_a_test("self.assertRaises(ValueError, a)", "(unittest.TestCase)")
    assert to_pytest(source) == source


def test_methods_of_the_file_itself_are_no_leftovers():
    own = "    def assertNear(self, a): ...\n"
    source = in_a_test("self.assertNear(a); self.assert_close(a, b)") + own
    assert to_pytest(source) == source
