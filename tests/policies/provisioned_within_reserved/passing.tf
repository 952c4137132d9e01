resource "aws_lambda_function" "reserved" {
  function_name                  = "within"
  reserved_concurrent_executions = 5
}

resource "aws_lambda_provisioned_concurrency_config" "passing" {
  function_name                     = "within"
  qualifier                         = "live"
  provisioned_concurrent_executions = 5
}

resource "aws_lambda_function" "unreserved" {
  function_name                  = "unreserved"
  reserved_concurrent_executions = -1
}

resource "aws_lambda_provisioned_concurrency_config" "passing_unreserved" {
  function_name                     = "unreserved"
  qualifier                         = "live"
  provisioned_concurrent_executions = 3
}
