"""Does the suite catch wrong engines, keep its own rules, and ship what it says? Tests of the tests."""
