resource "aws_sagemaker_endpoint" "passing" {
  name = "watched"
}

resource "aws_cloudwatch_metric_alarm" "endpoint" {
  namespace   = "AWS/SageMaker"
  metric_name = "Invocation5XXErrors"
  dimensions  = { EndpointName = "watched", VariantName = "AllTraffic" }
}

resource "aws_lambda_function" "passing" {
  function_name = "watched"
}

resource "aws_cloudwatch_metric_alarm" "function" {
  namespace   = "AWS/Lambda"
  metric_name = "Errors"
  dimensions  = { FunctionName = "watched" }
}

resource "aws_cloudwatch_log_metric_filter" "denied" {
  log_group_name = "/aws/lambda/watched"
  pattern        = "%AccessDenied%"

  metric_transformation {
    namespace = "watched"
    name      = "AccessDenied"
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "denied" {
  namespace   = "watched"
  metric_name = "AccessDenied"
}
