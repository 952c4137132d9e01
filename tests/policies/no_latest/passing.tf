resource "aws_lambda_permission" "passing" {
  function_name = "classifier"
  qualifier     = "live"
}

resource "aws_lambda_alias" "passing" {
  function_name    = "classifier"
  function_version = "7"
}

resource "aws_lambda_event_source_mapping" "passing" {
  function_name = "arn:aws:lambda:us-east-1:123456789012:function:classifier:live"
}
