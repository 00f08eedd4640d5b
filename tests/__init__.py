"""The test suite; a package, so that tests share helpers by their full names."""
