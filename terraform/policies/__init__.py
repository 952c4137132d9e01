"""The project's own policies for checkov, where it has no check: `checkov --external-checks-dir terraform/policies`.

What the source does not say yet (a name out of a variable) they leave to the scan of the plan. Each has a passing and a
failing fixture in tests/policies/.
"""
