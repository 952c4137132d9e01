resource "aws_lambda_function" "reserved" {
  function_name                  = "above"
  reserved_concurrent_executions = 5
}

resource "aws_lambda_provisioned_concurrency_config" "failing" {
  function_name                     = "above"
  qualifier                         = "live"
  provisioned_concurrent_executions = 6
}
