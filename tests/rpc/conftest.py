# Generated code is no test, though some of its modules are called test_*.
collect_ignore = ["generated"]
