resource "aws_lambda_permission" "failing" {
  function_name = "classifier"
  qualifier     = "$LATEST"
}

resource "aws_lambda_function_event_invoke_config" "failing_unqualified" {
  function_name = "classifier"
}

resource "aws_lambda_alias" "failing" {
  function_name    = "classifier"
  function_version = "$LATEST"
}

resource "aws_lambda_event_source_mapping" "failing" {
  function_name = "arn:aws:lambda:us-east-1:123456789012:function:classifier:$LATEST"
}
