resource "aws_sagemaker_endpoint" "failing" {
  name = "unwatched"
}

resource "aws_lambda_function" "failing" {
  function_name = "unwatched"
}

# An alarm on the errors, but nobody reads the log.
resource "aws_lambda_function" "failing_without_filter" {
  function_name = "unread"
}

resource "aws_cloudwatch_metric_alarm" "unread" {
  namespace   = "AWS/Lambda"
  metric_name = "Errors"
  dimensions  = { FunctionName = "unread" }
}
