"""Does the suite catch liars, keep its own rules, and ship what it says? Tests of the tests."""
